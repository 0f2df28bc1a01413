//! What an operator could do, most useful first. Commands stand in backquotes, whole: they are typed as they stand.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Resource;
use super::event::{Answer, Volumes};
use super::peer::{Joined, Link};
use crate::identity::Role;
use crate::state::LocalDisk;

impl Resource {
    pub(super) fn advise(&self, world: &dyn Volumes) -> Vec<String> {
        let mut next = Vec::new();
        self.advise_on_peers(&mut next);
        let nobody = self.partners().all(|at| !self.peers[at].is_connected_primary());
        if self.role == Role::Secondary && nobody && self.change.is_none() {
            next.push(self.advise_on_role(world));
        }
        let connected = self.partners().any(|at| self.peers[at].joined().is_some());
        for at in self.live_volumes().filter(|_| connected) {
            if self.volumes[at].disk == LocalDisk::Diskless {
                next.push(format!(
                    "when its image is there again: `blockmirror attach {}`",
                    self.volumes[at].name
                ));
            }
        }
        for (peer, volume) in self.without_image() {
            next.push(format!(
                "when its image is there again: on {peer} `blockmirror attach {volume}`"
            ));
        }
        next
    }

    fn advise_on_peers(&self, next: &mut Vec<String>) {
        let (resource, node) = (&self.config.name, &self.config.node);
        for peer in self.peers.iter().filter(|peer| !peer.removed) {
            let name = &peer.name;
            if peer.split_brain.is_some() {
                next.push(format!(
                    "decide whose data counts; to keep what is here: on {name} `blockmirror connect --discard-my-data \
                     {resource} {node}` (what differs is saved to a branch first), here `blockmirror connect {resource} {name}`"
                ));
            } else if peer.no_space {
                next.push(format!("make room where the images of {name} are"));
            } else if peer.stand_alone.is_some() {
                next.push(format!(
                    "when the reason is gone: `blockmirror connect {resource} {name}`"
                ));
            }
        }
    }

    /// Nobody is Primary, as far as is known here. A promotion that is sure to be refused is no advice.
    fn advise_on_role(&self, world: &dyn Volumes) -> String {
        let promote = format!("`blockmirror promote {}`", self.config.name);
        if let Err(Answer::Refused(why)) = self.permit_data(world, None) {
            return match self.who_can_serve() {
                Some(peer) => format!("if hosts are to work: on {peer} {promote}; not here: {why}"),
                None => format!("if hosts are to work here, before {promote}: {why}"),
            };
        }
        match self.permit_loss(world, false, None) {
            Ok(()) => format!("if hosts are to work, here or on another node: {promote}"),
            Err(Answer::NeedsAccept { .. }) => {
                let away =
                    |at: &usize| matches!(self.peers[*at].link, Link::Down) && self.peers[*at].stand_alone.is_none();
                let away: Vec<&str> = self
                    .partners()
                    .filter(away)
                    .map(|at| self.peers[at].name.as_str())
                    .collect();
                let back = if away.is_empty() {
                    String::new()
                } else {
                    format!(": bring {} back, or", away.join(", "))
                };
                format!(
                    "if hosts are to work{back} `blockmirror promote --force {}`, which says first what may be lost",
                    self.config.name
                )
            }
            Err(Answer::Refused(why) | Answer::HalfDone(why)) => why,
            Err(Answer::Done) => promote,
        }
    }

    /// A connected partner that has everything, as it says, and lacks nothing that this node has.
    fn who_can_serve(&self) -> Option<&str> {
        let whole = |at: &usize| {
            let peer = &self.peers[*at];
            let has_all = |(_, disk): &(String, LocalDisk)| *disk == LocalDisk::UpToDate;
            peer.joined().is_some_and(Joined::is_ready) && !peer.disks.is_empty() && peer.disks.iter().all(has_all)
        };
        let at = self.partners().find(whole)?;
        Some(&self.peers[at].name)
    }

    /// A connected peer that has said that it has all of the volume.
    pub(super) fn complete_at(&self, volume: &str) -> Option<&str> {
        let has_it = |at: &usize| {
            let peer = &self.peers[*at];
            peer.joined().is_some_and(Joined::is_ready) && peer.has_complete(volume)
        };
        let at = self.partners().find(has_it)?;
        Some(&self.peers[at].name)
    }

    /// Peers that have said on the present connection that a volume has no image there, and the volume.
    pub(super) fn without_image(&self) -> impl Iterator<Item = (&str, &str)> {
        let peers = self.peers.iter().filter(|peer| !peer.removed);
        peers.flat_map(|peer| {
            let gone = peer.disks.iter().filter(|(_, disk)| *disk == LocalDisk::Diskless);
            gone.map(|(volume, _)| (peer.name.as_str(), volume.as_str()))
        })
    }
}
