//! Configuration files of test nodes.

use std::fmt::Write;
use std::path::Path;

/// One node.
#[derive(Clone, Default)]
pub struct NodeConfig {
    /// Its name; also names its files.
    pub name: String,
    /// Lines before the first table, such as `engine = "threads"`.
    pub settings: String,
    /// Where it listens besides its Unix socket.
    pub listen: Vec<String>,
    /// What it serves.
    pub resources: Vec<Resource>,
}

/// One resource with one volume, named alike.
#[derive(Clone)]
pub struct Resource {
    /// Name of resource and export.
    pub name: String,
    /// Path of the image, or `memory:`.
    pub image: String,
    /// Size, `None` to take the image's.
    pub size: Option<u64>,
    /// Further lines of the resource, such as `mirror = false`.
    pub settings: String,
    /// Further lines of the volume, such as `io = "direct"`.
    pub volume_settings: String,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// One peer.
#[derive(Clone)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// Further lines, such as `mode = "async"`.
    pub settings: String,
}

impl NodeConfig {
    /// A node that serves `resources` on its Unix socket.
    pub fn new(name: &str, resources: Vec<Resource>) -> Self {
        Self {
            name: name.to_owned(),
            resources,
            ..Self::default()
        }
    }

    /// The TOML text; sockets lie in `folder`.
    pub fn text(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!("name = \"{}\"\nadmin = \"{folder}/{}.admin\"\n", self.name, self.name);
        let mut listen = vec![format!("\"unix:{folder}/{}.nbd\"", self.name)];
        listen.extend(self.listen.iter().map(|address| format!("\"{address}\"")));
        let _ = write!(text, "listen = [{}]\n{}\n", listen.join(", "), self.settings);
        for resource in &self.resources {
            resource.write(&mut text);
        }
        text
    }
}

impl Resource {
    /// A volume with the mirror machinery.
    pub fn mirrored(name: &str, image: &Path, size: u64, peers: Vec<Peer>) -> Self {
        Self {
            name: name.to_owned(),
            image: image.display().to_string(),
            size: Some(size),
            settings: String::new(),
            volume_settings: String::new(),
            peers,
        }
    }

    /// A volume served plain, such as a remote leg.
    pub fn plain(name: &str, image: &Path, size: u64) -> Self {
        Self {
            settings: "mirror = false".to_owned(),
            ..Self::mirrored(name, image, size, Vec::new())
        }
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n[[resource]]\nname = \"{}\"\n{}\n", self.name, self.settings);
        let _ = write!(
            text,
            "[[resource.volume]]\nexport = \"{}\"\nimage = \"{}\"\n",
            self.name, self.image
        );
        if let Some(size) = self.size {
            let _ = writeln!(text, "size = {size}");
        }
        let _ = writeln!(text, "{}", self.volume_settings);
        for peer in &self.peers {
            let _ = write!(
                text,
                "[[resource.peer]]\nname = \"{}\"\nuri = \"{}\"\n{}\n",
                peer.name, peer.uri, peer.settings
            );
        }
    }
}

impl Peer {
    /// A plain NBD server as a peer, with the defaults: synchronous, `on_disconnect = "continue"`.
    pub fn new(name: &str, uri: &str) -> Self {
        Self {
            name: name.to_owned(),
            uri: uri.to_owned(),
            settings: "protocol = \"nbd\"\n".to_owned(),
        }
    }

    /// The same with further lines; a `protocol` of theirs takes the place of the usual one.
    pub fn with(mut self, settings: &str) -> Self {
        if settings.contains("protocol") {
            self.settings.clear();
        }
        self.settings.push_str(settings);
        self.settings.push('\n');
        self
    }
}

/// The URI of `export` on a Unix socket.
pub fn unix_uri(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}
