//! When a volume may get smaller. Whatever is beyond the new end is gone afterwards, so everything has to be at rest:
//! nobody is Primary, all partners are connected and in step, and the operator has said that he means it.

use alloc::format;
use alloc::string::String;

use super::event::Volumes;
use super::resize::BUSY;
use super::{Resource, index};
use crate::identity::Role;
use crate::range::BLOCK_BYTES;
use crate::state::LocalDisk;

impl Resource {
    pub(super) fn would_shrink(&self, volume: usize, size: u64, world: &dyn Volumes) -> bool {
        !self.peers.is_empty() && size < world.identity(volume, index(0)).size
    }

    pub(super) fn why_no_shrink(&self, volume: usize, size: u64, force: bool, world: &dyn Volumes) -> Option<String> {
        let name = &self.volumes[volume].name;
        if self.growth.is_some() || self.change.is_some() {
            return Some(BUSY.into());
        }
        if !force {
            return Some(format!(
                "{name} would get smaller, and what is beyond {size} bytes would be cut off: with --force it is done, if \
                 every node finds nothing there"
            ));
        }
        if size == 0 || !size.is_multiple_of(BLOCK_BYTES) {
            return Some(format!(
                "{size} is no multiple of {BLOCK_BYTES}: {name} gets smaller by whole blocks"
            ));
        }
        if self.role == Role::Primary {
            return Some(format!(
                "{} is Primary, and its hosts know the present size: let them go, demote, and say it again",
                self.config.node
            ));
        }
        if let Some(peer) = self.partners().find(|at| self.peers[*at].is_connected_primary()) {
            return Some(format!(
                "{} is Primary: `blockmirror demote {}` there first",
                self.peers[peer].name, self.config.name
            ));
        }
        if let Some(why) = self.why_apart(volume, size) {
            return Some(why);
        }
        for at in self.partners() {
            let identity = world.identity(volume, index(at));
            let apart = self.peers[at].joined().is_some()
                && (identity.for_peer != 0 || identity.dirty_bytes > 0 || identity.sync != 0);
            if apart || identity.disk != LocalDisk::UpToDate {
                return Some(format!(
                    "{name} is not in step with {}: wait for the resync",
                    self.peers[at].name
                ));
            }
        }
        None
    }
}
