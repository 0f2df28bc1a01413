//! Two daemons that are partners: each holds every volume, either can be Primary.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blockmirror_client::admin::{
    AdminError, ConnectionState, DiskState, Order, ReplicationState, ResourceStatus, Role,
};

use crate::compare;
use crate::config::{NodeConfig, unix_uri};
use crate::namespaces::Namespaces;
use crate::node::Node;
use crate::raw::Raw;
use crate::scratch::Scratch;
use crate::wait::{self, PATIENT, PROMPT};

/// The resource of all partners.
pub const RESOURCE: &str = "db";
/// The port of a node in its namespace.
const PORT: u16 = 10809;
/// Names of the two nodes.
pub const NAMES: [&str; 2] = ["alpha", "bravo"];

/// How two partners differ from the usual ones.
#[derive(Clone)]
pub struct Setup {
    /// Volumes: export name and bytes.
    pub volumes: Vec<(String, u64)>,
    /// Lines of the resource, such as `split_brain = "manual"`.
    pub resource: String,
    /// Lines of each volume.
    pub volume: String,
    /// Lines of the peer, such as `mode = "async"`.
    pub peer: String,
    /// Each in a network namespace of its own, joined by TCP. Needs root.
    pub namespaces: bool,
    /// Everything lies in memory, for what measures.
    pub in_memory: bool,
    /// Another binary than the daemon's, and what it is told besides its configuration.
    pub daemon: Option<(String, Vec<String>)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            volumes: vec![("db".to_owned(), 64 << 20)],
            resource: String::new(),
            volume: String::new(),
            peer: String::new(),
            namespaces: false,
            in_memory: false,
            daemon: None,
        }
    }
}

/// Two partners.
pub struct Partners {
    /// `alpha` and `bravo`.
    pub nodes: [Node; 2],
    /// The link, when they are in namespaces.
    pub link: Option<Namespaces>,
    /// What they were made from.
    pub setup: Setup,
    /// The folder of all of it.
    pub scratch: Scratch,
}

impl Partners {
    /// Both started, fresh, connected; nobody is Primary.
    pub fn fresh(setup: Setup) -> Result<Self> {
        let scratch = if setup.in_memory {
            Scratch::in_memory()?
        } else {
            Scratch::new()?
        };
        let link = if setup.namespaces {
            Some(Namespaces::new()?)
        } else {
            None
        };
        let node = |side: usize| -> Result<Node> {
            let config = config(side, &setup, &scratch, link.as_ref());
            let mut node = Node::stopped(scratch.path(), &config)?;
            if let Some((binary, arguments)) = &setup.daemon {
                node = node.with_binary(binary, arguments);
            }
            Ok(match &link {
                Some(link) => node.in_namespace(link.name(side)),
                None => node,
            })
        };
        let mut partners = Self {
            nodes: [node(0)?, node(1)?],
            link,
            setup,
            scratch,
        };
        for node in &mut partners.nodes {
            node.restart()?;
        }
        partners.wait_connected(PROMPT)?;
        Ok(partners)
    }

    /// As [`Partners::fresh`], with `alpha` promoted and both in step.
    pub fn new(setup: Setup) -> Result<Self> {
        let partners = Self::fresh(setup)?;
        partners.promote_whatever(0)?;
        partners.wait_in_step(0, PATIENT)?;
        Ok(partners)
    }

    /// The configuration of a side, to be changed.
    pub fn config(&self, side: usize) -> NodeConfig {
        config(side, &self.setup, &self.scratch, self.link.as_ref())
    }

    /// The image of a volume on a side.
    pub fn image(&self, side: usize, export: &str) -> PathBuf {
        self.scratch.join(&format!("{}-{export}.img", NAMES[side]))
    }

    /// `promote`, as it is typed first.
    pub fn promote(&self, side: usize) -> Result<(), AdminError> {
        self.try_promote(side, false, None)
    }

    /// `promote --force`, and what it says would be lost quoted back.
    pub fn promote_whatever(&self, side: usize) -> Result<()> {
        match self.try_promote(side, true, None) {
            Ok(()) => Ok(()),
            Err(AdminError::Refused {
                needs_accept: Some(needed),
                ..
            }) => Ok(self.try_promote(side, true, Some(needed.token.clone()))?),
            Err(error) => Err(error.into()),
        }
    }

    /// `demote`.
    pub fn demote(&self, side: usize) -> Result<(), AdminError> {
        let order = Order::Demote {
            resource: RESOURCE.to_owned(),
        };
        self.nodes[side].order(&order).map(drop)
    }

    /// `connect` to the other, giving the data of this side up or not.
    pub fn connect(&self, side: usize, discard_my_data: bool) -> Result<(), AdminError> {
        let order = Order::Connect {
            name: RESOURCE.to_owned(),
            peer: NAMES[1 - side].to_owned(),
            discard_my_data,
        };
        self.nodes[side].order(&order).map(drop)
    }

    /// `disconnect` from the other.
    pub fn disconnect(&self, side: usize) -> Result<(), AdminError> {
        let order = Order::Disconnect {
            name: RESOURCE.to_owned(),
            peer: NAMES[1 - side].to_owned(),
        };
        self.nodes[side].order(&order).map(drop)
    }

    /// The resource as a side sees it.
    pub fn resource(&self, side: usize) -> Result<ResourceStatus> {
        self.nodes[side].resource(RESOURCE)
    }

    /// The role of a side.
    pub fn role(&self, side: usize) -> Result<Role> {
        self.resource(side)?.role.context("the resource has no role")
    }

    /// Wait until both say that they are connected with each other.
    pub fn wait_connected(&self, deadline: Duration) -> Result<()> {
        self.wait("both to be connected", deadline, |partners| {
            (0..2).all(|side| partners.is_connected(side))
        })
    }

    /// Wait until `primary` is Primary, the other Secondary, and both have everything.
    pub fn wait_in_step(&self, primary: usize, deadline: Duration) -> Result<()> {
        let what = format!("{} to be Primary and both to be in step", NAMES[primary]);
        self.wait(&what, deadline, |partners| partners.is_in_step(primary))
    }

    /// Is it Primary, the other Secondary, and is nothing left to copy?
    pub fn is_in_step(&self, primary: usize) -> bool {
        let roles = [self.role(primary).ok(), self.role(1 - primary).ok()];
        roles == [Some(Role::Primary), Some(Role::Secondary)]
            && (0..2).all(|side| self.is_connected(side))
            && self.nothing_to_copy(primary)
            && self.is_complete(1 - primary)
    }

    /// Wait until both see the split brain.
    pub fn wait_split_brain(&self, deadline: Duration) -> Result<()> {
        self.wait("both to see the split brain", deadline, |partners| {
            (0..2).all(|side| partners.sees_split_brain(side))
        })
    }

    /// Does this side say that the histories have diverged?
    pub fn sees_split_brain(&self, side: usize) -> bool {
        let seen = |resource: ResourceStatus| resource.partners.iter().any(|partner| partner.split_brain.is_some());
        self.resource(side).is_ok_and(seen)
    }

    /// Is it connected with the other?
    pub fn is_connected(&self, side: usize) -> bool {
        let connected = |resource: ResourceStatus| {
            let mut partners = resource.partners.iter();
            partners.any(|partner| partner.connection_state == ConnectionState::Connected)
        };
        self.resource(side).is_ok_and(connected)
    }

    /// A hand-driven host connection to a volume on a side.
    pub fn open(&self, side: usize, export: &str) -> Result<Raw> {
        self.nodes[side].open(export)
    }

    /// The URI list of a volume: both nodes, `first` first.
    pub fn uris(&self, export: &str, first: usize) -> [String; 2] {
        [first, 1 - first].map(|side| unix_uri(&self.nodes[side].socket(), export))
    }

    /// The images of every volume are equal, byte by byte.
    pub fn assert_identical(&self) -> Result<()> {
        for (export, _) in &self.setup.volumes {
            compare::assert_identical(&self.image(0, export), &self.image(1, export))
                .with_context(|| format!("volume {export}"))?;
        }
        Ok(())
    }

    /// What both say of themselves, for an error.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (side, node) in self.nodes.iter().enumerate() {
            let lines: Vec<String> = node.log().lines().rev().take(40).map(str::to_owned).collect();
            let log: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
            let state = self
                .resource(side)
                .map(|it| format!("{it:#?}"))
                .unwrap_or_else(|it| format!("{it:#}"));
            let why = match node.why(RESOURCE) {
                Ok(why) => format!("{}; {:?}; {:?}", why.role_because, why.facts, why.advice),
                Err(error) => format!("{error:#}"),
            };
            text.push_str(&format!(
                "== {}\n{state}\nwhy: {why}\nlog:\n{}\n",
                NAMES[side],
                log.join("\n")
            ));
        }
        text
    }

    fn try_promote(&self, side: usize, force: bool, accept: Option<String>) -> Result<(), AdminError> {
        let order = Order::Promote {
            resource: RESOURCE.to_owned(),
            force,
            accept,
        };
        self.nodes[side].order(&order).map(drop)
    }

    fn nothing_to_copy(&self, primary: usize) -> bool {
        let established = |resource: ResourceStatus| {
            resource.volumes.iter().all(|volume| {
                volume.peers.iter().all(|peer| {
                    peer.replication_state == ReplicationState::Established
                        && peer.dirty_bytes == 0
                        && peer.in_flight == 0
                })
            })
        };
        self.resource(primary).is_ok_and(established)
    }

    fn is_complete(&self, side: usize) -> bool {
        let complete = |resource: ResourceStatus| {
            let mut volumes = resource.volumes.iter();
            volumes.all(|volume| volume.disk_state == Some(DiskState::UpToDate))
        };
        self.resource(side).is_ok_and(complete)
    }

    fn wait(&self, what: &str, deadline: Duration, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let ended = wait::until(what, deadline, || holds(self).then_some(()));
        ended.map_err(|error| error.context(self.describe()))
    }
}

/// Require that an operator's order was refused, with these words among its own.
pub fn assert_refused(outcome: Result<(), AdminError>, words: &str) -> Result<()> {
    match outcome {
        Ok(()) => bail!("it was carried out, not refused with {words:?}"),
        Err(error) => {
            let text = error.to_string();
            ensure!(text.contains(words), "refused with {text:?}, without {words:?}");
            Ok(())
        }
    }
}

fn config(side: usize, setup: &Setup, scratch: &Scratch, link: Option<&Namespaces>) -> NodeConfig {
    let mut config = NodeConfig::new(NAMES[side], Vec::new());
    let mut text = format!("\n[[resource]]\nname = \"{RESOURCE}\"\n{}\n", setup.resource);
    for (export, size) in &setup.volumes {
        let image = scratch.join(&format!("{}-{export}.img", NAMES[side]));
        text.push_str(&format!(
            "[[resource.volume]]\nexport = \"{export}\"\nimage = \"{}\"\nsize = {size}\n{}\n",
            image.display(),
            setup.volume
        ));
    }
    let uri = match link {
        Some(link) => {
            let address = format!("tcp:{}:{PORT}", link.address(side));
            config.settings =
                format!("[[listener]]\naddress = \"{address}\"\nplaintext = \"the network is trusted\"\n");
            format!("nbd://{}:{PORT}", link.address(1 - side))
        }
        None => format!(
            "nbd+unix://?socket={}/{}.nbd",
            scratch.path().display(),
            NAMES[1 - side]
        ),
    };
    text.push_str(&format!(
        "[[resource.peer]]\nname = \"{}\"\nuri = \"{uri}\"\nprotocol = \"blockmirror\"\n{}\n",
        NAMES[1 - side],
        setup.peer
    ));
    config.settings.push_str(&text);
    config
}
