//! After a handshake: each volume's part of the connection is prepared, and its mirror told that the peer is up.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::commands::taken_back;
use super::event::{Event, Output, Volumes};
use super::loss::is_given_up;
use super::orders::Purpose;
use super::park::{park_beside_waiting, waits_for_primary};
use super::peer::{Comparing, Joined, Lane, LaneStage, Link, Meet, Ruling};
use super::{Resource, index};
use crate::event::{ConnectionId, Order, OrderRefusal, SyncPlan};
use crate::identity::{Newer, NodeIdentity, Role, Verdict};
use crate::sabotage::Sabotage;
use crate::state::LocalDisk;

impl Resource {
    /// Both have agreed.
    pub(super) fn join(&mut self, peer: usize) {
        if self.finds_answers_lost(peer) {
            return self.close(peer, "answered writes may be nowhere any more: decide again");
        }
        let Some(Comparing {
            connection,
            said: Some(mine),
            heard: Some(theirs),
            rulings: Some(rulings),
            ..
        }) = self.take_comparing(peer)
        else {
            unreachable!("the verdicts have just been compared")
        };
        let mut lanes: Vec<Lane> = rulings.into_iter().map(|ruling| lane(ruling, &mine, &theirs)).collect();
        let words: Vec<String> = lanes.iter().map(|lane| lane_in_words(lane, &mine)).collect();
        let text = words.join("; ");
        if let Some(record) = &mut self.peers[peer].record {
            record.outcome.clone_from(&text);
        }
        self.event(Event::Decided {
            peer: index(peer),
            text,
        });
        self.past.answers_lost |= self.answers_are_lost(&lanes, &mine, &theirs);
        let newer = |lane: &Lane| lane.ruling.decision.newer == Newer::Theirs;
        if self.role == Role::Secondary && lanes.iter().any(newer) {
            // Somebody was Primary since this node was, or its own data is gone with its metadata.
            self.past.mine = false;
            self.past.take_back = None;
            self.past.sure &= self.past.last_primary == Some(peer) && theirs.role == Role::Primary;
            self.past.left_in_order = false;
            if theirs.role != Role::Primary && self.partners().count() > 1 {
                // It has them from a Primary that may not be the one this node knew, and may still be one.
                self.past.last_primary = None;
            }
        }
        self.joins_primary(peer, theirs.role);
        park_beside_waiting(&mut lanes, &mine, &theirs);
        self.note_unfetched(peer, &lanes, &mine, &theirs);
        self.peers[peer].split_brain = None;
        self.give_up_others(peer, &lanes);
        for lane in &mut lanes {
            lane.orders = self.prepare(peer, connection, lane, &mine, &theirs);
        }
        self.peers[peer].link = Link::Joined(Joined {
            connection,
            progress: self.now,
            mine,
            theirs,
            lanes,
            word_done: false,
            meet: Meet {
                // What is put back to before this connection has forgotten two, however short it is.
                due: self.now,
                under_way: None,
                asked: None,
            },
        });
    }

    /// What this node agreed with others on the volumes that are about to be overwritten does not hold any more: it is
    /// nobody's source, and in step with nobody.
    fn give_up_others(&mut self, peer: usize, lanes: &[Lane]) {
        let replaced = |volume: usize| {
            lanes.iter().any(|lane| {
                let target = matches!(lane.ruling.decision.verdict, Verdict::Target { .. });
                target && lane.ruling.volume == volume && lane.stage != LaneStage::Parked
            })
        };
        let mut concerned = Vec::new();
        for other in (0..self.peers.len()).filter(|other| *other != peer) {
            let joined = self.peers[other].joined().into_iter().flat_map(|joined| &joined.lanes);
            let mut used = joined.filter(|lane| lane.stage != LaneStage::Parked);
            if used.any(|lane| replaced(lane.ruling.volume)) {
                concerned.push(other);
            }
        }
        for other in concerned {
            self.close(other, "the data of this node is about to be replaced: decide again");
        }
    }

    /// Orders to the mirror before the peer is up; their number.
    fn prepare(
        &mut self,
        peer: usize,
        connection: ConnectionId,
        lane: &Lane,
        mine: &NodeIdentity,
        theirs: &NodeIdentity,
    ) -> usize {
        let volume = lane.ruling.volume;
        let orders = self.orders_of(lane, mine, theirs, peer);
        let count = orders.len();
        for order in orders {
            if matches!(order, Order::BeginTarget { .. })
                && is_given_up(&lane.ruling)
                && self.keeps(Sabotage::BranchBeforeOverwrite)
            {
                self.emit(Output::OpenBranch {
                    volume,
                    generation: mine.volumes[lane.ruling.mine].current,
                });
            }
            self.order(volume, order, Purpose::Lane { peer, connection });
        }
        count
    }

    /// What has to be durable before the peer is up.
    fn orders_of(&self, lane: &Lane, mine: &NodeIdentity, theirs: &NodeIdentity, peer: usize) -> Vec<Order> {
        if lane.stage == LaneStage::Parked {
            return Vec::new();
        }
        let fill = |at: usize| Order::Fill { peer: index(at) };
        let mut orders = Vec::from([Order::Met {
            peer: index(peer),
            met: lane.met.met,
            before: lane.met.before,
            answers_lost: self.past.answers_lost,
        }]);
        let others: Vec<usize> = self.partners().filter(|at| *at != peer).collect();
        if theirs.role == Role::Primary && mine.role == Role::Secondary {
            // What is here is not for long what an operator has given up for another node.
            orders.extend(others.iter().map(|&at| taken_back(at)));
        }
        match lane.ruling.decision.verdict {
            Verdict::Target { .. } if mine.role == Role::Secondary => {
                orders.push(Order::BeginTarget { source: index(peer) });
                // A Primary brings the others up to date as well. A copy from a Secondary does not tell how this node
                // differs from them afterwards.
                if theirs.role == Role::Secondary {
                    orders.extend(others.into_iter().map(fill));
                }
            }
            // The Primary keeps the bits of what has to be copied, whichever way; of two Secondaries the source.
            Verdict::Target { full: true } => orders.push(fill(peer)),
            // What a third node wrote here as Primary is in none of this node's bits.
            Verdict::Source { full } if theirs.role == Role::Secondary && (full || !self.bits_tell(peer)) => {
                orders.push(fill(peer));
            }
            _ => {}
        }
        orders
    }

    /// An order for a lane is done.
    pub(super) fn lane_order_done(
        &mut self,
        peer: usize,
        connection: ConnectionId,
        volume: usize,
        outcome: Result<(), OrderRefusal>,
    ) {
        self.progress(peer);
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        if joined.connection != connection {
            return;
        }
        if let Some(lane) = joined.lanes.iter_mut().find(|lane| lane.ruling.volume == volume) {
            lane.orders -= 1;
        }
        if let Err(refusal) = outcome {
            let name = &self.volumes[volume].name;
            let text = format!("volume {name} could not be prepared: {refusal:?}");
            if refusal == OrderRefusal::Closed {
                // The mirror stops, or has failed: the next try would end in the same way.
                self.say_goodbye(peer, false, text);
            } else {
                self.close(peer, &text);
            }
        }
    }

    /// What is ready goes up; what was parked may not have to be any more.
    pub(super) fn step_join(&mut self, peer: usize, world: &dyn Volumes) {
        let lanes = self.peers[peer].joined().map_or(0, |joined| joined.lanes.len());
        for at in 0..lanes {
            self.tell_bits(peer, at, world);
            self.lane_up(peer, at);
        }
        self.step_meeting(peer);
        let copied = self.live_volumes().any(|volume| self.is_target_of(peer, volume));
        if !copied && self.peers[peer].joined().is_some_and(Joined::is_ready) {
            // The word was for this copy, however often it was interrupted; not for another occasion.
            if self.has_word(peer, world) {
                self.forget_word_once(peer);
            }
            let parked = |lane: &Lane| lane.stage == LaneStage::Parked;
            let missing = self.peers[peer]
                .joined()
                .is_some_and(|joined| joined.lanes.iter().any(parked));
            self.peers[peer].newer &= missing;
            if !missing {
                self.peers[peer].unfetched.clear();
            }
        }
        let rests = self.now < self.peers[peer].rests_until;
        if self.peers[peer].no_space && !rests && self.is_in_step(peer, world) {
            self.peers[peer].no_space = false;
        }
        if let Some(reason) = self.why_decide_anew(peer, world) {
            self.close(peer, reason);
        }
    }

    /// Everything is ready: the mirror is told.
    fn lane_up(&mut self, peer: usize, at: usize) {
        let Some((joined, lane)) = self.prepared(peer, at) else {
            return;
        };
        let merged = !lane.wants_bits || !self.keeps(Sabotage::MergeBeforeUp);
        if lane.tells_bits || !merged {
            return;
        }
        let plan = match lane.ruling.decision.verdict {
            Verdict::Target { .. } => SyncPlan::Target,
            Verdict::Source { .. } if joined.theirs.role == Role::Primary => SyncPlan::Fetched,
            Verdict::Source { .. } => SyncPlan::Source,
            _ => SyncPlan::InStep,
        };
        let (connection, volume) = (joined.connection, lane.ruling.volume);
        if let Link::Joined(joined) = &mut self.peers[peer].link {
            joined.lanes[at].stage = LaneStage::Up;
        }
        self.emit(Output::PeerUp {
            volume,
            peer: index(peer),
            connection,
            plan,
        });
    }

    /// What was agreed on this connection does not hold any more: the nodes have to meet anew.
    fn why_decide_anew(&self, peer: usize, world: &dyn Volumes) -> Option<&'static str> {
        if self.is_giving_orders() {
            return None;
        }
        if self.sizes_differ(peer, world) {
            return Some("a volume has another size on the one than on the other: decide again");
        }
        let joined = self.peers[peer].joined()?;
        let other = self.peers[peer].role;
        let parked = joined.lanes.iter().any(|lane| lane.stage == LaneStage::Parked);
        if parked && (self.role != joined.mine.role || other != joined.theirs.role) {
            return Some("a role has changed: decide again");
        }
        for lane in joined.lanes.iter().filter(|lane| lane.stage == LaneStage::Parked) {
            let mine = &joined.mine.volumes[lane.ruling.mine];
            let theirs = &joined.theirs.volumes[lane.ruling.theirs];
            let now = world.identity(lane.ruling.volume, index(peer));
            let their_disk = self.peers[peer].disks.iter().find(|(name, _)| *name == theirs.name);
            let changed = now.disk != mine.disk
                || now.fresh != mine.fresh
                || their_disk.is_some_and(|(_, disk)| *disk != theirs.disk);
            if changed {
                return Some("an image has changed: decide again");
            }
        }
        if self.role == Role::Secondary && other == Role::Secondary && self.fell_behind(peer, world) {
            return Some("the other node has fallen behind: decide again");
        }
        if self.role == Role::Secondary && other == Role::Primary && self.has_marked(peer, world) {
            return Some("blocks are marked here that the Primary does not know of: decide again");
        }
        // A Primary has come: what it brings and what this copy brings must not mix.
        let both_secondary = self.role == Role::Secondary && other == Role::Secondary;
        let copies = both_secondary
            && joined
                .lanes
                .iter()
                .any(|lane| is_copied(lane) && !self.lane_in_step(peer, lane, world));
        let primary = self
            .partners()
            .any(|at| at != peer && self.peers[at].is_connected_primary());
        (copies && primary).then_some("a Primary is connected: it copies, not two Secondaries")
    }

    /// A copy of the volume from the peer has begun and not ended.
    pub(super) fn is_target_of(&self, peer: usize, volume: usize) -> bool {
        self.target_lane(peer, volume)
            .is_some_and(|lane| lane.stage == LaneStage::Preparing || self.volumes[volume].disk != LocalDisk::UpToDate)
    }

    /// The volume is, or was, copied from the peer on this connection.
    pub(super) fn target_lane(&self, peer: usize, volume: usize) -> Option<&Lane> {
        let lanes = self.peers[peer].joined().into_iter().flat_map(|joined| &joined.lanes);
        let mut targets = lanes.filter(|lane| {
            let target = matches!(lane.ruling.decision.verdict, Verdict::Target { .. });
            target && lane.ruling.volume == volume && lane.stage != LaneStage::Parked
        });
        targets.next()
    }

    /// As far as is known here, the peer has all that is here, in every volume, and the other way.
    pub(super) fn is_in_step(&self, peer: usize, world: &dyn Volumes) -> bool {
        let Some(joined) = self.peers[peer].joined() else {
            return false;
        };
        self.live_volumes().all(|volume| {
            let lane = joined.lanes.iter().find(|lane| lane.ruling.volume == volume);
            lane.is_some_and(|lane| lane.stage == LaneStage::Up && self.lane_in_step(peer, lane, world))
        })
    }

    pub(super) fn lane_in_step(&self, peer: usize, lane: &Lane, world: &dyn Volumes) -> bool {
        let volume = &self.volumes[lane.ruling.volume];
        let mine = world.identity(lane.ruling.volume, index(peer));
        mine.for_peer == 0
            && mine.dirty_bytes == 0
            && mine.disk == LocalDisk::UpToDate
            && self.peers[peer].has_complete(&volume.name)
    }
}

/// The other side's copy, or this side's, is (or was) made on this connection.
fn is_copied(lane: &Lane) -> bool {
    matches!(
        lane.ruling.decision.verdict,
        Verdict::Source { .. } | Verdict::Target { .. }
    ) && lane.stage != LaneStage::Parked
}

/// A volume's part of a new connection.
fn lane(ruling: Ruling, mine: &NodeIdentity, theirs: &NodeIdentity) -> Lane {
    let (ours, other) = (&mine.volumes[ruling.mine], &theirs.volumes[ruling.theirs]);
    let diskless = |disk, role| disk == LocalDisk::Diskless && role == Role::Secondary;
    let parked = match ruling.decision.verdict {
        Verdict::FreshBoth | Verdict::NoSource => true,
        _ if waits_for_primary(&ruling, mine, theirs) => true,
        Verdict::Source { .. } => diskless(other.disk, theirs.role),
        Verdict::Target { .. } => diskless(ours.disk, mine.role),
        _ => diskless(ours.disk, mine.role) || diskless(other.disk, theirs.role),
    };
    // The Primary merges; of two Secondaries the source does.
    let (tells_bits, wants_bits) = match ruling.decision.verdict {
        Verdict::Source { .. } if theirs.role == Role::Primary => (true, false),
        Verdict::Source { .. } => (false, true),
        Verdict::Target { .. } if mine.role == Role::Primary => (false, true),
        Verdict::Target { .. } => (true, false),
        _ => (false, false),
    };
    let stage = if parked {
        LaneStage::Parked
    } else {
        LaneStage::Preparing
    };
    let met = ruling.next;
    Lane {
        ruling,
        stage,
        orders: 0,
        tells_bits: tells_bits && !parked,
        wants_bits: wants_bits && !parked,
        met,
        grows_with_peer: false,
        was_in_step: false,
    }
}

fn lane_in_words(lane: &Lane, mine: &NodeIdentity) -> String {
    let name = &mine.volumes[lane.ruling.mine].name;
    let rule = lane.ruling.decision.rule.name();
    let parked = if lane.stage == LaneStage::Parked {
        ", nothing can be copied for now"
    } else {
        ""
    };
    format!(
        "volume {name}: {:?} by rule {rule}{parked}",
        lane.ruling.decision.verdict
    )
}
