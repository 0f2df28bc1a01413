//! A primary, a link, and a remote leg: what most tests of the mirror start from.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::compare;
use crate::config::{NodeConfig, Peer, Resource, unix_uri};
use crate::foreign::Foreign;
use crate::load::Random;
use crate::node::Node;
use crate::relay::Relay;
use crate::scratch::Scratch;
use crate::wait::PATIENT;

/// The export and resource of every pair.
pub const EXPORT: &str = "db";

/// A node `alpha` that serves `db` and mirrors it over a relay to a remote leg.
pub struct Pair {
    /// The mirror.
    pub primary: Node,
    /// The server of the remote leg.
    pub remote: Remote,
    /// The link between them.
    pub relay: Relay,
    /// The local image.
    pub image: PathBuf,
    /// The remote image.
    pub remote_image: PathBuf,
    /// The primary's configuration, to be changed before a restart.
    pub config: NodeConfig,
    /// The folder of all of it.
    pub scratch: Scratch,
}

/// Who serves the remote leg.
pub enum Remote {
    /// Another blockmirror, serving plain.
    Node(Box<Node>),
    /// Somebody else.
    Foreign(Box<Foreign>),
}

/// How a pair differs from the usual one.
#[derive(Clone, Default)]
pub struct Setup<'a> {
    /// Bytes of the volume; 0 for 64 MiB.
    pub size: u64,
    /// Lines of the peer, such as `mode = "async"`.
    pub peer: &'a str,
    /// Lines of the resource, such as `hot_extents = 16`.
    pub resource: &'a str,
    /// Lines of the volume.
    pub volume: &'a str,
    /// Lines of the node.
    pub node: &'a str,
    /// Bytes of random data the local image starts with.
    pub seeded: u64,
    /// Connect the legs without the relay between them.
    pub direct: bool,
}

impl Setup<'_> {
    fn size(&self) -> u64 {
        if self.size == 0 { 64 << 20 } else { self.size }
    }
}

impl Pair {
    /// Both are blockmirror.
    pub fn new(setup: &Setup<'_>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let image = scratch.join("remote.img");
        let config = NodeConfig::new("bravo", vec![Resource::plain(EXPORT, &image, setup.size())]);
        let node = Node::start(scratch.path(), &config)?;
        let socket = node.socket();
        Self::build(scratch, setup, Remote::Node(Box::new(node)), &socket, EXPORT, image)
    }

    /// The remote leg is whatever `serve` starts; it is given the folder and a zeroed image file.
    pub fn with_foreign(
        setup: &Setup<'_>,
        export: &str,
        serve: impl FnOnce(&Path, &Path) -> Result<Foreign>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let image = scratch.sparse_file("remote.img", setup.size())?;
        let foreign = serve(scratch.path(), &image)?;
        let socket = foreign.socket().to_owned();
        Self::build(
            scratch,
            setup,
            Remote::Foreign(Box::new(foreign)),
            &socket,
            export,
            image,
        )
    }

    fn build(
        scratch: Scratch,
        setup: &Setup<'_>,
        remote: Remote,
        socket: &Path,
        export: &str,
        remote_image: PathBuf,
    ) -> Result<Self> {
        let relay = Relay::new(scratch.path(), socket)?;
        let image = scratch.sparse_file("local.img", setup.size())?;
        seed(&image, setup.seeded)?;
        let way = if setup.direct { socket } else { relay.socket() };
        let uri = match &remote {
            Remote::Node(_) => unix_uri(way, export),
            Remote::Foreign(foreign) => foreign.uri_through(way, export),
        };
        let peer = Peer::new("bravo", &uri).with(setup.peer);
        let mut resource = Resource::mirrored(EXPORT, &image, setup.size(), vec![peer]);
        resource.settings = setup.resource.to_owned();
        resource.volume_settings = setup.volume.to_owned();
        let mut config = NodeConfig::new("alpha", vec![resource]);
        config.settings = setup.node.to_owned();
        let primary = Node::start(scratch.path(), &config)?;
        Ok(Self {
            primary,
            remote,
            relay,
            image,
            remote_image,
            config,
            scratch,
        })
    }

    /// Wait until the peer has everything, then compare the images byte by byte.
    pub fn assert_converges(&self) -> Result<()> {
        self.primary.wait_established(EXPORT, PATIENT)?;
        compare::assert_identical(&self.image, &self.remote_image)
    }

    /// Start the remote leg again, killing it first when it runs.
    pub fn restart_remote(&mut self) -> Result<()> {
        match &mut self.remote {
            Remote::Node(node) => node.restart(),
            Remote::Foreign(foreign) => foreign.restart(),
        }
    }

    /// Kill the remote leg.
    pub fn kill_remote(&mut self) {
        match &mut self.remote {
            Remote::Node(node) => node.kill(),
            Remote::Foreign(foreign) => foreign.kill(),
        }
    }
}

/// Random bytes at the start of a file.
pub fn seed(path: &Path, bytes: u64) -> Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    let mut random = Random::new(bytes);
    for offset in (0..bytes).step_by(4096) {
        let block: Vec<u8> = (0..512).flat_map(|_| random.below(1 << 47).to_le_bytes()).collect();
        file.write_all_at(&block, offset)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Bytes the file occupies on its file system.
pub fn allocated_bytes(path: &Path) -> Result<u64> {
    Ok(path.metadata()?.blocks() * 512)
}
