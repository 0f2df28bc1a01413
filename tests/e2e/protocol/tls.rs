//! "TLS support", as it is seen before TLS begins. What happens inside is in [`crate::tls`].

use anyhow::{Context, Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::dialogue::{EXTENDED_HEADERS, meta, meta_request};
use blockmirror_tests::node::Node;
use blockmirror_tests::pki;
use blockmirror_tests::raw::{Raw, info_request, option};
use blockmirror_tests::scratch::Scratch;

use super::SIZE;

const STARTTLS: u32 = 5;
const ERROR_TLS_REQUIRED: u32 = 0x8000_0005;

/// A node with one listener, in this mode.
struct Guarded {
    node: Node,
    scratch: Scratch,
}

impl Guarded {
    fn new(mode: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let pki = pki::directory()?;
        let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db"), SIZE)]);
        config.settings = format!(
            "[tls]\ncertificate = \"{0}/server-cert.pem\"\nkey = \"{0}/server-key.pem\"\n\
             [[listener]]\naddress = \"unix:{1}/guarded\"\ntls = \"{mode}\"",
            pki.display(),
            scratch.path().display()
        );
        let node = Node::start(scratch.path(), &config)?;
        Ok(Self { node, scratch })
    }

    fn greeted(&self) -> Result<Raw> {
        let mut raw = Raw::connect(&self.scratch.join("guarded"))?;
        raw.greet(3)?;
        Ok(raw)
    }

    fn play(&self, cases: &[Case]) -> Result<()> {
        for (what, act) in cases {
            act(self).with_context(|| format!("{what}\n{}", self.node.log()))?;
            ensure!(
                self.greeted()?.option(option::ABORT, &[])?[0].kind == option::ACK,
                "{what}"
            );
        }
        Ok(())
    }
}

type Case = (&'static str, fn(&Guarded) -> Result<()>);

const FORCED: [Case; 4] = [
    (
        "every option but STARTTLS and ABORT is TLS_REQD, known or not, and nothing is told",
        |guarded| {
            let mut raw = guarded.greeted()?;
            for (code, data) in [
                (option::LIST, vec![]),
                (option::INFO, info_request("db", &[0, 3])),
                (option::GO, info_request("db", &[])),
                (option::GO, info_request("nothing", &[])),
                (option::STRUCTURED_REPLY, vec![]),
                (EXTENDED_HEADERS, vec![]),
                (meta::LIST, meta_request("db", &[])),
                (meta::SET, meta_request("db", &["base:allocation"])),
                (0xdead_beef, vec![1; 5000]),
            ] {
                let replies = raw.option(code, &data)?;
                ensure!(
                    replies.len() == 1 && replies[0].kind == ERROR_TLS_REQUIRED,
                    "option {code}: {replies:x?}"
                );
            }
            Ok(())
        },
    ),
    ("EXPORT_NAME closes the connection", |guarded| {
        let mut raw = guarded.greeted()?;
        raw.send_option(option::EXPORT_NAME, b"db")?;
        ensure!(raw.ends()?);
        Ok(())
    }),
    ("STARTTLS with data is invalid, and can be said again", |guarded| {
        let mut raw = guarded.greeted()?;
        ensure!(raw.option(STARTTLS, b"data")?[0].kind == option::ERROR_INVALID);
        ensure!(raw.option(STARTTLS, &[])?[0].kind == option::ACK);
        Ok(())
    }),
    (
        "behind the acknowledgement of STARTTLS there is no way back",
        |guarded| {
            let mut raw = guarded.greeted()?;
            ensure!(raw.option(STARTTLS, &[])?[0].kind == option::ACK);
            raw.send_option(option::LIST, &[])?;
            ensure!(raw.is_closed());
            Ok(())
        },
    ),
];

#[test]
fn forced() -> Result<()> {
    Guarded::new("require")?.play(&FORCED)
}

const SELECTIVE: [Case; 2] = [
    (
        "what does not need TLS is served without, and nothing asks for it",
        |guarded| {
            let mut raw = guarded.greeted()?;
            for code in [option::LIST, option::STRUCTURED_REPLY, 0xdead_beef] {
                ensure!(
                    raw.option(code, &[])?
                        .iter()
                        .all(|reply| reply.kind != ERROR_TLS_REQUIRED)
                );
            }
            let mut raw = guarded.greeted()?;
            raw.go("db")?;
            ensure!(raw.read(0, 512)?.len() == 512);
            Ok(())
        },
    ),
    (
        "STARTTLS is acknowledged, and in the clear nothing goes on",
        |guarded| {
            let mut raw = guarded.greeted()?;
            ensure!(raw.option(STARTTLS, &[])?[0].kind == option::ACK);
            raw.send_option(option::GO, &info_request("db", &[]))?;
            ensure!(raw.is_closed());
            Ok(())
        },
    ),
];

#[test]
fn selective() -> Result<()> {
    Guarded::new("allow")?.play(&SELECTIVE)
}
