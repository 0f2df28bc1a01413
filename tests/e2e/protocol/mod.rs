//! The rules of the NBD protocol, one test per section of its text; docs/NBD.md says which case shows which rule.

mod commands;
mod contexts;
mod extended;
mod filters;
mod handshake;
mod options;
mod ordering;
mod refusals;
mod tls;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::dialogue::Dialogue;
use blockmirror_tests::dialogue::wire::Style;
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::Raw;
use blockmirror_tests::scratch::Scratch;

/// Size of the small exports.
const SIZE: u64 = 16 << 20;
/// Size of `big`, of which nothing is allocated.
const BIG: u64 = 9 << 30;
/// Longest payload.
const PAYLOAD_MAX: u64 = 32 << 20;
/// The styles of reply that every command is tried in.
const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

/// A node with an export of every kind.
///
/// | export | what it is |
/// |---|---|
/// | `db` | a plain image file, with a description |
/// | `read-only` | one that may not be changed |
/// | `mirrored` | one with the mirror machinery, and no peer |
/// | `memory` | an image in memory |
/// | `blocks` | one with blocks of 512 bytes |
/// | `big` | more than 4 GiB, all hole |
struct Stage {
    node: Node,
    _scratch: Scratch,
}

impl Stage {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.sparse_file("read-only", SIZE)?;
        let plain = |name: &str, size, settings: &str| {
            let mut resource = Resource::plain(name, &scratch.join(name), size);
            resource.volume_settings = settings.to_owned();
            resource
        };
        let mut memory = plain("memory", SIZE, "");
        memory.image = "memory:".to_owned();
        let mut config = NodeConfig::new("alpha", Vec::new());
        config.resources = vec![
            plain("db", SIZE, "description = \"the database\""),
            plain("read-only", SIZE, "read_only = true"),
            Resource::mirrored("mirrored", &scratch.join("mirrored"), SIZE, Vec::new()),
            memory,
            plain("blocks", SIZE, "minimum_block = 512"),
            plain("big", BIG, ""),
        ];
        let node = Node::start(scratch.path(), &config)?;
        Ok(Self {
            node,
            _scratch: scratch,
        })
    }

    /// A connection that has said nothing.
    fn connect(&self) -> Result<Raw> {
        Raw::connect(&self.node.socket())
    }

    /// A connection past the exchange of flags.
    fn greeted(&self) -> Result<Raw> {
        let mut raw = self.connect()?;
        raw.greet(3)?;
        Ok(raw)
    }

    fn open(&self, export: &str, style: Style) -> Result<Dialogue> {
        Dialogue::open(&self.node.socket(), export, style)
    }

    /// Plays every case, and looks whether the node still serves after each.
    fn play(&self, cases: &[Case]) -> Result<()> {
        for (what, act) in cases {
            act(self).with_context(|| format!("{what}\n{}", self.node.log()))?;
            let alive = self.open("db", Style::Simple).and_then(|mut db| db.read(0, 512));
            ensure!(
                alive.is_ok(),
                "{what}: nobody is served afterwards\n{}",
                self.node.log()
            );
        }
        Ok(())
    }
}

/// What is played, and how.
type Case = (&'static str, fn(&Stage) -> Result<()>);
