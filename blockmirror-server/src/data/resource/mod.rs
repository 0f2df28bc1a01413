//! A resource: its role, its volumes, and its streams to other blockmirrors.
//!
//! ```text
//!   streams ──events──▶ volumes (requests, answers)            operator ──commands──▶ core ──answers──▶
//!      ▲        └─────▶ core (control frames) ──orders──▶ volumes ──notes──▶ core
//!      └── what the volumes' mirrors ask of their peers
//! ```
//! The core is told one thing at a time, when everything its volumes' mirrors have put out before has been done.

mod commands;
mod dial;
mod drive;
mod gate;
mod hosts;
mod members;
mod numbering;
mod partner;
mod stop;
mod streams;
mod view;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mirror_core::config::PeerKind;
use mirror_core::event::PeerIndex;
use mirror_core::resource::Resource;
use mirror_core::resource::event::{CommandId, HostAccess, Input};

use self::commands::Waiting;
pub use self::gate::{Gate, StreamHello};
use self::partner::Partner;
use self::stop::StopPhase;
use self::view::View;
use super::message::ResourceSnapshot;
use super::plan::{PartnerPlan, ResourcePlan, VolumePlan};
use super::volume::Volume;
use crate::wall_clock::seconds_since_1970;

/// A resource of this data thread.
pub(super) struct ResourceSide {
    name: String,
    /// This node's name.
    node: String,
    gate: Arc<Gate>,
    /// `None`: without a mirror it has no role, and no streams.
    core: Option<Box<Resource>>,
    /// The numbers of its volumes in the thread; `None`: no longer served.
    pub(super) volumes: Vec<Option<usize>>,
    /// By peer.
    partners: Vec<Partner>,
    /// What the core has not been told yet.
    inbox: VecDeque<Input>,
    access: HostAccess,
    /// The core waits for the last host request to end.
    draining: bool,
    /// Who waits for which command.
    answers: HashMap<CommandId, Waiting>,
    commands: u64,
    /// The node that is Primary, as far as is known.
    primary: Option<String>,
    stop: StopPhase,
}

impl ResourceSide {
    /// Take over a planned resource whose first volume has the number `first`. Gives its volumes back.
    pub(super) fn new(index: usize, first: usize, plan: ResourcePlan) -> (Self, Vec<VolumePlan>) {
        let ResourcePlan {
            name,
            volumes,
            peers,
            config,
            gate,
        } = plan;
        // With plain peers only there is nothing to decide: hosts are served from the first moment on.
        let mut kinds = config.iter().flat_map(|config| &config.peers);
        let decides = kinds.any(|peer| peer.kind != Some(PeerKind::Plain));
        let core = config.map(|mut config| {
            config.clock = seconds_since_1970();
            Box::new(Resource::new(config))
        });
        let access = if decides {
            HostAccess::Shut
        } else {
            HostAccess::ReadWrite
        };
        gate.set_access(access);
        let mut side = Self {
            name,
            node: gate.hello().node,
            gate,
            inbox: core.iter().map(|_| Input::Start).collect(),
            core,
            volumes: (first..first + volumes.len()).map(Some).collect(),
            partners: Vec::new(),
            access,
            draining: false,
            answers: HashMap::new(),
            commands: 0,
            primary: None,
            stop: StopPhase::Lives,
        };
        for plan in peers {
            side.add_partner(index, plan);
        }
        (side, volumes)
    }

    /// It has a role, and perhaps streams.
    pub(super) fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// When something of it has to be looked at.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let core = self.core.as_ref().and_then(|core| core.next_timeout());
        let streams = self.partners.iter().filter_map(|partner| partner.port.next_timeout());
        streams.chain(core).min()
    }

    /// Its present state.
    pub(super) fn snapshot(&self, now: Duration, volumes: &[Volume]) -> ResourceSnapshot {
        let view = View {
            volumes,
            places: &self.volumes,
        };
        ResourceSnapshot {
            name: self.name.clone(),
            role: self.core.as_ref().map(|core| core.role()),
            hosts: self.access,
            status: self.core.as_ref().map(|core| core.status()),
            why: self.core.as_ref().map(|core| core.why(&view)),
            now,
            streams: self.partners.iter().map(|partner| partner.snapshot(now)).collect(),
        }
    }

    fn add_partner(&mut self, resource: usize, plan: PartnerPlan) {
        let index = PeerIndex(self.partners.len() as u8);
        self.partners.push(Partner::new(resource, index, plan));
    }

    fn partner(&mut self, peer: PeerIndex) -> Option<&mut Partner> {
        self.partners.get_mut(usize::from(peer.0))
    }
}
