//! TLS with real clients, real servers, and those who are refused.

mod clients;
mod legs;
mod records;
mod refused;
mod serve;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::pki;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PROMPT};

const SIZE: u64 = 16 << 20;
/// What must not be seen on the way.
const SECRET: &[u8] = b"the quick brown fox that nobody on the way may see, 0123456789";

/// A node that serves `db` with TLS on a Unix socket and on TCP.
struct Served {
    node: Node,
    scratch: Scratch,
    pki: PathBuf,
    port: u16,
}

impl Served {
    /// `listener`: further lines of both listeners.
    fn new(listener: &str) -> Result<Self> {
        Self::with_pki(pki::directory()?, listener)
    }

    fn with_pki(pki: PathBuf, listener: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let image = scratch.sparse_file("db.img", SIZE)?;
        let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &image, SIZE)]);
        let port = tool::free_port()?;
        let socket = scratch.path().join("tls.nbd");
        let mut settings = tls_settings(&pki);
        if listener.contains("client_certificates") {
            settings += &format!("client_ca = \"{}/ca-cert.pem\"\n", pki.display());
        }
        for address in [format!("unix:{}", socket.display()), format!("tcp:127.0.0.1:{port}")] {
            settings += &format!("[[listener]]\naddress = \"{address}\"\n{listener}\n");
        }
        config.settings = settings;
        let node = Node::start(scratch.path(), &config)?;
        Ok(Self {
            node,
            scratch,
            pki,
            port,
        })
    }

    fn over_tcp(&self, certificates: &str) -> String {
        let dir = self.pki.join(certificates);
        format!("nbds://localhost:{}/db?tls-certificates={}", self.port, dir.display())
    }

    fn over_unix(&self, certificates: &str) -> String {
        let (socket, dir) = (self.socket(), self.pki.join(certificates));
        let (socket, dir) = (socket.display(), dir.display());
        format!("nbds+unix:///db?socket={socket}&tls-certificates={dir}&tls-hostname=localhost")
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path().join("tls.nbd")
    }

    fn wait_log(&self, words: &str) -> Result<()> {
        let seen = || self.node.log().contains(words).then_some(());
        wait::until(&format!("\"{words}\" in the log"), PROMPT, seen).map_err(|error| error.context(self.node.log()))
    }
}

fn tls_settings(pki: &Path) -> String {
    let pki = pki.display();
    format!(
        "[tls]\ncertificate = \"{pki}/server-cert.pem\"\nkey = \"{pki}/server-key.pem\"\nca = \"{pki}/ca-cert.pem\"\n"
    )
}

const REQUIRE: &str = "tls = \"require\"";
const STRICT: &str = "tls = \"require\"\nclient_certificates = \"require\"";

fn random(scratch: &Scratch) -> Result<PathBuf> {
    let path = scratch.path().join("random");
    let mut bytes = vec![0; SIZE as usize];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    std::fs::write(&path, bytes)?;
    Ok(path)
}
