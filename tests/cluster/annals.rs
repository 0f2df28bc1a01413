//! Who reigns over whose data: reigns begin and end, and every image follows one of them, as the checker sees it.

use mirror_core::event::ReadFrom;
use mirror_core::resource::event::HostAccess;
use mirror_core::state::{LocalDisk, PeerState};

use crate::disk::{Disk, Stamp};
use crate::node::{Word, node_of, peer_of};
use crate::reign::{Lineage, Reign};
use crate::world::{Check, World};

impl World {
    /// After every input of a mirror: who came into step, and who fell out of it.
    pub fn note_states(&mut self, node: usize, volume: usize) -> Check {
        let peers = self.nodes[node].links.len();
        for peer in 0..peers {
            let it = &mut self.nodes[node].volumes[volume];
            let Some(mirror) = &it.mirror else { return Ok(()) };
            let state = mirror.peer_state(mirror_core::event::PeerIndex(peer as u8));
            let before = std::mem::replace(&mut it.states[peer], state);
            if before != state {
                self.state_changed(node, volume, peer, before, state)?;
            }
        }
        Ok(())
    }

    fn state_changed(&mut self, node: usize, volume: usize, peer: usize, before: PeerState, state: PeerState) -> Check {
        let other = node_of(node, peer);
        self.digest
            .mix((node * 64 + other * 8 + volume) as u64 ^ (state as u64) << 32);
        self.trace(|| format!("{node}.{volume}: {other} is {state:?}"));
        match before {
            PeerState::Established => self.left(node, other, volume),
            PeerState::SyncSource if state != PeerState::Established => self.lets_go(node, other, volume),
            _ => {}
        }
        match state {
            PeerState::Established => {
                self.tally.in_step += 1;
                if before == PeerState::SyncTarget && self.nodes[node].reign.is_none() {
                    self.copy_heard(node, other, volume);
                }
                if self.nodes[node].reign.is_none() && self.nodes[other].reign.is_none() {
                    return self.follow_along(node, other, volume, before == PeerState::SyncSource);
                }
                self.came_into_step(node, other, volume)
            }
            PeerState::SyncSource if self.leads(node, other) => {
                self.worst_moment(other);
                self.becomes_partial(other, volume, Some(node));
                Ok(())
            }
            PeerState::SyncTarget => {
                if self.leads(node, other) {
                    self.worst_moment(node);
                }
                let it = &mut self.nodes[node].volumes[volume];
                (it.copied, it.let_go) = (None, None);
                self.becomes_partial(node, volume, Some(other));
                self.serves_instead(node, other, volume)
            }
            _ => Ok(()),
        }
    }

    /// Without a Primary: who was copied to has what the source has; two that are equal have what the later one has.
    /// They are equal as long as they are of one generation: what they concluded may be from before a promotion that one
    /// of them knows of.
    fn follow_along(&mut self, node: usize, other: usize, volume: usize, copied: bool) -> Check {
        if !self.speaks_with(node, other) {
            return Ok(());
        }
        let equal = self.known(node, volume)?.generation == self.known(other, volume)?.generation;
        let it = &self.nodes[node].volumes[volume];
        let (follows, left_at, left_step) = (it.follows, it.left_at, it.left_step);
        let through = it.through.or(Some(node));
        let (partial, power_lost, forgot_at) = (it.partial, it.power_lost, it.forgot_at);
        let theirs = &mut self.nodes[other].volumes[volume];
        if copied {
            (theirs.follows, theirs.left_at, theirs.left_step) = (follows, left_at, left_step);
            theirs.through = through;
            (theirs.partial, theirs.power_lost) = (partial, power_lost);
            theirs.forgets(forgot_at);
        } else if equal && !partial && !theirs.partial && theirs.follows < follows {
            (theirs.follows, theirs.left_at, theirs.left_step) = (follows, left_at, left_step);
            theirs.through = through;
        }
        Ok(())
    }

    /// Parts of an image will be newer than others.
    pub fn becomes_partial(&mut self, node: usize, volume: usize, from: Option<usize>) {
        let now = self.truth.tick();
        let it = &mut self.nodes[node].volumes[volume];
        if !it.partial {
            (it.partial, it.partial_since, it.partial_from) = (true, now, from);
            self.content_goes(node, volume);
        } else if it.partial_from != from {
            // What one brings another may overwrite.
            it.partial_from = None;
        }
    }

    /// Who had half a copy of what was here has half a copy of nothing that is there any more.
    pub fn content_goes(&mut self, node: usize, volume: usize) {
        for other in &mut self.nodes {
            other.volumes[volume].partial_from.take_if(|from| *from == node);
        }
    }

    /// What this node says of the other counts: it is the Primary of the two, or neither is.
    fn leads(&self, node: usize, other: usize) -> bool {
        self.nodes[node].reign.is_some() || self.nodes[other].reign.is_none()
    }

    /// The Primary goes on without this node, from now on.
    fn left(&mut self, node: usize, other: usize, volume: usize) {
        let when = (self.truth.tick(), self.steps);
        let reign = self.nodes[node].reign;
        for third in (0..self.nodes.len()).filter(|&third| third != node) {
            let state = self.nodes[node].volumes[volume].states[peer_of(node, third)];
            let it = &mut self.nodes[third].volumes[volume];
            // Who has it from `other`, behind the Primary's back, is left with it.
            let without = third == other || state != PeerState::Established;
            if without && reign.is_some() && it.follows == reign && it.left_at == 0 {
                (it.left_at, it.left_step) = when;
            }
        }
    }

    /// The Primary goes on without one that it copied to, and that may have got everything.
    fn lets_go(&mut self, node: usize, other: usize, volume: usize) {
        let when = (self.truth.tick(), self.steps);
        let reign = self.nodes[node].reign;
        self.nodes[other].volumes[volume].let_go = reign.map(|reign| (reign, when));
    }

    /// Both ends are of the same connection. A node may have died since it was last heard of, or given the connection up,
    /// unnoticed: then what it has become since is not for the other one to say.
    pub fn speaks_with(&self, node: usize, other: usize) -> bool {
        self.nodes[node].links[peer_of(node, other)].conn == self.nodes[other].links[peer_of(other, node)].conn
    }

    /// A node says that another is in step with it.
    fn came_into_step(&mut self, node: usize, other: usize, volume: usize) -> Check {
        let Some(reign) = self.nodes[node].reign.filter(|_| self.speaks_with(node, other)) else {
            return Ok(());
        };
        let forgot_at = [node, other].map(|side| self.nodes[side].volumes[volume].forgot_at);
        for side in [node, other] {
            let it = &mut self.nodes[side].volumes[volume];
            forgot_at.into_iter().for_each(|at| it.forgets(at));
            (it.follows, it.through) = (Some(reign), None);
            (it.left_at, it.left_step, it.partial, it.power_lost) = (0, 0, false, false);
            it.word = Word::Keep;
            it.branch = None;
        }
        let sync = self.plan.mode == mirror_core::config::AckMode::Sync;
        self.judge_in_step(reign, other, volume, sync)
    }

    /// The image of a node has another state.
    pub fn image_state(&mut self, node: usize, volume: usize, disk: LocalDisk) {
        let it = &mut self.nodes[node].volumes[volume];
        match disk {
            LocalDisk::Diskless if it.attached => {
                it.attached = false;
                self.tally.detached += 1;
                self.becomes_partial(node, volume, None);
            }
            LocalDisk::UpToDate if self.nodes[node].reign.is_some() => {
                let reign = self.nodes[node].reign;
                let it = &mut self.nodes[node].volumes[volume];
                (it.partial, it.follows, it.through) = (false, reign, None);
            }
            // The word was for what it held before; what is said from here on is another one.
            LocalDisk::UpToDate => {
                let it = &mut self.nodes[node].volumes[volume];
                (it.word, it.branch) = (Word::Keep, None);
            }
            _ => {}
        }
    }

    /// A node has become Primary: hosts may write.
    pub fn reign_begins(&mut self, node: usize) -> Check {
        self.tally.promotions += 1;
        self.tally.forced += u64::from(self.nodes[node].forcing);
        let others = (0..self.nodes.len()).filter(|&other| other != node);
        let double = others.filter(|&other| self.nodes[other].reign.is_some()).count();
        self.tally.double += u64::from(double > 0);
        self.tally.switchovers += u64::from(self.takes_over(node));
        self.judge_beside(node)?;
        self.new_reign(node)?;
        self.worst_moment(node);
        for volume in 0..self.plan.layouts.len() {
            self.is_of_its_reign(node, volume);
            self.followers(node, volume)?;
        }
        Ok(())
    }

    /// From what a node has now.
    pub fn new_reign(&mut self, node: usize) -> Check {
        let forced = std::mem::take(&mut self.nodes[node].forcing);
        let first = self.reigns.is_empty();
        let reign = self.reigns.len();
        let now = self.truth.tick();
        self.trace(|| format!("reign {reign} of {node} begins, forced: {forced}"));
        let (mut volumes, mut came) = (Vec::new(), Vec::new());
        let mut parent = None;
        for volume in 0..self.plan.layouts.len() {
            let disk = self.served_content(node, volume);
            if !first {
                parent = self.nodes[node].volumes[volume].follows.or(parent);
                self.judge_base(node, volume, &disk, forced)?;
            }
            volumes.push(Lineage::begin(&disk, now));
            let it = &self.nodes[node].volumes[volume];
            came.push(it.follows.zip(it.through));
        }
        self.reigns.push(Reign {
            node,
            parent,
            came,
            volumes,
            forced,
            since: now,
            ended: 0,
        });
        self.nodes[node].reign = Some(reign);
        Ok(())
    }

    /// What a volume of a Primary holds is of its own reign.
    pub fn is_of_its_reign(&mut self, node: usize, volume: usize) {
        let own = self.nodes[node].volumes[volume].mirror.as_ref();
        let whole = own.is_some_and(|mirror| mirror.disk() == LocalDisk::UpToDate);
        let reign = self.nodes[node].reign;
        let it = &mut self.nodes[node].volumes[volume];
        (it.follows, it.through) = (reign, None);
        (it.left_at, it.left_step, it.partial, it.power_lost) = (0, 0, !whole, false);
        it.word = Word::Keep;
    }

    /// The last reign ended on another node, which is still there.
    fn takes_over(&self, node: usize) -> bool {
        let last = self.reigns.last();
        last.is_some_and(|last| last.node != node && last.ended != 0 && self.nodes[last.node].is_up())
    }

    /// What nodes in step may fall back to at the beginning of a reign, if the reign before allowed it.
    fn admit(&mut self, reign: usize, other: usize, volume: usize) {
        let parent = self.reigns[reign].parent;
        // An image may be larger than the volume was then: one that had grown when another node refused to.
        let before = parent.map_or(usize::MAX, |parent| self.reigns[parent].volumes[volume].slots());
        let slots = self.nodes[other].volumes[volume].disk.slots().min(before);
        for slot in 0..slots.min(self.reigns[reign].volumes[volume].slots()) {
            let survivors: Vec<Stamp> = self.nodes[other].volumes[volume].disk.survivors(slot).collect();
            for stamp in survivors {
                let before = parent.map(|parent| &self.reigns[parent].volumes[volume]);
                let allowed = before.is_none_or(|before| before.survives(&self.truth, slot, stamp).is_ok());
                let base = self.reigns[reign].volumes[volume].base(slot);
                if allowed && self.truth.submitted(stamp) < self.truth.submitted(base) {
                    self.reigns[reign].volumes[volume].admit(slot, stamp);
                }
            }
        }
    }

    /// Peers that are in step at the beginning of a reign follow it.
    fn followers(&mut self, node: usize, volume: usize) -> Check {
        let Some(reign) = self.nodes[node].reign else {
            return Ok(());
        };
        for peer in 0..self.nodes[node].links.len() {
            let other = node_of(node, peer);
            match self.nodes[node].volumes[volume].states[peer] {
                PeerState::Established => {
                    self.admit(reign, other, volume);
                    self.came_into_step(node, other, volume)?;
                }
                PeerState::SyncSource => {
                    self.becomes_partial(other, volume, Some(node));
                    if self.nodes[other].volumes[volume].copied.is_some() {
                        // It has heard that it has everything, and gets what is written now.
                        self.copy_heard(other, node, volume);
                    }
                }
                // The image here failed during the promotion: what is served is the other's.
                PeerState::SyncTarget => {
                    self.admit(reign, other, volume);
                    self.serves(reign, other, volume);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A Primary without its image fetches from one that does not follow it yet: the image failed, and the connections went,
    /// when the other had the new name and before the reign began. What is answered without that other is answered under
    /// another name, and then it is not fetched from. So it has what the reign began with (judged here, in `async` too, as
    /// nothing is on its way to it), and hosts read and write it there from now on.
    fn serves_instead(&mut self, node: usize, other: usize, volume: usize) -> Check {
        let reign = self.nodes[node].reign.filter(|_| self.speaks_with(node, other));
        let fresh = |reign: &usize| self.nodes[other].volumes[volume].follows != Some(*reign);
        let Some(reign) = reign.filter(fresh) else {
            return Ok(());
        };
        self.serves(reign, other, volume);
        self.judge_in_step(reign, other, volume, true)
    }

    /// As a peer whose Primary has lost its image later: it follows, and its Primary may go on without it.
    fn serves(&mut self, reign: usize, other: usize, volume: usize) {
        let it = &mut self.nodes[other].volumes[volume];
        (it.follows, it.through, it.left_at) = (Some(reign), None, 0);
        self.left(self.reigns[reign].node, other, volume);
    }

    /// The reign on a node is over.
    pub fn reign_ends(&mut self, node: usize) {
        if let Some(reign) = self.nodes[node].reign.take() {
            self.trace(|| format!("reign {reign} of {node} ends"));
            self.reigns[reign].ended = self.truth.tick();
        }
    }

    /// What hosts of a node will read: its own image, or where its mirror sends reads.
    fn served_content(&self, node: usize, volume: usize) -> Disk {
        let it = &self.nodes[node].volumes[volume];
        let Some(mirror) = it.mirror.as_ref() else {
            return it.disk.clone();
        };
        if mirror.disk() == LocalDisk::UpToDate {
            return it.disk.clone();
        }
        let mut served = it.disk.clone();
        let layout = &self.plan.layouts[volume];
        for slot in 0..served.slots() {
            let range = layout.block_range(slot, it.size);
            if let ReadFrom::Peer(peer, _) = mirror.read_from(range) {
                let other = node_of(node, usize::from(peer.0));
                let theirs = &self.nodes[other].volumes[volume].disk;
                if slot < theirs.slots() {
                    served.write(slot, theirs.read(slot), 0, theirs.is_settled(slot));
                }
            }
        }
        served
    }

    /// Hosts may write on so many nodes.
    pub fn primaries(&self) -> usize {
        let serving = |node: &&crate::node::Node| node.access == HostAccess::ReadWrite;
        self.nodes.iter().filter(serving).count()
    }
}
