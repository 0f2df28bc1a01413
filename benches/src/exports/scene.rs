//! Where the image lies and how clients come.

use std::path::{Path, PathBuf};

use anyhow::Result;
use blockmirror_tests::pair;
use blockmirror_tests::scratch::Scratch;

use crate::systems::IMAGE_SIZE;

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A Unix socket.
    Unix,
    /// TCP over loopback.
    Tcp,
}

/// What is compared at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// For the command line and the tables.
    pub name: &'static str,
    /// The same in words.
    pub title: &'static str,
    /// How clients come.
    pub transport: Transport,
    /// The image lies on a disk, not in memory.
    pub on_disk: bool,
    /// Past the page cache.
    pub direct: bool,
    /// Nobody is served without TLS, except by the server that does nothing.
    pub tls: bool,
}

/// All of them.
pub const SCENES: [Scene; 5] = [
    Scene {
        name: "unix",
        title: "Unix socket, image in memory",
        transport: Transport::Unix,
        on_disk: false,
        direct: false,
        tls: false,
    },
    Scene {
        name: "tcp",
        title: "TCP over loopback, image in memory",
        transport: Transport::Tcp,
        on_disk: false,
        direct: false,
        tls: false,
    },
    Scene {
        name: "disk",
        title: "Unix socket, image on disk, buffered",
        transport: Transport::Unix,
        on_disk: true,
        direct: false,
        tls: false,
    },
    Scene {
        name: "direct",
        title: "Unix socket, image on disk, direct",
        transport: Transport::Unix,
        on_disk: true,
        direct: true,
        tls: false,
    },
    Scene {
        name: "tls",
        title: "TLS over TCP over loopback, image in memory; the server that does nothing without TLS",
        transport: Transport::Tcp,
        on_disk: false,
        direct: false,
        tls: true,
    },
];

/// A scene set up: one image, which every server serves in turn, so that none has the better pages.
pub struct Stage {
    /// What it is a stage of.
    pub scene: Scene,
    /// Where sockets and configurations lie.
    pub scratch: Scratch,
    /// The folder of the image.
    storage: Scratch,
}

impl Stage {
    /// Makes the image, all of it allocated and not zero.
    pub fn new(scene: Scene) -> Result<Self> {
        let storage = if scene.on_disk {
            Scratch::new()?
        } else {
            Scratch::in_memory()?
        };
        let stage = Self {
            scene,
            scratch: Scratch::in_memory()?,
            storage,
        };
        pair::seed(&stage.image(), IMAGE_SIZE)?;
        pair::seed(&stage.source(), IMAGE_SIZE)?;
        Ok(stage)
    }

    /// The image that is served.
    pub fn image(&self) -> PathBuf {
        self.storage.join("image")
    }

    /// A file that is copied in.
    pub fn source(&self) -> PathBuf {
        self.scratch.join("source")
    }

    /// A folder for the files of one server.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.scratch.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The path of a Unix socket in `folder`.
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("export.nbd")
    }
}
