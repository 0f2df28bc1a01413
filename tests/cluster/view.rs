//! What a resource sees of its volumes.

use mirror_core::event::PeerIndex;
use mirror_core::identity::VolumeIdentity;
use mirror_core::resource::event::Volumes;

use crate::node::Volume;

/// The volumes as the resource asks about them.
pub struct View<'a>(pub &'a [Volume]);

impl Volumes for View<'_> {
    fn identity(&self, volume: usize, peer: PeerIndex) -> VolumeIdentity {
        let mirror = self.0[volume].mirror.as_ref();
        mirror.map_or_else(
            || unreachable!("a resource lives as long as its mirrors"),
            |mirror| mirror.identity(peer),
        )
    }

    fn dirty_runs(&self, volume: usize, peer: PeerIndex, from: u64, max: usize) -> Vec<std::ops::Range<u64>> {
        let mirror = self.0[volume].mirror.as_ref();
        mirror.map_or_else(Vec::new, |mirror| mirror.dirty_runs(peer, from, max))
    }

    fn gives_up(&self, volume: usize, peer: PeerIndex) -> bool {
        let mirror = self.0[volume].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.gives_up(peer))
    }

    fn keeps_data_from(&self, volume: usize, peer: PeerIndex) -> bool {
        let mirror = self.0[volume].mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.keeps_data_from(peer))
    }
}
