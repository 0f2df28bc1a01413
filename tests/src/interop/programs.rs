//! Programs that are clients, each against an export of ours.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::compare;
use crate::config::{NodeConfig, Resource};
use crate::foreign::Foreign;
use crate::node::Node;
use crate::pair::seed;
use crate::pki;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::tool;
use crate::wait::{PATIENT, PROMPT};

const MIB: u64 = 1 << 20;
/// Size of the export.
pub const SIZE: u64 = 64 * MIB;
/// What it is called, and described as.
pub const EXPORT: &str = "db";
/// Its description.
pub const DESCRIPTION: &str = "the database";

/// A node that serves [`EXPORT`] on a Unix socket and on TCP.
pub struct Served {
    /// The node.
    pub node: Node,
    /// Its port.
    pub port: u16,
    /// How to reach the export inside TLS, as libnbd says it.
    pub tls: String,
    tls_port: u16,
    /// The certificates, as QEMU's tools are told of them.
    credentials: String,
    /// Where things can be put.
    pub scratch: Scratch,
}

/// One thing a program does with the export at a URI.
pub type Act = fn(&Served, &str) -> Result<()>;

/// Everything that is tried, by the name of the program.
pub const PROGRAMS: [(&str, Act); 15] = [
    ("nbdinfo", |_, uri| nbdinfo_describes(uri)),
    ("nbdinfo --list", |_, uri| nbdinfo_lists(uri)),
    ("nbdinfo --map", nbdinfo_maps),
    ("nbdcopy, both ways", nbdcopy_both_ways),
    ("nbdcopy, 4 connections, 64 requests each", nbdcopy_wide),
    ("nbddump", nbddump_shows),
    ("qemu-img info", qemu_img_info),
    ("qemu-img convert, compare", qemu_img_converts),
    ("qemu-img map", qemu_img_maps),
    ("qemu-img bench", |_, uri| qemu_img_bench(uri)),
    ("qemu-io", qemu_io),
    ("qemu-nbd --list", qemu_nbd_lists),
    ("qemu-storage-daemon on top of us", qemu_storage_daemon_on_top),
    ("fio, verifying", |_, uri| fio_verifies(uri, &[])),
    ("nbdkit's nbd plugin", nbdkit_on_top),
];

impl Served {
    /// Starts it. `volume` are further lines of the volume.
    pub fn new(volume: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = tool::free_port()?;
        let mut resource = Resource::plain(EXPORT, &scratch.join("db.img"), SIZE);
        resource.volume_settings = format!("description = \"{DESCRIPTION}\"\n{volume}");
        let mut config = NodeConfig::new("alpha", vec![resource]);
        config.listen = vec![format!("tcp:127.0.0.1:{port}")];
        let (pki, tls_port) = (pki::directory()?, tool::free_port()?);
        config.settings = format!(
            "[tls]\ncertificate = \"{0}/server-cert.pem\"\nkey = \"{0}/server-key.pem\"\n\
             [[listener]]\naddress = \"tcp:127.0.0.1:{tls_port}\"\ntls = \"require\"",
            pki.display()
        );
        let tls = format!(
            "nbds://localhost:{tls_port}/{EXPORT}?tls-certificates={}",
            pki.display()
        );
        let node = Node::start(scratch.path(), &config)?;
        Ok(Self {
            node,
            port,
            tls,
            tls_port,
            credentials: format!("tls-creds-x509,id=tls,dir={},endpoint=client", pki.display()),
            scratch,
        })
    }

    /// How to reach the export: over the Unix socket, and over TCP.
    pub fn uris(&self) -> [String; 2] {
        [self.node.uri(EXPORT), format!("nbd://127.0.0.1:{}/{EXPORT}", self.port)]
    }

    /// The export at a URI, as QEMU's tools take it: their URIs name no certificates.
    fn qemu(&self, uri: &str) -> String {
        if uri != self.tls {
            return uri.to_owned();
        }
        let server = serde_json::json!({"type": "inet", "host": "localhost", "port": self.tls_port.to_string()});
        let file = serde_json::json!({"driver": "nbd", "server": server, "export": EXPORT, "tls-creds": "tls"});
        format!("json:{}", serde_json::json!({ "file": file }))
    }

    /// One of QEMU's tools, with our certificates.
    fn run_qemu(&self, program: &str, command: &[&str], arguments: &[&str]) -> Result<String> {
        let certificates = ["--object", &self.credentials];
        tool::check(program, &[command, &certificates, arguments].concat(), PATIENT)
    }

    /// Its image.
    pub fn image(&self) -> PathBuf {
        self.scratch.join("db.img")
    }

    /// A file of the export's size with random bytes at its start.
    fn source(&self, seeded: u64) -> Result<(PathBuf, String)> {
        let path = self.scratch.sparse_file("source.img", SIZE)?;
        seed(&path, seeded)?;
        let name = path.display().to_string();
        Ok((path, name))
    }
}

/// nbdinfo tells size, flags and description.
pub fn nbdinfo_describes(uri: &str) -> Result<()> {
    let text = tool::check("nbdinfo", &["--json", uri], PATIENT)?;
    let info: serde_json::Value = serde_json::from_str(&text)?;
    let export = &info["exports"][0];
    ensure!(
        export["export-name"] == EXPORT && export["export-size"] == SIZE,
        "{text}"
    );
    for flag in [
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_multi_conn",
        "can_cache",
        "can_df",
    ] {
        ensure!(export[flag] == true, "{flag}: {text}");
    }
    ensure!(
        export["is_read_only"] == false && export["description"] == DESCRIPTION,
        "{text}"
    );
    Ok(())
}

/// nbdinfo finds the export among those of the server.
pub fn nbdinfo_lists(uri: &str) -> Result<()> {
    let listed = tool::check(
        "nbdinfo",
        &["--list", &uri.replacen(&format!("/{EXPORT}"), "/", 1)],
        PATIENT,
    )?;
    ensure!(listed.contains(&format!("export=\"{EXPORT}\"")), "{listed}");
    Ok(())
}

/// What is data and what is hole.
fn nbdinfo_maps(served: &Served, uri: &str) -> Result<()> {
    let (_, source) = served.source(MIB)?;
    tool::check("nbdcopy", &["--flush", &source, uri], PATIENT)?;
    let text = tool::check("nbdinfo", &["--map", "--json", uri], PATIENT)?;
    ensure!(first_and_last(&text, "offset", "length", "type")? == (0, 3), "{text}");
    let totals = tool::check("nbdinfo", &["--map", "--totals", uri], PATIENT)?;
    ensure!(totals.contains("data") && totals.contains("hole,zero"), "{totals}");
    Ok(())
}

/// What a number says of the first extent of a map and of the last; the extents have to cover the export.
fn first_and_last(text: &str, start: &str, length: &str, what: &str) -> Result<(u64, u64)> {
    let extents: Vec<serde_json::Value> = serde_json::from_str(text)?;
    let mut at = 0;
    for extent in &extents {
        ensure!(extent[start] == at, "a gap at {at}: {text}");
        at += extent[length].as_u64().context("no length")?;
    }
    ensure!(at == SIZE, "{at} bytes are mapped: {text}");
    let of = |extent: Option<&serde_json::Value>| {
        let value = &extent.context("no extent")?[what];
        value.as_u64().or(value.as_bool().map(u64::from)).context("no number")
    };
    Ok((of(extents.first())?, of(extents.last())?))
}

/// nbdcopy copies in, and out again.
pub fn nbdcopy_both_ways(served: &Served, uri: &str) -> Result<()> {
    let (source, name) = served.source(20 * MIB)?;
    let back = served.scratch.join("back.img");
    tool::check("nbdcopy", &["--flush", "--connections=4", &name, uri], PATIENT)?;
    compare::assert_identical(&source, &served.image())?;
    tool::check("nbdcopy", &[uri, &back.display().to_string()], PATIENT)?;
    compare::assert_identical(&source, &back)
}

fn nbdcopy_wide(served: &Served, uri: &str) -> Result<()> {
    let (source, name) = served.source(40 * MIB)?;
    let wide = ["--flush", "--connections=4", "--requests=64", "--request-size=65536"];
    tool::check("nbdcopy", &[&wide[..], &[&name, uri]].concat(), PATIENT)?;
    compare::assert_identical(&source, &served.image())?;
    tool::check("nbdcopy", &[&wide[1..], &[uri, "null:"]].concat(), PATIENT)?;
    Ok(())
}

fn nbddump_shows(served: &Served, uri: &str) -> Result<()> {
    let commands = ["-f", "raw", "-c", "write -P 0x41 0 4k", &served.qemu(uri)];
    served.run_qemu("qemu-io", &[], &commands)?;
    let text = tool::check("nbddump", &["--length=16", uri], PATIENT)?;
    ensure!(text.contains("41 41 41 41") && text.contains("|AAAA"), "{text}");
    Ok(())
}

fn qemu_img_info(served: &Served, uri: &str) -> Result<()> {
    let text = served.run_qemu("qemu-img", &["info"], &["--output=json", &served.qemu(uri)])?;
    let info: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(info["virtual-size"] == SIZE && info["format"] == "raw", "{text}");
    Ok(())
}

/// qemu-img writes the export, and finds it equal to what it wrote.
pub fn qemu_img_converts(served: &Served, uri: &str) -> Result<()> {
    let ((source, name), uri) = (served.source(20 * MIB)?, &served.qemu(uri));
    served.run_qemu("qemu-img", &["convert"], &["-n", "-f", "raw", "-O", "raw", &name, uri])?;
    let said = served.run_qemu("qemu-img", &["compare"], &["-f", "raw", "-F", "raw", &name, uri])?;
    ensure!(said.contains("identical"), "{said}");
    let back = served.scratch.join("converted.img");
    let arguments = ["-f", "raw", "-O", "raw", uri, &back.display().to_string()];
    served.run_qemu("qemu-img", &["convert"], &arguments)?;
    compare::assert_identical(&source, &back)
}

fn qemu_img_maps(served: &Served, uri: &str) -> Result<()> {
    let (_, source) = served.source(MIB)?;
    tool::check("nbdcopy", &["--flush", &source, uri], PATIENT)?;
    let arguments = ["--output=json", "-f", "raw", &served.qemu(uri)];
    let text = served.run_qemu("qemu-img", &["map"], &arguments)?;
    ensure!(first_and_last(&text, "start", "length", "zero")? == (0, 1), "{text}");
    Ok(())
}

fn qemu_img_bench(uri: &str) -> Result<()> {
    for kind in [&[][..], &["-w", "--flush-interval=64", "--pattern=7"]] {
        let usual = ["bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096"];
        tool::check("qemu-img", &[&usual[..], kind, &[uri]].concat(), PATIENT)?;
    }
    Ok(())
}

/// Every command that qemu-io has.
pub fn qemu_io(served: &Served, uri: &str) -> Result<()> {
    const COMMANDS: [&str; 11] = [
        "write -P 0x5a 1M 64k",
        "write -f -P 0x5b 3000 512",
        "write -z 2M 1M",
        "write -z -u 3M 1M",
        "aio_write -P 0x5c 8M 1M",
        "aio_flush",
        "discard 4M 1M",
        "flush",
        "read -P 0x5a 1M 64k",
        "read -P 0x5b 3000 512",
        "read -P 0 2M 2M",
    ];
    let mut arguments = vec!["-f", "raw", "-d", "unmap"];
    for command in COMMANDS {
        arguments.extend(["-c", command]);
    }
    let uri = served.qemu(uri);
    arguments.push(&uri);
    let said = served.run_qemu("qemu-io", &[], &arguments)?;
    // A fast zero may be refused, and nothing else.
    let wrong = said
        .lines()
        .find(|line| line.contains("failed") && !line.contains("Operation not supported"));
    ensure!(wrong.is_none(), "{said}");
    Ok(())
}

fn qemu_nbd_lists(served: &Served, uri: &str) -> Result<()> {
    let (socket, inside) = (served.node.socket().display().to_string(), uri == served.tls);
    let port = if inside { served.tls_port } else { served.port }.to_string();
    let mut arguments = match uri.starts_with("nbd+unix") {
        true => vec!["--list", "--socket", &socket],
        false => vec!["--list", "--bind", "localhost", "--port", &port],
    };
    if inside {
        arguments.extend(["--tls-creds", "tls"]);
    }
    let text = served.run_qemu("qemu-nbd", &[], &arguments)?;
    ensure!(
        text.contains(&format!("'{EXPORT}'")) && text.contains(DESCRIPTION),
        "{text}"
    );
    Ok(())
}

fn qemu_storage_daemon_on_top(served: &Served, uri: &str) -> Result<()> {
    let socket = served.scratch.join("on-top.nbd");
    let _ = std::fs::remove_file(&socket);
    let server = match uri {
        uri if uri == served.tls => format!(
            "server.type=inet,server.host=localhost,server.port={},tls-creds=tls",
            served.tls_port
        ),
        uri if uri.starts_with("nbd://") => {
            format!("server.type=inet,server.host=127.0.0.1,server.port={}", served.port)
        }
        _ => format!("server.type=unix,server.path={}", served.node.socket().display()),
    };
    let arguments = [
        "--object".to_owned(),
        served.credentials.clone(),
        "--blockdev".to_owned(),
        format!("driver=nbd,node-name=below,{server},export={EXPORT},discard=unmap"),
        "--nbd-server".to_owned(),
        format!("addr.type=unix,addr.path={}", socket.display()),
        "--export".to_owned(),
        "type=nbd,id=top,node-name=below,name=top,writable=on".to_owned(),
    ];
    let log = served.scratch.join("on-top.log");
    let mut daemon = Process::start("qemu-storage-daemon", "qemu-storage-daemon".as_ref(), &arguments, &log)?;
    daemon.wait_until("it listens", PROMPT, |_| socket.exists())?;
    let top = crate::config::unix_uri(&socket, "top");
    through(served, &top, 2 * MIB)
}

fn nbdkit_on_top(served: &Served, uri: &str) -> Result<()> {
    for shared in ["shared=false", "shared=true"] {
        let below = Foreign::nbdkit(served.scratch.path(), "nbd", &[], &[&format!("uri={uri}"), shared])?;
        through(served, &below.uri(), 5 * MIB)?;
    }
    Ok(())
}

/// What is written to something on top of the export arrives, and is read through it.
fn through(served: &Served, top: &str, seeded: u64) -> Result<()> {
    let (source, name) = served.source(seeded)?;
    tool::check("nbdcopy", &["--flush", &name, top], PATIENT)?;
    compare::assert_identical(&source, &served.image())?;
    let back = served.scratch.join("through.img");
    tool::check("nbdcopy", &[top, &back.display().to_string()], PATIENT)?;
    compare::assert_identical(&source, &back)
}

/// fio writes at random, and finds what it wrote.
pub fn fio_verifies(uri: &str, more: &[&str]) -> Result<()> {
    let uri = format!("--uri={uri}");
    let usual = [
        "--name=verify",
        "--thread",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=32",
        "--size=32M",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--verify_fatal=1",
        "--do_verify=1",
        "--output-format=json",
        &uri,
    ];
    let text = tool::check("fio", &[&usual, more].concat(), PATIENT)?;
    let start = text.find('{').context("no JSON")?;
    let report: serde_json::Value = serde_json::from_str(&text[start..])?;
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "{text}");
    let verified = job["read"]["io_bytes"].as_u64().context("no figure")?;
    ensure!(verified >= 32 * MIB - 65_536, "fio verified only {verified} bytes");
    Ok(())
}
