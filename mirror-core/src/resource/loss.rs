//! What a promotion would lose, as far as can be known here, and the word an operator quotes back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Loss, Volumes};
use super::peer::{Comparing, Joined, Lane, LaneStage, Link, Ruling};
use super::{Resource, index};
use crate::event::PeerIndex;
use crate::identity::{Generation, Newer, NodeIdentity, Role, Rule, Verdict};
use crate::sabotage::Sabotage;
use crate::state::LocalDisk;

impl Resource {
    /// What would be lost if this node became Primary now.
    pub(super) fn assess(&self, world: &dyn Volumes) -> Loss {
        let mut loss = Loss::default();
        for volume in self.live_volumes().filter(|_| !self.peers.is_empty()) {
            match self.volumes[volume].disk {
                LocalDisk::Inconsistent => loss.inconsistent_bytes += self.missing_bytes(volume, world),
                LocalDisk::Outdated => loss.unknown = true,
                LocalDisk::UpToDate | LocalDisk::Diskless => {}
            }
        }
        loss.unknown |= self.past.answers_lost;
        loss.unknown |= self
            .partners()
            .any(|at| self.peers[at].newer || self.still_lacks(at, world));
        if self.past.mine && self.past.this_life {
            return loss;
        }
        loss.unknown |= self.partners().any(|at| self.may_serve(at));
        // Whoever was allowed to take the role may not have: the one before counts as well.
        for primary in self.past.unless_taken.into_iter().chain([self.past.last_primary]) {
            match primary {
                Some(primary) => self.add_missed(primary, &mut loss),
                None => {
                    let joined = |at: usize| self.peers[at].joined().is_some_and(Joined::is_ready);
                    loss.unknown |= !self.partners().all(joined);
                }
            }
        }
        loss
    }

    /// The peer has had newer data than what is here still.
    fn still_lacks(&self, at: usize, world: &dyn Volumes) -> bool {
        let peer = &self.peers[at];
        let mut lacked = peer.lacked.iter().chain(&peer.unfetched);
        lacked.any(|&(volume, held)| !self.volumes[volume].removed && world.identity(volume, index(at)).current == held)
    }

    /// It was Primary when it was lost, as far as was known here, and may be still, whoever else was since.
    fn may_serve(&self, at: usize) -> bool {
        let peer = &self.peers[at];
        let here = peer.removed || peer.joined().is_some_and(Joined::is_ready);
        let end = peer.end.as_ref().filter(|_| !here);
        end.is_some_and(|end| end.role == Role::Primary && !end.is_known())
    }

    /// What this node has from here on is a Primary's: what became of others that had the role before is no matter.
    pub(super) fn joins_primary(&mut self, peer: usize, role: Role) {
        if role != Role::Primary {
            return;
        }
        let others = self.peers.iter_mut().enumerate().filter(|(at, _)| *at != peer);
        for (_, other) in others {
            other.end.take_if(|end| end.role == Role::Primary);
        }
    }

    /// One of the two was the last Primary, may have answered what no partner had, and has its image no more: what it is copied
    /// now is of before. Or it knows of such a node.
    pub(super) fn answers_are_lost(&self, lanes: &[Lane], mine: &NodeIdentity, theirs: &NodeIdentity) -> bool {
        if self.role == Role::Primary || theirs.role == Role::Primary {
            return false;
        }
        let loses = |lane: &Lane, node: &NodeIdentity, at: usize, others: Newer| {
            let volume = &node.volumes[at];
            // Where the other's data are newer, somebody was Primary since; or this node's are gone with the metadata.
            let last = node.was_primary && (lane.ruling.decision.newer != others || volume.fresh);
            let copied = (lane.stage != LaneStage::Parked || volume.fresh) && !is_given_up(&lane.ruling);
            last && !volume.acks_wait && copied
        };
        let here = |lane: &Lane| {
            let target = matches!(lane.ruling.decision.verdict, Verdict::Target { .. });
            target && loses(lane, mine, lane.ruling.mine, Newer::Theirs)
        };
        let there = |lane: &Lane| {
            let source = matches!(lane.ruling.decision.verdict, Verdict::Source { .. });
            source && loses(lane, theirs, lane.ruling.theirs, Newer::Mine)
        };
        let told = (theirs.answers_lost || lanes.iter().any(there)) && self.keeps(Sabotage::LossTold);
        told || lanes.iter().any(here)
    }

    /// What the peer may have answered alone is gone with its image and its metadata, and nobody knew. It does not know, and is
    /// told at the next handshake.
    pub(super) fn finds_answers_lost(&mut self, peer: usize) -> bool {
        let Link::Comparing(Comparing {
            said: Some(mine),
            heard: Some(theirs),
            rulings: Some(rulings),
            ..
        }) = &self.peers[peer].link
        else {
            return false;
        };
        let is_gone = |ruling: &Ruling| {
            let source = matches!(ruling.decision.verdict, Verdict::Source { .. });
            let had_data = mine.volumes[ruling.mine].met.count != 0;
            source && had_data && theirs.volumes[ruling.theirs].fresh
        };
        let secondaries = self.role == Role::Secondary && theirs.role == Role::Secondary;
        let lost = secondaries && rulings.iter().any(is_gone) && self.may_have_been_alone(peer);
        let finds = lost && !self.past.answers_lost && self.keeps(Sabotage::LossTold);
        self.past.answers_lost |= finds;
        finds
    }

    /// As far as is known here, the peer was Primary last, and did not end in order or with everything here.
    fn may_have_been_alone(&self, peer: usize) -> bool {
        if self.past.mine {
            return false;
        }
        let known = self.peers[peer].end.as_ref();
        let known = known.is_some_and(|end| end.role == Role::Secondary || end.is_known());
        let only = self.partners().count() == 1;
        let may_be_last = |last: Option<usize>| last.map_or(only, |last| last == peer);
        let mut last = self.past.unless_taken.into_iter().chain([self.past.last_primary]);
        !known && last.any(may_be_last)
    }

    /// Copies begin from a node that may have what was answered without others: what is here is overwritten, and by the same
    /// name another node may complete it with less.
    pub(super) fn note_unfetched(&mut self, peer: usize, lanes: &[Lane], mine: &NodeIdentity, theirs: &NodeIdentity) {
        let unfetched = &mut self.peers[peer].unfetched;
        for lane in lanes {
            let ruling = &lane.ruling;
            let held = (ruling.volume, mine.volumes[ruling.mine].current);
            let decided = is_given_up(ruling);
            unfetched.retain(|before| before.0 != held.0 || (*before == held && !decided));
            let begins = lane.stage != LaneStage::Parked && matches!(ruling.decision.verdict, Verdict::Target { .. });
            let more = begins && !decided && !theirs.volumes[ruling.theirs].acks_wait;
            if more && !unfetched.contains(&held) {
                unfetched.push(held);
            }
        }
    }

    /// What the last Primary had and this node did not get.
    fn add_missed(&self, primary: usize, loss: &mut Loss) {
        let peer = &self.peers[primary];
        if peer.removed || peer.joined().is_some_and(Joined::is_ready) {
            return;
        }
        let Some(end) = &peer.end else {
            loss.unknown = true;
            return;
        };
        if let Some(missed) = end.loss {
            loss.age = loss.age.max(missed.age);
            loss.bytes = loss.bytes.max(missed.bytes);
            loss.flushes = loss.flushes.max(missed.flushes);
        }
        // It had become Secondary in order, when everybody had everything.
        let in_order = end.role == Role::Secondary;
        let back = !matches!(peer.link, Link::Down);
        loss.unknown |= back || !(in_order || end.is_known());
    }

    fn missing_bytes(&self, volume: usize, world: &dyn Volumes) -> u64 {
        let identities = self.partners().map(|at| world.identity(volume, index(at)));
        let (mut dirty, mut size) = (0, 1);
        for identity in identities {
            dirty = dirty.max(identity.dirty_bytes);
            size = size.max(identity.size);
        }
        // Incomplete without a mark of what is missing: anything may be.
        if dirty == 0 { size } else { dirty }
    }

    /// What the operator quotes back: another situation has another word.
    pub(super) fn token(&self, loss: &Loss, world: &dyn Volumes) -> String {
        let mut text = format!(
            "{:?} {} {} {} {}",
            loss.age, loss.bytes, loss.flushes, loss.inconsistent_bytes, loss.unknown
        );
        for volume in self.live_volumes().filter(|_| !self.peers.is_empty()) {
            text.push_str(&format!(" {:x}", world.identity(volume, index(0)).current));
        }
        format!("{:08x}", crc32fast::hash(text.as_bytes()))
    }

    /// What differs on this node and the peer is marked on one of them, as far as this one can tell.
    pub(super) fn bits_tell(&self, peer: usize) -> bool {
        self.role == Role::Primary || self.past.mine || self.partners().all(|at| at == peer)
    }

    /// Partners that may differ from this node in blocks that no bit here tells of.
    ///
    /// The last Primary, if it is known for sure, is none of them: its own activity log knows what it had in flight. Nor is
    /// anybody if this node was the last Primary. But another Secondary may have got writes of it that this one has not, or the other way;
    /// unless the old Primary gave the role away in order, when everybody in step had everything.
    pub(super) fn doubtful(&self, handed_over: bool, world: &dyn Volumes) -> Vec<PeerIndex> {
        let partners: Vec<usize> = self.partners().collect();
        let last = self.past.last_primary.filter(|_| self.past.sure);
        let in_order = handed_over || self.past.left_in_order;
        let is_doubtful = |at: usize| {
            let told = self.past.mine || partners.len() == 1 || last == Some(at);
            !(told || in_order && self.is_in_step(at, world))
        };
        partners
            .iter()
            .filter(|at| is_doubtful(**at))
            .map(|at| index(*at))
            .collect()
    }
}

/// What is here by the same name as when the other had newer data, unless somebody has decided that this counts.
pub(super) fn lacked(
    before: &[(usize, Generation)],
    rulings: &[Ruling],
    mine: &NodeIdentity,
) -> Vec<(usize, Generation)> {
    let lacks = |ruling: &Ruling| {
        let held = (ruling.volume, mine.volumes[ruling.mine].current);
        let decided = is_given_up(ruling);
        let lacks = ruling.decision.newer == Newer::Theirs || (before.contains(&held) && !decided);
        lacks.then_some(held)
    };
    rulings.iter().filter_map(lacks).collect()
}

/// The other has, or may have, newer data of this volume.
pub(super) fn has_more(ruling: &Ruling, theirs: &NodeIdentity) -> bool {
    match ruling.decision.newer {
        Newer::Theirs => true,
        Newer::Same => theirs.volumes[ruling.theirs].withholds(),
        Newer::Mine | Newer::Neither => false,
    }
}

/// Diverged data is given up, by the operator's word or by a policy.
pub(super) fn is_given_up(ruling: &Ruling) -> bool {
    matches!(ruling.decision.rule, Rule::DiscardMyData | Rule::Policy)
}
