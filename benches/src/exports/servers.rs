//! The servers that serve the image of a [`Stage`] in turn.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use blockmirror_tests::config::{NodeConfig, Resource, unix_uri};
use blockmirror_tests::node::Node;
use blockmirror_tests::pki;
use blockmirror_tests::process::Process;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PROMPT;

use super::null;
use super::scene::{Stage, Transport};
use crate::fio::Target;
use crate::systems::IMAGE_SIZE;

/// The name of the export wherever it has one.
const EXPORT: &str = "db";

/// A server that runs.
pub struct Server {
    /// Its name in the tables.
    pub name: &'static str,
    uri: String,
    running: Running,
}

enum Running {
    Node(Box<Node>),
    Process(Process),
    /// Other processes than the one that was started do the work; what they cost is not known.
    Forks(#[expect(dead_code, reason = "kept alive")] Process),
    /// Threads of this process.
    Null,
    /// It cannot be measured in this scene.
    Absent,
}

impl Server {
    /// Whether there is something to measure.
    pub fn takes_part(&self) -> bool {
        !matches!(self.running, Running::Absent)
    }
}

/// Starts one of them.
pub type Start = fn(&Stage) -> Result<Server>;

/// Column of ours.
pub const OURS: usize = 0;
/// Column of nbdkit.
pub const NBDKIT: usize = 1;
/// Columns of all peers, nbdkit's included.
pub const PEERS: std::ops::Range<usize> = 1..4;
/// Column of the server that does nothing.
pub const NULL: usize = 4;

/// In the order of the columns.
pub const SERVERS: [Start; 5] = [blockmirror, nbdkit, storage_daemon, nbd_server, nothing];

impl Target for Server {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn cpu_time(&self) -> Result<Duration> {
        match &self.running {
            Running::Node(node) => node.process().context("it is not running")?.cpu_time(),
            Running::Process(process) => process.cpu_time(),
            Running::Forks(_) | Running::Null | Running::Absent => Ok(Duration::ZERO),
        }
    }
}

/// Where a server listens.
enum Address {
    Unix(String),
    Port(u16),
    /// A port where everybody has to begin TLS.
    SecurePort(u16),
}

impl Address {
    fn new(stage: &Stage, folder: &Path) -> Result<Self> {
        Ok(match stage.scene.transport {
            Transport::Unix => Self::Unix(Stage::socket(folder).display().to_string()),
            Transport::Tcp if stage.scene.tls => Self::SecurePort(tool::free_port()?),
            Transport::Tcp => Self::Port(tool::free_port()?),
        })
    }

    fn uri(&self, export: &str) -> String {
        match self {
            Self::Unix(path) => unix_uri(Path::new(path), export),
            Self::Port(port) => format!("nbd://127.0.0.1:{port}/{export}"),
            // fio lets no URI name certificates; what is sealed is the same.
            Self::SecurePort(port) => format!("nbds://127.0.0.1:{port}/{export}?tls-verify-peer=false"),
        }
    }

    fn answers(&self) -> bool {
        match self {
            Self::Unix(path) => Path::new(path).exists(),
            Self::Port(port) | Self::SecurePort(port) => TcpStream::connect(("127.0.0.1", *port)).is_ok(),
        }
    }
}

fn blockmirror(stage: &Stage) -> Result<Server> {
    let folder = stage.folder("blockmirror")?;
    let mut resource = Resource::plain(EXPORT, &stage.image(), IMAGE_SIZE);
    if stage.scene.direct {
        resource.volume_settings = "io = \"direct\"".to_owned();
    }
    let mut config = NodeConfig::new("alpha", vec![resource]);
    let address = Address::new(stage, &folder)?;
    match &address {
        // A node has a socket of its own.
        Address::Unix(_) => {}
        Address::Port(port) => config.listen = vec![format!("tcp:127.0.0.1:{port}")],
        Address::SecurePort(port) => {
            config.settings = format!(
                "[tls]\ncertificate = \"{0}/server-cert.pem\"\nkey = \"{0}/server-key.pem\"\n\
                 [[listener]]\naddress = \"tcp:127.0.0.1:{port}\"\ntls = \"require\"",
                pki::directory()?.display()
            );
        }
    }
    let node = Node::start(&folder, &config)?;
    let uri = match address {
        Address::Unix(_) => node.uri(EXPORT),
        port => port.uri(EXPORT),
    };
    Ok(Server {
        name: "blockmirror",
        uri,
        running: Running::Node(Box::new(node)),
    })
}

/// The file plugin. It knows no direct I/O: `cache=none` keeps what it touches out of the page cache, the nearest there is.
fn nbdkit(stage: &Stage) -> Result<Server> {
    let folder = stage.folder("nbdkit")?;
    let address = Address::new(stage, &folder)?;
    let mut arguments = vec!["--foreground".to_owned()];
    arguments.extend(match &address {
        Address::Unix(path) => vec![format!("--unix={path}")],
        Address::Port(port) | Address::SecurePort(port) => {
            vec!["--ipaddr=127.0.0.1".to_owned(), format!("--port={port}")]
        }
    });
    if stage.scene.tls {
        let certificates = format!("--tls-certificates={}", pki::directory()?.display());
        arguments.extend(["--tls=require".to_owned(), certificates]);
    }
    arguments.extend(["file".to_owned(), format!("file={}", stage.image().display())]);
    if stage.scene.direct {
        arguments.push("cache=none".to_owned());
    }
    started(
        "nbdkit file",
        "nbdkit",
        &arguments,
        &address,
        "",
        &folder,
        Running::Process,
    )
}

fn storage_daemon(stage: &Stage) -> Result<Server> {
    let folder = stage.folder("qemu")?;
    let address = Address::new(stage, &folder)?;
    let file = format!(
        "driver=file,node-name=local,filename={},locking=off,aio=io_uring,discard=unmap,cache.direct={}",
        stage.image().display(),
        if stage.scene.direct { "on" } else { "off" },
    );
    let mut listen = match &address {
        Address::Unix(path) => format!("addr.type=unix,addr.path={path},max-connections=16"),
        Address::Port(port) | Address::SecurePort(port) => {
            format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port},max-connections=16")
        }
    };
    let mut arguments = Vec::new();
    if stage.scene.tls {
        let directory = pki::directory()?;
        let credentials = format!(
            "tls-creds-x509,id=tls,endpoint=server,verify-peer=off,dir={}",
            directory.display()
        );
        arguments.extend(["--object".to_owned(), credentials]);
        listen.push_str(",tls-creds=tls");
    }
    let export = format!("type=nbd,id=db,node-name=local,name={EXPORT},writable=on");
    arguments.extend(["--blockdev", &file, "--nbd-server", &listen, "--export", &export].map(str::to_owned));
    let program = "qemu-storage-daemon";
    started(
        program,
        program,
        &arguments,
        &address,
        EXPORT,
        &folder,
        Running::Process,
    )
}

/// The reference server: it forks for every client.
fn nbd_server(stage: &Stage) -> Result<Server> {
    let folder = stage.folder("nbd-server")?;
    let address = Address::new(stage, &folder)?;
    let listen = match &address {
        Address::Unix(path) => format!("unixsock = {path}"),
        Address::Port(port) => format!("listenaddr = 127.0.0.1\nport = {port}"),
        // It asks every client for a certificate, and fio lets no URI name one.
        Address::SecurePort(_) => {
            return Ok(Server {
                name: "nbd-server",
                uri: String::new(),
                running: Running::Absent,
            });
        }
    };
    let file = folder.join("config");
    let image = stage.image();
    let text = format!(
        "[generic]\n{listen}\n[{EXPORT}]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n",
        image.display()
    );
    std::fs::write(&file, text)?;
    let script = "nbd-server -C \"$0\"; exec sleep infinity";
    let file = file.display().to_string();
    let arguments = ["--pid", "--fork", "--kill-child", "sh", "-c", script, &file].map(str::to_owned);
    started(
        "nbd-server",
        "unshare",
        &arguments,
        &address,
        EXPORT,
        &folder,
        Running::Forks,
    )
}

fn nothing(stage: &Stage) -> Result<Server> {
    let address = match stage.scene.transport {
        Transport::Unix => {
            let path = Stage::socket(&stage.folder("nothing")?);
            null::serve_unix(&path)?;
            Address::Unix(path.display().to_string())
        }
        Transport::Tcp => Address::Port(null::serve_tcp()?),
    };
    Ok(Server {
        name: "a server that does nothing",
        uri: address.uri(EXPORT),
        running: Running::Null,
    })
}

fn started(
    name: &'static str,
    program: &str,
    arguments: &[String],
    address: &Address,
    export: &str,
    folder: &Path,
    running: fn(Process) -> Running,
) -> Result<Server> {
    let mut process = Process::start(name, Path::new(program), arguments, &folder.join("log"))?;
    process.wait_until("it takes connections", PROMPT, |_| address.answers())?;
    Ok(Server {
        name,
        uri: address.uri(export),
        running: running(process),
    })
}
