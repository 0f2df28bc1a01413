//! What the resource's core asks about its volumes.

use std::ops::Range;

use mirror_core::event::PeerIndex;
use mirror_core::identity::VolumeIdentity;
use mirror_core::resource::event::Volumes;

use crate::data::volume::Volume;

/// The volumes of a thread, seen by one resource.
pub(super) struct View<'a> {
    pub(super) volumes: &'a [Volume],
    /// By volume of the resource.
    pub(super) places: &'a [Option<usize>],
}

impl View<'_> {
    fn volume(&self, volume: usize) -> Option<&Volume> {
        self.volumes.get((*self.places.get(volume)?)?)
    }
}

impl Volumes for View<'_> {
    fn identity(&self, volume: usize, peer: PeerIndex) -> VolumeIdentity {
        let found = self.volume(volume).and_then(|volume| volume.identity(peer));
        let Some(identity) = found else {
            unreachable!("the core asks about volumes it was given, and each has a mirror")
        };
        identity
    }

    fn dirty_runs(&self, volume: usize, peer: PeerIndex, from: u64, max: usize) -> Vec<Range<u64>> {
        self.volume(volume)
            .map(|volume| volume.dirty_runs(peer, from, max))
            .unwrap_or_default()
    }

    fn gives_up(&self, volume: usize, peer: PeerIndex) -> bool {
        self.volume(volume).is_some_and(|volume| volume.gives_up(peer))
    }

    fn keeps_data_from(&self, volume: usize, peer: PeerIndex) -> bool {
        self.volume(volume).is_some_and(|volume| volume.keeps_data_from(peer))
    }
}
