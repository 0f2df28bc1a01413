//! The servers that are compared, each on an image of its own, all images equal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use blockmirror_tests::config::{NodeConfig, Peer, Resource, unix_uri};
use blockmirror_tests::foreign::Foreign;
use blockmirror_tests::node::Node;
use blockmirror_tests::pair;
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::process::Process;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::wait::{PATIENT, PROMPT};
use serde_json::json;

use crate::fio::Target;
use crate::qmp::Qmp;

/// Size of every image, all of it allocated.
pub const IMAGE_SIZE: u64 = 512 << 20;

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One server, one image.
    Plain,
    /// A server that mirrors.
    Mirror,
}

/// One server under test. Whatever it needs lives as long as it.
pub struct System {
    /// Its name in the tables.
    pub name: &'static str,
    /// Where fio connects.
    uri: String,
    server: Server,
    /// Dropped after the server.
    _leg: Option<Leg>,
    /// Partners have one of their own.
    _scratch: Option<Scratch>,
}

enum Server {
    Node(Box<Node>),
    Partners(Box<Partners>),
    Foreign(Foreign),
    Process(Process),
}

/// A remote leg that has to live as long as its mirror.
enum Leg {
    Foreign(#[expect(dead_code, reason = "kept alive")] Box<Foreign>),
    Node(#[expect(dead_code, reason = "kept alive")] Box<Node>),
}

/// Column of the plain export.
pub const PLAIN: usize = 0;
/// Column of the export with the mirror machinery on and no peer.
pub const NO_PEER: usize = 1;
/// Column of nbdkit.
pub const NBDKIT: usize = 2;

/// Starts one of them.
pub type Start = fn() -> Result<System>;

/// Plain exports. In the order of the columns.
pub const PLAIN_SYSTEMS: [Start; 4] = [
    || blockmirror("blockmirror, plain", false),
    || blockmirror("blockmirror, mirror on, no peer", true),
    nbdkit_file,
    qemu_plain,
];

/// Column of the mirror to an nbdkit.
pub const TO_NBDKIT: usize = 0;
/// Column of the mirror to a partner.
pub const TO_PARTNER: usize = 1;
/// Column of the mirror to a blockmirror that serves plain NBD.
pub const TO_PLAIN: usize = 2;
/// Where other people's mirrors begin.
pub const FOREIGN: usize = 3;

/// Mirrors, ours first. QEMU's have their remote leg on an nbdkit. In the order of the columns.
pub const MIRRORS: [Start; 5] = [
    blockmirror_to_nbdkit,
    blockmirror_to_partner,
    blockmirror_to_plain,
    qemu_active_mirror,
    qemu_quorum,
];

/// Start them, the last one first if `reversed`. In the order of the columns either way.
pub fn start(starts: &[Start], reversed: bool) -> Result<Vec<System>> {
    if !reversed {
        return starts.iter().map(|start| start()).collect();
    }
    let mut systems: Vec<System> = starts.iter().rev().map(|start| start()).collect::<Result<_>>()?;
    systems.reverse();
    Ok(systems)
}

impl Target for System {
    fn uri(&self) -> &str {
        &self.uri
    }

    /// Of the server under test, not of its remote leg.
    fn cpu_time(&self) -> Result<Duration> {
        match &self.server {
            Server::Node(node) => node.process().context("it is not running")?.cpu_time(),
            Server::Partners(partners) => partners.nodes[0].process().context("it is not running")?.cpu_time(),
            Server::Foreign(foreign) => foreign.process().context("it is not running")?.cpu_time(),
            Server::Process(process) => process.cpu_time(),
        }
    }
}

impl System {
    fn new(name: &'static str, uri: String, server: Server, leg: Option<Leg>, scratch: Scratch) -> Self {
        Self {
            name,
            uri,
            server,
            _leg: leg,
            _scratch: Some(scratch),
        }
    }
}

fn image(scratch: &Scratch, name: &str) -> Result<PathBuf> {
    let path = scratch.sparse_file(name, IMAGE_SIZE)?;
    pair::seed(&path, IMAGE_SIZE)?;
    Ok(path)
}

fn blockmirror(name: &'static str, mirror: bool) -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let image = image(&scratch, "local.img")?;
    let resource = match mirror {
        true => Resource::mirrored("db", &image, IMAGE_SIZE, Vec::new()),
        false => Resource::plain("db", &image, IMAGE_SIZE),
    };
    let node = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    let uri = node.uri("db");
    Ok(System::new(name, uri, Server::Node(Box::new(node)), None, scratch))
}

fn nbdkit_file() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let foreign = Foreign::nbdkit_file(scratch.path(), &image(&scratch, "local.img")?, &[], &[])?;
    Ok(System::new(
        "nbdkit file",
        foreign.uri(),
        Server::Foreign(foreign),
        None,
        scratch,
    ))
}

fn qemu_plain() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let image = image(&scratch, "local.img")?;
    let process = storage_daemon(&scratch, &[file_node(&image)], "local")?;
    let uri = unix_uri(&scratch.join("export.nbd"), "db");
    Ok(System::new(
        "qemu-storage-daemon",
        uri,
        Server::Process(process),
        None,
        scratch,
    ))
}

/// The same remote leg for every mirror to a foreign server: nbdkit's file plugin.
fn leg(scratch: &Scratch) -> Result<Foreign> {
    Foreign::nbdkit_file(scratch.path(), &image(scratch, "remote.img")?, &[], &[])
}

fn blockmirror_to_nbdkit() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let leg = leg(&scratch)?;
    let uri = leg.uri();
    blockmirror_mirror(
        "blockmirror, sync, leg on nbdkit",
        scratch,
        &uri,
        Leg::Foreign(Box::new(leg)),
    )
}

/// The same daemon on both sides of a plain NBD connection: what the partners' stream is compared with.
fn blockmirror_to_plain() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let image = image(&scratch, "remote.img")?;
    let resource = Resource::plain("db", &image, IMAGE_SIZE);
    let leg = Node::start(scratch.path(), &NodeConfig::new("bravo", vec![resource]))?;
    let uri = leg.uri("db");
    blockmirror_mirror("blockmirror, sync, plain peer", scratch, &uri, Leg::Node(Box::new(leg)))
}

fn blockmirror_mirror(name: &'static str, scratch: Scratch, peer: &str, leg: Leg) -> Result<System> {
    let image = image(&scratch, "local.img")?;
    let peer = Peer::new("bravo", peer).with("skip_initial_sync = true");
    let resource = Resource::mirrored("db", &image, IMAGE_SIZE, vec![peer]);
    let node = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    node.wait_established("db", PATIENT)?;
    let uri = node.uri("db");
    Ok(System::new(name, uri, Server::Node(Box::new(node)), Some(leg), scratch))
}

fn blockmirror_to_partner() -> Result<System> {
    let mut partners = Partners::fresh(Setup {
        volumes: vec![("db".to_owned(), IMAGE_SIZE)],
        in_memory: true,
        ..Setup::default()
    })?;
    for side in 0..2 {
        partners.nodes[side].stop()?;
        pair::seed(&partners.image(side, "db"), IMAGE_SIZE)?;
    }
    for node in &mut partners.nodes {
        node.restart()?;
    }
    partners.wait_connected(PATIENT)?;
    partners.promote_whatever(0)?;
    partners.wait_in_step(0, PATIENT)?;
    Ok(System {
        name: "blockmirror, sync, partner",
        uri: partners.nodes[0].uri("db"),
        server: Server::Partners(Box::new(partners)),
        _leg: None,
        _scratch: None,
    })
}

fn qemu_active_mirror() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let (image, leg) = (image(&scratch, "local.img")?, leg(&scratch)?);
    let process = storage_daemon(&scratch, &[file_node(&image), remote_node(&leg)], "local")?;
    let mut qmp = Qmp::connect(&scratch.join("monitor.qmp"))?;
    let job = json!({
        "job-id": "mirror", "device": "local", "target": "remote", "sync": "full", "copy-mode": "write-blocking",
    });
    qmp.command("blockdev-mirror", &job)?;
    qmp.wait_ready("mirror")?;
    let uri = unix_uri(&scratch.join("export.nbd"), "db");
    Ok(System::new(
        "QEMU blockdev-mirror, write-blocking",
        uri,
        Server::Process(process),
        Some(Leg::Foreign(Box::new(leg))),
        scratch,
    ))
}

fn qemu_quorum() -> Result<System> {
    let scratch = Scratch::in_memory()?;
    let (image, leg) = (image(&scratch, "local.img")?, leg(&scratch)?);
    // Reads from the first leg, writes answered when both have them: what a mirror does.
    let quorum = "driver=quorum,node-name=quorum,vote-threshold=1,read-pattern=fifo,children.0=local,children.1=remote";
    let nodes = [file_node(&image), remote_node(&leg), quorum.to_owned()];
    let process = storage_daemon(&scratch, &nodes, "quorum")?;
    let uri = unix_uri(&scratch.join("export.nbd"), "db");
    Ok(System::new(
        "QEMU quorum",
        uri,
        Server::Process(process),
        Some(Leg::Foreign(Box::new(leg))),
        scratch,
    ))
}

fn file_node(image: &Path) -> String {
    format!(
        "driver=file,node-name=local,filename={},aio=io_uring,discard=unmap",
        image.display()
    )
}

fn remote_node(leg: &Foreign) -> String {
    format!(
        "driver=nbd,node-name=remote,server.type=unix,server.path={}",
        leg.socket().display()
    )
}

fn storage_daemon(scratch: &Scratch, nodes: &[String], exported: &str) -> Result<Process> {
    let (monitor, export) = (scratch.join("monitor.qmp"), scratch.join("export.nbd"));
    let mut arguments = vec![
        "--chardev".to_owned(),
        format!("socket,id=monitor,path={},server=on,wait=off", monitor.display()),
        "--monitor".to_owned(),
        "chardev=monitor".to_owned(),
    ];
    for node in nodes {
        arguments.extend(["--blockdev".to_owned(), node.clone()]);
    }
    arguments.extend([
        "--nbd-server".to_owned(),
        format!("addr.type=unix,addr.path={},max-connections=16", export.display()),
        "--export".to_owned(),
        format!("type=nbd,id=db,node-name={exported},name=db,writable=on"),
    ]);
    let program = "qemu-storage-daemon";
    let mut process = Process::start(program, Path::new(program), &arguments, &scratch.join("qemu.log"))?;
    process.wait_until("it takes connections", PROMPT, |_| export.exists() && monitor.exists())?;
    Ok(process)
}
