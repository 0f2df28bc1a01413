//! What the mirror has for the log.

use std::time::Duration;

use mirror_core::event::{Event, PeerIndex};
use mirror_core::state::{LocalDisk, PeerState};

use super::outward::Note;
use super::{Machinery, Volume};
use crate::data::peer::Peer;

impl Volume {
    pub(super) fn note_event(&mut self, now: Duration, event: &Event) {
        self.log_event(event);
        match (event, &mut self.machinery) {
            (Event::Disk(disk), _) => {
                self.notes.push(Note::Disk(*disk));
                if matches!(disk, LocalDisk::UpToDate | LocalDisk::Outdated) {
                    // Another history has overwritten all it ever will.
                    self.branch.finish();
                }
            }
            (Event::FellBehind { peer }, _) => self.notes.push(Note::FellBehind(*peer)),
            (
                Event::PeerState {
                    peer,
                    state: PeerState::Established,
                },
                Machinery::Mirror(mirror),
            ) => {
                if let Some(incoming) = mirror.incoming.get_mut(usize::from(peer.0)) {
                    incoming.end(now);
                }
            }
            (Event::Stopped { clean }, Machinery::Mirror(mirror)) => mirror.stopped = Some(*clean),
            _ => {}
        }
    }

    fn log_event(&self, event: &Event) {
        let export = &self.export;
        let Machinery::Mirror(mirror) = &self.machinery else {
            return;
        };
        let name = |peer: &PeerIndex| mirror.peers.get(usize::from(peer.0)).map_or("", Peer::name);
        match event {
            Event::PeerState { peer, state } => {
                tracing::info!(export, peer = name(peer), state = ?state, "peer state");
            }
            Event::Degraded { peer, generation } => {
                let generation = format!("{generation:016x}");
                tracing::warn!(
                    export,
                    peer = name(peer),
                    generation,
                    "degraded: this peer lacks something of the data here"
                );
            }
            Event::ResyncStarted { peer, dirty } => {
                tracing::info!(export, peer = name(peer), dirty_bytes = dirty, "resync started");
            }
            Event::ResyncFinished { peer, shipped, zeroed } => {
                tracing::info!(
                    export,
                    peer = name(peer),
                    copied_bytes = shipped,
                    zeroed_bytes = zeroed,
                    "resync finished: the peer is up to date"
                );
            }
            Event::FellBehind { peer } => {
                tracing::warn!(
                    export,
                    peer = name(peer),
                    "the peer's queue is full: it is Behind and will be resynced"
                );
            }
            Event::Disk(disk) => {
                tracing::warn!(export, disk = ?disk, "the state of the image has changed");
            }
            Event::Different { peer, range } => {
                tracing::error!(
                    export,
                    peer = name(peer),
                    offset = range.offset,
                    bytes = range.length,
                    "the legs differ: marked dirty"
                );
            }
            Event::VerifyFinished { peer, different, .. } => {
                tracing::info!(export, peer = name(peer), different_bytes = different, "compared");
            }
            Event::VolumeFailed(why) => {
                tracing::error!(
                    export,
                    why = %why,
                    "the volume has failed: it takes no more changes"
                );
            }
            Event::Stopped { clean } => {
                if *clean {
                    tracing::info!(export, "stopped, metadata is clean");
                } else {
                    tracing::error!(export, "stopped, but the volume had failed: the metadata is not clean");
                }
            }
        }
    }
}
