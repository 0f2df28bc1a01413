//! Doing what the mirror says, as the daemon's data thread would, and checking that it may be said.

use mirror_core::ByteRange;
use mirror_core::config::{OnDisconnect, RESYNC_WINDOW};
use mirror_core::event::{
    ConnectionId, CopyId, Event as MirrorEvent, HostOp, Input, Mutation, Output, Refusal, RequestId,
};
use mirror_core::range::BLOCK_BYTES;
use mirror_core::state::PeerState;

use crate::checker::Moment;
use crate::disk::Stamp;
use crate::host::{Asked, Request, choose};
use crate::legs::{Leg, Operation, Work};
use crate::outcome::Violation;
use crate::world::{Check, Event, Phase, World};

impl World {
    /// The host's next request.
    pub fn host_request(&mut self) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        let plan = self.scenario.host.clone();
        let mut pause = self.rng.between(1, plan.pause_us);
        if self.primary.mirror.is_some() && self.host.unanswered() < plan.depth {
            let op = choose(&mut self.rng, &plan, &self.scenario.layout, self.scenario.hot_extents);
            let connection = self.rng.index(plan.connections);
            self.submit(connection, op)?;
        } else {
            pause += 100;
        }
        if self.host.submitted < plan.requests {
            self.after(pause, Event::HostRequest);
        }
        Ok(())
    }

    /// One request of the host.
    pub fn submit(&mut self, connection: usize, op: HostOp) -> Check {
        let id = self.host.free_id();
        let asked = match op {
            HostOp::Flush => Asked::Flush(self.checker.now()),
            HostOp::Mutate(mutation) => {
                let runs = self.scenario.layout.runs(mutation.range);
                Asked::Write {
                    stamp: self.checker.submit(runs),
                    fua: mutation.fua,
                }
            }
        };
        self.host.submitted += 1;
        self.host.requests.insert(
            id.0,
            Request {
                connection,
                asked,
                replied: false,
                abandoned: false,
            },
        );
        self.feed(Input::Host { id, op })
    }

    /// A host connection dies with everything on it.
    pub fn host_gone(&mut self, connection: usize) -> Check {
        for id in self.host.of_connection(connection) {
            let Some(request) = self.host.requests.get_mut(&id.0) else {
                continue;
            };
            if !request.replied && !request.abandoned {
                request.abandoned = true;
                if let Asked::Write { stamp, .. } = request.asked {
                    self.checker.give_up(stamp);
                }
                self.tally.abandoned += 1;
            }
            self.feed(Input::Abandon(id))?;
        }
        Ok(())
    }

    /// Do what the mirror says.
    pub fn obey(&mut self, output: Output) -> Check {
        self.digest.mix_output(&output);
        match output {
            Output::Local { id, mutation } => self.begin_mutation(Leg::Local, id, mutation),
            Output::LocalFlush => self.begin_flush(Leg::Local),
            Output::Peer {
                peer,
                connection,
                id,
                mutation,
            } => {
                let at = usize::from(peer.0);
                if !self.is_live(at, connection)? {
                    return Ok(());
                }
                self.check_order_of_flushes(at, id)?;
                self.begin_mutation(Leg::Peer(at, connection), id, mutation)
            }
            Output::PeerFlush { peer, connection } => {
                let at = usize::from(peer.0);
                if self.is_live(at, connection)? {
                    self.begin_flush(Leg::Peer(at, connection))
                } else {
                    Ok(())
                }
            }
            Output::Copy {
                peer,
                connection,
                copy,
                range,
            } => {
                let at = usize::from(peer.0);
                if self.is_live(at, connection)? {
                    self.begin_copy(at, connection, copy, range)
                } else {
                    Ok(())
                }
            }
            Output::PeerBarrier { .. }
            | Output::Fetch { .. }
            | Output::Compare { .. }
            | Output::ToPeer { .. }
            | Output::OrderDone { .. } => Err(self.violation("stream", format!("{output:?} for a plain peer"))),
            Output::Persist(transaction) => self.persist(transaction),
            Output::Reply { id, outcome } => self.reply(id, outcome),
            Output::Release(id) => self.release(id),
            Output::Connect(peer) => {
                self.connect(usize::from(peer.0));
                Ok(())
            }
            Output::Disconnect { peer, connection, .. } => {
                let at = usize::from(peer.0);
                self.stop_connecting(at);
                if connection.is_some() && self.peers[at].link.connection == connection.map(|it| it.0) {
                    self.close(at);
                }
                Ok(())
            }
            Output::Event(event) => self.mirror_event(&event),
        }
    }

    fn begin_mutation(&mut self, leg: Leg, id: RequestId, mutation: Mutation) -> Check {
        let Some(request) = self.host.requests.get(&id.0) else {
            return Err(self.violation("payload", format!("{id:?} is sent to {leg:?} after its release")));
        };
        let Asked::Write { stamp, .. } = request.asked else {
            return Err(self.violation("payload", format!("{id:?} is a flush, not a mutation")));
        };
        if leg == Leg::Local {
            self.allow_resync(mutation.range);
        }
        let runs = self.checker.runs(stamp).to_vec();
        self.start(
            leg,
            Work::Mutation {
                id,
                stamp,
                mutation,
                runs,
            },
        );
        Ok(())
    }

    /// These blocks may become dirty, perhaps again: resync may copy them once more.
    pub fn allow_resync(&mut self, range: ByteRange) {
        let blocks = range.blocks();
        for (_, dirty) in self.peers.iter_mut().filter_map(|peer| peer.resync.as_mut()) {
            *dirty += (blocks.end - blocks.start) * BLOCK_BYTES;
        }
    }

    fn begin_flush(&mut self, leg: Leg) -> Check {
        let twice = |operation: &Operation| {
            operation.leg == leg && !operation.orphan && matches!(operation.work, Work::Flush(_))
        };
        if self.operations.values().any(twice) {
            return Err(self.violation("I8", format!("two flushes of {leg:?} are in flight together")));
        }
        let point = match leg {
            Leg::Local => self.local.flush_point(),
            Leg::Peer(peer, _) => self.peers[peer].disk.flush_point(),
        };
        self.start(leg, Work::Flush(point));
        Ok(())
    }

    fn begin_copy(&mut self, peer: usize, connection: ConnectionId, copy: CopyId, range: ByteRange) -> Check {
        let is_copy = |operation: &&Operation| {
            operation.is_of_peer(peer) && !operation.orphan && matches!(operation.work, Work::Copy { .. })
        };
        if self.operations.values().filter(is_copy).count() >= RESYNC_WINDOW {
            return Err(self.violation("I8", "too many resync requests in flight"));
        }
        if let Some((copied, dirty)) = &mut self.peers[peer].resync {
            *copied += range.length;
            if *copied > *dirty && !self.peers[peer].invalidated {
                return Err(self.violation("resync copies too much", format!("peer {peer}: more than was dirty")));
            }
        }
        self.start(
            Leg::Peer(peer, connection),
            Work::Copy {
                copy,
                range,
                content: None,
                local_failure: None,
            },
        );
        Ok(())
    }

    /// The connection is still there. One that went in the turn in which the mirror named it is skipped; without turns
    /// the mirror must never name one that is gone.
    fn is_live(&self, peer: usize, connection: ConnectionId) -> Result<bool, Violation> {
        let live = self.peers[peer].link.connection == Some(connection.0);
        if live || self.scenario.turn_us > 0 {
            return Ok(live);
        }
        Err(self.violation(
            "connection",
            format!("peer {peer} is sent something on {connection:?}, which is gone"),
        ))
    }

    /// `async`: nothing is sent before everything is durable on the peer that was durable here, by a flush or by forced
    /// unit access, when it was submitted: the peer never holds what no crash of this node could have left.
    fn check_order_of_flushes(&mut self, peer: usize, id: RequestId) -> Check {
        let Some(Asked::Write { stamp, .. }) = self.host.requests.get(&id.0).map(|request| request.asked) else {
            return Ok(());
        };
        let since = self.checker.submitted(stamp);
        let latest = &mut self.peers[peer].latest_sent;
        *latest = (*latest).max(Some(since));
        if self.primary.said_in[peer] != PeerState::Established {
            return Ok(());
        }
        self.judge_order_of_flushes(peer, since)
    }

    /// `async`: what was durable here before `since` is durable on the peer.
    pub fn judge_order_of_flushes(&mut self, peer: usize, since: Moment) -> Check {
        let behind = self.peers[peer]
            .flushed
            .partition_point(|&(_, answered)| answered < since);
        for (flushed, _) in self.peers[peer].flushed.drain(..behind).collect::<Vec<(Stamp, _)>>() {
            self.checker
                .is_durable_on(&self.peers[peer].disk, flushed)
                .map_err(|text| {
                    self.violation(
                        "async order",
                        format!("peer {peer} holds or is sent something too early: {text}"),
                    )
                })?;
        }
        Ok(())
    }

    fn reply(&mut self, id: RequestId, outcome: Result<(), Refusal>) -> Check {
        let Some(request) = self.host.requests.get_mut(&id.0) else {
            return Err(self.violation("reply", format!("{id:?} is answered after its release")));
        };
        if std::mem::replace(&mut request.replied, true) {
            return Err(self.violation("reply", format!("{id:?} is answered twice")));
        }
        let request = request.clone();
        if let Err(refusal) = outcome {
            self.tally.refusals += 1;
            if let Asked::Write { stamp, .. } = request.asked {
                self.checker.give_up(stamp);
            }
            return self.judge_refusal(refusal);
        }
        match request.asked {
            // Nobody hears the answer of an abandoned request.
            _ if request.abandoned => Ok(()),
            Asked::Write { stamp, fua } => self.judge_write(stamp, fua),
            Asked::Flush(since) => self.judge_flush(since),
        }
    }

    fn release(&mut self, id: RequestId) -> Check {
        let Some(request) = self.host.requests.remove(&id.0) else {
            return Err(self.violation("release", format!("{id:?} is released twice")));
        };
        if !request.replied && !request.abandoned {
            return Err(self.violation("release", format!("{id:?} is released without an answer")));
        }
        let uses = |operation: &Operation| {
            !operation.orphan && matches!(operation.work, Work::Mutation { id: used, .. } if used == id)
        };
        if self.operations.values().any(uses) {
            return Err(self.violation("payload", format!("{id:?} is released while a leg still has it")));
        }
        Ok(())
    }

    fn judge_refusal(&mut self, refusal: Refusal) -> Check {
        let caused = match refusal {
            Refusal::Local(_) => self.tally_has_local_failures(),
            Refusal::PeerGone(peer) => match self.peers[usize::from(peer.0)].plan.on_disconnect {
                OnDisconnect::Continue => false,
                // A stop ends every wait.
                OnDisconnect::Suspend => self.primary.stopping,
                OnDisconnect::Fail => true,
            },
            Refusal::VolumeFailed => self.primary.broken,
            Refusal::Stopping => self.primary.stopping,
        };
        if caused {
            Ok(())
        } else {
            Err(self.violation("refusal", format!("{refusal:?} has no cause")))
        }
    }

    fn tally_has_local_failures(&self) -> bool {
        let local = |fault: &(u64, crate::faults::Fault)| matches!(fault.1, crate::faults::Fault::LocalFails(_));
        self.scenario.faults.iter().any(local)
    }

    fn mirror_event(&mut self, event: &MirrorEvent) -> Check {
        match *event {
            MirrorEvent::ResyncStarted { peer, dirty } => self.peers[usize::from(peer.0)].resync = Some((0, dirty)),
            MirrorEvent::ResyncFinished { .. } => self.tally.resyncs += 1,
            MirrorEvent::FellBehind { .. } => self.tally.behind += 1,
            MirrorEvent::VolumeFailed(_) => {
                // An operator looks at it and starts it again; what the failed flush left in the cache may be lost.
                let delay = self.rng.between(100, 5_000);
                self.after(
                    delay,
                    Event::Strike(crate::faults::Fault::PrimaryPower {
                        down_us: 500,
                        all: false,
                    }),
                );
            }
            MirrorEvent::Stopped { .. } => {
                self.judge_stopped()?;
                self.after(1, Event::Strike(crate::faults::Fault::PrimaryKilled { down_us: 500 }));
            }
            MirrorEvent::PeerState { .. }
            | MirrorEvent::Degraded { .. }
            | MirrorEvent::Different { .. }
            | MirrorEvent::VerifyFinished { .. }
            | MirrorEvent::Disk(_) => {}
        }
        Ok(())
    }
}
