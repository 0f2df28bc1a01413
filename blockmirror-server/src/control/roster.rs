//! Everything that is served now and by which data thread: what handshakes, dialling, the admin API and reloading look
//! things up in. It starts as the configuration has it, and changes when the configuration is read again.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mirror_core::metadata::ImageIdentity;
use tokio::sync::Semaphore;

use crate::config::{Config, Peer, Resource, Volume};
use crate::data::Gate;

/// A volume's place: the data thread, and the number of the volume among all of that thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) thread: usize,
    pub(super) volume: usize,
}

/// A resource's place: the data thread, and the number of the resource in that thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResourcePlace {
    pub(super) thread: usize,
    pub(super) resource: usize,
}

/// One resource that is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) place: ResourcePlace,
    /// What its data thread says of it.
    pub(super) gate: Arc<Gate>,
    /// What was configured; volumes and peers are those below.
    pub(super) config: Resource,
    /// As many as `config` has, in its order.
    pub(super) volumes: Vec<ServedVolume>,
    /// The data thread's numbers of the peers, as many as `config` has, in its order.
    pub(super) peers: Vec<usize>,
    /// Peers there have ever been: the number of the next one.
    pub(super) peers_ever: usize,
    /// Branches that are served read-only.
    pub(super) branches: Vec<ServedBranch>,
    /// Volumes on their way to the data thread, which will say their numbers.
    pub(super) joining: Vec<Joining>,
}

/// A volume on its way to its data thread.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    pub(super) volume: Volume,
    pub(super) identity: Option<ImageIdentity>,
}

/// One volume that is served.
#[derive(Clone, Debug)]
pub(super) struct ServedVolume {
    pub(super) place: Place,
    /// Its number in the resource.
    pub(super) number: usize,
    /// Connections it may still have.
    pub(super) slots: Arc<Semaphore>,
    /// The file of its image, as its metadata has it; `None`: it is not mirrored.
    pub(super) identity: Option<ImageIdentity>,
}

/// A branch that is served read-only.
#[derive(Clone, Debug)]
pub(super) struct ServedBranch {
    /// The branch.
    pub(super) name: String,
    /// As a volume.
    pub(super) volume: Volume,
    pub(super) place: Place,
    /// Connections it may still have.
    pub(super) slots: Arc<Semaphore>,
    /// Its bytes.
    pub(super) size: u64,
}

/// A volume with all that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct VolumeView<'a> {
    pub(super) resource: &'a Served,
    pub(super) config: &'a Volume,
    pub(super) served: &'a ServedVolume,
}

/// A peer with all that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerView<'a> {
    pub(super) config: &'a Peer,
    /// The data thread's number.
    pub(super) number: usize,
}

/// What is there now.
#[derive(Debug)]
pub(super) struct Present {
    /// What the daemon was told last; its `resources` are in `resources` below, as they are served.
    pub(super) config: Config,
    pub(super) resources: Vec<Served>,
}

/// What is there, shared.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    present: Arc<RwLock<Present>>,
}

impl Roster {
    pub(super) fn new(config: Config, resources: Vec<Served>) -> Self {
        Self {
            present: Arc::new(RwLock::new(Present { config, resources })),
        }
    }

    /// What is there now. Not to be held across a wait.
    pub(super) fn look(&self) -> RwLockReadGuard<'_, Present> {
        // A holder that panicked left nothing half done: every change is made after all that can fail.
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change it.
    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Present> {
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    /// A data thread serves a volume that was on its way to it, under these numbers in the thread and in the resource.
    pub(super) fn added(&self, place: ResourcePlace, export: &str, (volume, number): (usize, usize)) {
        let mut present = self.change();
        let slots = present.config.limits.max_connections_per_export;
        let Some(served) = present.resources.iter_mut().find(|served| served.place == place) else {
            return;
        };
        let Some(at) = served
            .joining
            .iter()
            .position(|joining| joining.volume.export == export)
        else {
            tracing::error!(%export, "a data thread serves a volume that was not given to it");
            return;
        };
        let joining = served.joining.swap_remove(at);
        served.config.volumes.push(joining.volume);
        served.volumes.push(ServedVolume {
            place: Place {
                thread: place.thread,
                volume,
            },
            number,
            slots: Arc::new(Semaphore::new(slots)),
            identity: joining.identity,
        });
    }
}

impl Present {
    /// The resource of this name.
    pub(super) fn resource(&self, name: &str) -> Option<&Served> {
        self.resources.iter().find(|served| served.config.name == name)
    }

    /// The resource at this place.
    pub(super) fn at(&self, place: ResourcePlace) -> Option<&Served> {
        self.resources.iter().find(|served| served.place == place)
    }

    /// All volumes, in the order of the configuration.
    pub(super) fn volumes(&self) -> impl Iterator<Item = VolumeView<'_>> {
        self.resources.iter().flat_map(Served::views)
    }

    /// The volume that is exported by this name.
    pub(super) fn volume(&self, export: &str) -> Option<VolumeView<'_>> {
        self.volumes().find(|view| view.config.export == export)
    }

    /// The volume at this place.
    pub(super) fn volume_at(&self, place: Place) -> Option<VolumeView<'_>> {
        self.volumes().find(|view| view.served.place == place)
    }

    /// The branch that is exported by this name.
    pub(super) fn branch(&self, export: &str) -> Option<&ServedBranch> {
        let mut branches = self.resources.iter().flat_map(|served| &served.branches);
        branches.find(|branch| branch.volume.export == export)
    }
}

impl Served {
    /// Its volumes, in the order of the configuration.
    pub(super) fn views(&self) -> impl Iterator<Item = VolumeView<'_>> {
        self.config
            .volumes
            .iter()
            .zip(&self.volumes)
            .map(|(config, served)| VolumeView {
                resource: self,
                config,
                served,
            })
    }

    /// Its peers, in the order of the configuration.
    pub(super) fn peer_views(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.config
            .peers
            .iter()
            .zip(&self.peers)
            .map(|(config, number)| PeerView {
                config,
                number: *number,
            })
    }

    /// The peer of this name.
    pub(super) fn peer(&self, name: &str) -> Option<PeerView<'_>> {
        self.peer_views().find(|peer| peer.config.name == name)
    }

    /// The peer of this number.
    pub(super) fn peer_number(&self, number: usize) -> Option<PeerView<'_>> {
        self.peer_views().find(|peer| peer.number == number)
    }
}

impl VolumeView<'_> {
    /// Its bytes now.
    pub(super) fn size(&self) -> Option<u64> {
        self.resource.gate.size(&self.config.export)
    }
}
