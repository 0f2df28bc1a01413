//! Regular meetings of connected nodes: a common mark in both metadata, so that one that is put back to an earlier
//! state later is recognised (see `identity::meeting`).

use core::time::Duration;

use super::config::MEETING_EVERY;
use super::event::{Output, Volumes};
use super::orders::Purpose;
use super::peer::{Lane, LaneStage, Link, Mark};
use super::{Resource, index};
use crate::event::{ConnectionId, Order, OrderRefusal};
use crate::identity::{Meeting, NextMeeting, Role, Verdict};
use crate::sabotage::Sabotage;
use crate::state::LocalDisk;
use crate::stream::Control;

impl Resource {
    /// When the next one is due, if this node begins it.
    pub(super) fn meeting_due(&self, peer: usize) -> Option<Duration> {
        let joined = self.peers[peer].joined()?;
        let mine = self.config.node < self.peers[peer].name;
        let up = joined.is_ready() && joined.lanes.iter().any(|lane| lane.stage == LaneStage::Up);
        (mine && up && joined.meet.under_way.is_none()).then_some(joined.meet.due)
    }

    /// Begin one that is due, or answer the other's. Whoever begins writes nothing down before the other has: by then that
    /// holds the mark before, which this node counts on, durably.
    pub(super) fn step_meeting(&mut self, peer: usize) {
        let due = self.meeting_due(peer).is_some_and(|due| due <= self.now);
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        if !joined.is_ready() || joined.meet.under_way.is_some() {
            return;
        }
        if let Some(salt) = joined.meet.asked.take() {
            return self.mark(peer, salt, true);
        }
        if !due {
            return;
        }
        let (connection, salt) = (joined.connection, self.rng.identifier());
        joined.meet.under_way = Some(Mark {
            salt,
            orders: 0,
            answered: false,
            asked: false,
        });
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control: Control::Meet { salt },
        });
    }

    /// The other has begun one. It has the present mark durably, and waits until this node has, too.
    pub(super) fn asked_to_meet(&mut self, peer: usize, salt: u64) {
        if let Link::Joined(joined) = &mut self.peers[peer].link {
            joined.meet.asked = Some(salt);
        }
        self.step_meeting(peer);
    }

    /// The other has it durably.
    pub(super) fn heard_met(&mut self, peer: usize, salt: u64) {
        let waits = self.peers[peer].joined().is_some_and(|joined| {
            let mark = joined.meet.under_way.as_ref();
            mark.is_some_and(|mark| mark.salt == salt && !mark.asked && !mark.answered)
        });
        if waits {
            self.mark(peer, salt, false);
        }
    }

    /// Write the next mark into the metadata of every volume that is up. `asked`: the other began, and is answered.
    fn mark(&mut self, peer: usize, salt: u64, asked: bool) {
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        let (connection, answers_lost) = (joined.connection, self.past.answers_lost);
        let up = joined.lanes.iter_mut().filter(|lane| lane.stage == LaneStage::Up);
        let marks: alloc::vec::Vec<(usize, Meeting, Meeting)> = up
            .map(|lane| {
                let (met, before) = lane.next_mark(salt);
                lane.met = NextMeeting { met, before };
                (lane.ruling.volume, met, before)
            })
            .collect();
        joined.meet.under_way = Some(Mark {
            salt,
            orders: marks.len(),
            answered: true,
            asked,
        });
        for (volume, met, before) in marks {
            let order = Order::Met {
                peer: index(peer),
                met,
                before,
                answers_lost,
            };
            self.order(volume, order, Purpose::Meeting { peer, connection });
        }
        self.end_meeting(peer);
    }

    /// A mark is durable in one volume.
    pub(super) fn meeting_order_done(
        &mut self,
        peer: usize,
        connection: ConnectionId,
        outcome: Result<(), OrderRefusal>,
    ) {
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        if joined.connection != connection {
            return;
        }
        if outcome.is_err() {
            // The mirror has failed or stops, which has consequences of its own.
            joined.meet.under_way = None;
            joined.meet.due = self.now + MEETING_EVERY;
            return;
        }
        if let Some(mark) = &mut joined.meet.under_way {
            mark.orders -= 1;
        }
        self.end_meeting(peer);
    }

    fn end_meeting(&mut self, peer: usize) {
        let now = self.now;
        let Link::Joined(joined) = &mut self.peers[peer].link else {
            return;
        };
        let Some(mark) = joined.meet.under_way.take_if(|mark| mark.orders == 0 && mark.answered) else {
            return;
        };
        joined.meet.due = now + MEETING_EVERY;
        let connection = joined.connection;
        if mark.asked {
            self.emit(Output::Send {
                peer: index(peer),
                connection,
                control: Control::Met { salt: mark.salt },
            });
        }
    }

    /// This node has got newer data since the two met: the Primary has said that the peer lacks it. Else the peer could
    /// become Primary with older data, and overwrite this node, which takes it to be in step.
    pub(super) fn fell_behind(&self, peer: usize, world: &dyn Volumes) -> bool {
        let Some(joined) = self.peers[peer].joined() else {
            return false;
        };
        let behind = |lane: &Lane| {
            let said = &joined.mine.volumes[lane.ruling.mine];
            let now = world.identity(lane.ruling.volume, index(peer));
            let had_all = said.for_peer == 0 || lane.was_in_step;
            lane.stage != LaneStage::Preparing && had_all && now.for_peer != 0
        };
        joined.lanes.iter().any(behind) && self.keeps(Sabotage::BehindMeetsAnew)
    }

    /// A copy with which the connection began may have ended.
    pub(super) fn note_in_step(&mut self, peer: usize, world: &dyn Volumes) {
        for at in 0..self.peers[peer].joined().map_or(0, |joined| joined.lanes.len()) {
            let lane = self.peers[peer].joined().map(|joined| &joined.lanes[at]);
            let settles =
                |lane: &Lane| !lane.was_in_step && lane.stage == LaneStage::Up && self.lane_in_step(peer, lane, world);
            if lane.is_some_and(settles)
                && let Some(joined) = self.peers[peer].joined_mut()
            {
                joined.lanes[at].was_in_step = true;
            }
        }
    }

    /// Blocks of the two have been marked here since they met, or since the copy ended with which that began, though neither
    /// lacks anything: those of a growth that this node led. Whoever was Secondary then has not copied them, and the Primary
    /// has not marked them.
    pub(super) fn has_marked(&self, peer: usize, world: &dyn Volumes) -> bool {
        let Some(joined) = self.peers[peer].joined() else {
            return false;
        };
        joined.lanes.iter().any(|lane| {
            let said = &joined.mine.volumes[lane.ruling.mine];
            let now = world.identity(lane.ruling.volume, index(peer));
            // The end of a copy, in either direction, forgets what was marked before. (Who is fetched from notes nothing of
            // the copy: the other's image tells.)
            let ended = match lane.ruling.decision.verdict {
                Verdict::Target { .. } => true,
                Verdict::Source { .. } => self.peers[peer].has_complete(&self.volumes[lane.ruling.volume].name),
                _ => false,
            };
            let copied = ended && now.sync == 0;
            let clean = copied || (said.disk == LocalDisk::UpToDate && said.dirty_bytes == 0);
            let marked = now.disk == LocalDisk::UpToDate && now.dirty_bytes > 0 && now.for_peer == 0;
            lane.stage == LaneStage::Up && clean && marked && !lane.grows_with_peer
        })
    }

    /// A growth begins that the peer leads, or (`None`) this node.
    pub(super) fn note_growth(&mut self, volume: usize, led_by: Option<usize>) {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let leads = led_by == Some(at) && peer.role == Role::Primary;
            if let Link::Joined(joined) = &mut peer.link {
                let mut lanes = joined.lanes.iter_mut();
                if let Some(lane) = lanes.find(|lane| lane.ruling.volume == volume) {
                    lane.grows_with_peer = leads;
                }
            }
        }
    }
}
