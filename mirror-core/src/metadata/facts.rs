//! What a metadata file says, before and after it has been matched with the configuration.

use super::{ImageIdentity, PeerRecord, PeerSlotConfig, Restored};
use crate::event::LinkKind;
use crate::identity::Role;
use crate::state::LocalDisk;

impl Restored {
    /// Blocks dirty for the peer at this place of the configuration.
    pub fn dirty_blocks(&self, peer: usize) -> u64 {
        self.peers[peer].dirty.count()
    }

    /// Extents that were hot when the file was last written; none after a stop in order.
    pub fn hot_extents(&self) -> &[u32] {
        &self.hot
    }

    /// The daemon stopped in order when it last ran, or has never run.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// The image it belongs to.
    pub fn image(&self) -> ImageIdentity {
        self.superblock.image
    }

    /// One of these peers is known to be another blockmirror: asked before they are matched with the file.
    pub fn has_partner(&self, peers: &[PeerSlotConfig]) -> bool {
        let recorded = |name: &str| {
            let mut records = self.superblock.peers.iter().flatten();
            records.find(|record| record.name == name)?.kind
        };
        let mut kinds = peers.iter().map(|peer| peer.kind.or_else(|| recorded(&peer.name)));
        kinds.any(|kind| kind == Some(LinkKind::Stream))
    }

    /// What is at the other end of the peer at this place of the configuration; `None`: never reached.
    pub fn kind(&self, peer: usize) -> Option<LinkKind> {
        self.record(peer).and_then(|record| record.kind)
    }

    /// The role a mirror starts with: Primary where every peer is known to be a plain server, for then nobody else can
    /// be Primary. Otherwise the resource decides.
    pub fn start_role(&self) -> Role {
        let plain = |peer: usize| self.kind(peer) == Some(LinkKind::Nbd);
        if self.superblock.disk == LocalDisk::UpToDate && !self.absent && (0..self.peers.len()).all(plain) {
            Role::Primary
        } else {
            Role::Secondary
        }
    }

    /// It was Primary when it last ran, and nobody else has been since, as far as is known here.
    pub fn was_primary(&self) -> bool {
        self.superblock.resume
    }

    /// The same of a resource with these volumes. One without data does not count; and a change of the role that a crash cut
    /// short, so that it is in some volumes only, has not made this node the Primary whose log covers all of them.
    pub fn were_primary<'a>(volumes: impl IntoIterator<Item = &'a Self>) -> bool {
        let mut volumes = volumes.into_iter().filter(|volume| !volume.is_fresh()).peekable();
        volumes.peek().is_some() && volumes.all(Self::was_primary)
    }

    /// Answered writes may be nowhere any more: see [`NodeIdentity`](crate::identity::NodeIdentity).
    pub fn answers_lost(&self) -> bool {
        self.superblock.answers_lost
    }

    /// When this node last became Primary, in seconds since 1970 by its own clock; 0: not known.
    pub fn primary_since(&self) -> u64 {
        self.superblock.primary_since
    }

    /// No data was ever declared.
    pub fn is_fresh(&self) -> bool {
        self.superblock.fresh
    }

    /// The state of the image.
    pub fn disk(&self) -> LocalDisk {
        self.superblock.disk
    }

    /// Earlier generations, the latest first.
    pub fn history(&self) -> &[u64] {
        &self.superblock.history
    }

    /// The generation that the peer of this name is recorded to hold; 0: in step. `None`: no record.
    pub fn recorded(&self, peer: &str) -> Option<u64> {
        let named = |record: &&PeerRecord| record.name == peer;
        self.superblock
            .peers
            .iter()
            .flatten()
            .find(named)
            .map(|record| record.generation)
    }

    /// The generation identifier of this node's data.
    pub fn generation(&self) -> u64 {
        self.superblock.generation
    }

    /// Peers that are not configured any more are forgotten. True: one of them may have been the last Primary, and what it
    /// wrote at its end this node or another may not have.
    pub(super) fn drop_peers(&mut self, config: &[PeerSlotConfig]) -> bool {
        let superblock = &mut self.superblock;
        let told = superblock.resume || superblock.fresh;
        let mut doubted = false;
        for slot in &mut superblock.peers {
            let gone = slot.take_if(|peer| config.iter().all(|wanted| wanted.name != peer.name));
            doubted |= gone.is_some_and(|peer| peer.kind != Some(LinkKind::Nbd)) && !told;
        }
        doubted
    }

    fn record(&self, peer: usize) -> Option<&PeerRecord> {
        self.superblock.peers[self.peers[peer].slot as usize].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::metadata::ImageIdentity;

    const IMAGE: ImageIdentity = ImageIdentity {
        size: 1 << 20,
        device: 1,
        inode: 2,
        born_ns: 0,
    };

    /// What a Primary wrote that is no peer any more one of those that are left may have, and nobody knows what.
    #[test]
    fn where_a_partner_has_gone_that_may_have_been_primary_the_others_are_compared() {
        let slots = |names: &[&str]| -> Vec<PeerSlotConfig> {
            let slot = |name: &&str| PeerSlotConfig {
                name: (*name).into(),
                skip_initial_sync: true,
                kind: Some(LinkKind::Stream),
            };
            names.iter().map(slot).collect()
        };
        let dirty = |resume: bool, names: &[&str]| {
            let (mut restored, _) = Restored::create(IMAGE, &slots(&["bravo", "carol"]), 7).unwrap();
            (restored.superblock.fresh, restored.superblock.resume) = (false, resume);
            restored.peers.clear();
            restored.finish(&slots(names), 5).unwrap().0.dirty_blocks(0)
        };
        assert_eq!(dirty(false, &["bravo"]), 256);
        assert_eq!(dirty(true, &["bravo"]), 0, "it was this node");
        assert_eq!(dirty(false, &["bravo", "carol"]), 0, "nobody has gone");
    }

    #[test]
    fn a_role_that_is_in_some_volumes_only_was_not_the_resources() {
        let [new, with, without] = [(true, false), (false, true), (false, false)].map(|state| {
            let (mut restored, _) = Restored::create(IMAGE, &[], 7).unwrap();
            (restored.superblock.fresh, restored.superblock.resume) = state;
            restored
        });
        assert!(Restored::were_primary([&with, &with]) && Restored::were_primary([&new, &with]));
        assert!(!Restored::were_primary([&with, &without]) && !Restored::were_primary([&without, &with]));
        assert!(!Restored::were_primary([&new]) && !Restored::were_primary([]));
    }
}
