//! Telling the cores what happened, and doing what the mirrors say, as the daemon's data thread would.

use mirror_core::Mirror;
use mirror_core::event::{
    Command, DisconnectReason, Event as MirrorEvent, Failure, Input, Output, PeerIndex, Refusal, RequestId,
};
use mirror_core::resource::Resource;
use mirror_core::resource::event::Input as ResourceInput;
use mirror_core::stream::Request;

use crate::ask::{Payload, What};
use crate::net::id_of;
use crate::node::{PEERS, Said, micros};
use crate::operation::{Moving, Purpose, Work};
use crate::requests::{Asked, Origin};
use crate::view::View;
use crate::world::{Check, Event, World};

/// Things said because of one event at most.
const OBEYED_MAX: u64 = 20_000;

impl World {
    /// Tell a mirror; what it says is obeyed at the end of the turn.
    pub fn feed_mirror(&mut self, node: usize, volume: usize, input: Input) -> Check {
        let now = self.clock(node);
        self.trace(|| format!("{node}.{volume} -> {input:?}"));
        let owner = &mut self.nodes[node];
        let it = &mut owner.volumes[volume];
        let Some(mirror) = &mut it.mirror else { return Ok(()) };
        mirror.handle(now, input);
        self.collect(node, volume)
    }

    /// Take what a mirror says and plan its timeout.
    pub fn collect(&mut self, node: usize, volume: usize) -> Check {
        self.note_states(node, volume)?;
        let ahead = self.nodes[node].ahead_us;
        let owner = &mut self.nodes[node];
        let it = &mut owner.volumes[volume];
        let Some(mirror) = &mut it.mirror else { return Ok(()) };
        while let Some(output) = mirror.poll_output() {
            owner.said.push_back(Said::Mirror(volume, output, it.states));
        }
        let wanted = mirror
            .next_timeout()
            .map(|at| micros(at).saturating_sub(ahead).max(self.now));
        if wanted != it.timeout {
            it.timeout = wanted;
            if let Some(at) = wanted {
                self.at(at, Event::MirrorTimeout(node, volume, at));
            }
        }
        Ok(())
    }

    /// Tell the resource. Everything the mirrors have said before is done before.
    pub fn feed_resource(&mut self, node: usize, input: ResourceInput) -> Check {
        self.obey_all(node)?;
        let now = self.clock(node);
        self.trace(|| format!("{node} => {input:?}"));
        let ahead = self.nodes[node].ahead_us;
        let owner = &mut self.nodes[node];
        let Some(resource) = &mut owner.resource else {
            return Ok(());
        };
        resource.handle(now, input, &View(&owner.volumes));
        while let Some(output) = resource.poll_output() {
            owner.said.push_back(Said::Resource(output));
        }
        let wanted = resource.next_timeout();
        let wanted = wanted.map(|at| micros(at).saturating_sub(ahead).max(self.now));
        if wanted != owner.timeout {
            owner.timeout = wanted;
            if let Some(at) = wanted {
                self.at(at, Event::ResourceTimeout(node, at));
            }
        }
        Ok(())
    }

    /// The end of what an event caused on a node: do what was said now, or at the end of the shell's turn.
    pub fn settle(&mut self, node: usize) -> Check {
        if self.plan.turn_us == 0 {
            self.obey_all(node)?;
            self.tell_done(node);
            return Ok(());
        }
        if !self.nodes[node].turning {
            self.nodes[node].turning = true;
            let rest = self.rng.below(self.plan.turn_us);
            self.after(rest, Event::Turn(node, self.nodes[node].life));
        }
        Ok(())
    }

    /// A turn of a node's loop ends.
    pub fn turn(&mut self, node: usize, life: u32) -> Check {
        if self.nodes[node].life != life {
            return Ok(());
        }
        self.nodes[node].turning = false;
        self.obey_all(node)?;
        self.tell_done(node);
        Ok(())
    }

    fn obey_all(&mut self, node: usize) -> Check {
        let life = self.nodes[node].life;
        while self.nodes[node].life == life
            && let Some(said) = self.nodes[node].said.pop_front()
        {
            self.obeyed += 1;
            if self.obeyed > OBEYED_MAX {
                return Err(self.violation("endless", format!("{node} says {said:?} and so on without end")));
            }
            match said {
                Said::Mirror(volume, output, states) => {
                    self.trace(|| format!("{node}.{volume} <- {output:?}"));
                    self.obey(node, volume, output, states)?;
                }
                Said::Resource(output) => {
                    self.trace(|| format!("{node} <= {output:?}"));
                    self.decree(node, output)?;
                }
            }
        }
        Ok(())
    }

    /// The time a mirror named has come.
    pub fn mirror_timeout(&mut self, node: usize, volume: usize, at: u64) -> Check {
        let it = &mut self.nodes[node].volumes[volume];
        if it.timeout != Some(at) {
            return Ok(());
        }
        it.timeout = None;
        self.feed_mirror(node, volume, Input::Timeout)?;
        self.settle(node)
    }

    /// The time a resource named has come.
    pub fn resource_timeout(&mut self, node: usize, at: u64) -> Check {
        if self.nodes[node].timeout != Some(at) {
            return Ok(());
        }
        self.nodes[node].timeout = None;
        self.feed_resource(node, ResourceInput::Timeout)?;
        self.settle(node)
    }

    /// Do what a mirror says.
    fn obey(
        &mut self,
        node: usize,
        volume: usize,
        output: Output,
        states: [mirror_core::state::PeerState; PEERS],
    ) -> Check {
        match output {
            Output::Local { id, mutation } => self.local(node, volume, id, mutation),
            Output::LocalFlush => {
                let point = self.nodes[node].volumes[volume].disk.flush_point();
                self.start_operation(node, volume, Work::Flush(point));
                Ok(())
            }
            Output::Peer {
                peer,
                connection,
                id,
                mutation,
            } => match self.meant(node, peer, connection) {
                Some(peer) => self.ask_mutation(node, volume, peer, id, mutation),
                None => Ok(()),
            },
            Output::PeerFlush { peer, connection } => {
                self.say(node, volume, (peer, connection), Request::Flush, What::Flush)
            }
            Output::PeerBarrier { peer, connection } => {
                self.say(node, volume, (peer, connection), Request::Barrier, What::Word)
            }
            Output::ToPeer {
                peer,
                connection,
                message,
            } => {
                if let Some(peer) = self.meant(node, peer, connection) {
                    self.ask_message(node, volume, peer, message);
                }
                Ok(())
            }
            Output::Copy { .. } | Output::Fetch { .. } | Output::Compare { .. } => self.moves(node, volume, &output),
            Output::OrderDone { ticket, outcome } => self.order_done(node, volume, ticket, outcome),
            Output::Persist(transaction) => self.persist(node, volume, transaction),
            Output::Reply { id, outcome } => self.reply(node, volume, id, outcome, states),
            Output::Release(id) => self.release(node, volume, id),
            Output::Connect(peer) => {
                Err(self.violation("plain", format!("{node} connects {peer:?} as a plain server")))
            }
            Output::Disconnect {
                peer,
                connection,
                reason,
            } => self.mirror_disconnects(node, peer, connection, reason),
            Output::Event(event) => self.mirror_event(node, volume, &event),
        }
    }

    /// The peer, if the connection meant is the one in use.
    fn meant(&self, node: usize, peer: PeerIndex, connection: mirror_core::event::ConnectionId) -> Option<usize> {
        let peer = usize::from(peer.0);
        let conn = self.nodes[node].links[peer].conn?;
        (id_of(conn) == connection).then_some(peer)
    }

    fn say(
        &mut self,
        node: usize,
        volume: usize,
        to: (PeerIndex, mirror_core::event::ConnectionId),
        request: Request,
        what: What,
    ) -> Check {
        if let Some(peer) = self.meant(node, to.0, to.1) {
            self.ask_simple(node, volume, peer, request, Payload::Nothing, what);
        }
        Ok(())
    }

    /// A mirror moves or compares data: what is here is read first.
    fn moves(&mut self, node: usize, volume: usize, output: &Output) -> Check {
        let (Output::Copy {
            peer,
            connection,
            copy,
            range,
        }
        | Output::Fetch {
            peer,
            connection,
            copy,
            range,
        }
        | Output::Compare {
            peer,
            connection,
            copy,
            range,
        }) = *output
        else {
            return Ok(());
        };
        let Some(peer) = self.meant(node, peer, connection) else {
            return Ok(());
        };
        let moving = Moving {
            peer,
            connection,
            copy,
            range,
        };
        let purpose = match output {
            Output::Copy { .. } => Purpose::Copy(moving),
            Output::Fetch { .. } => Purpose::Fetch(moving),
            _ => Purpose::Compare(moving),
        };
        self.start_operation(node, volume, Work::Read { range, purpose });
        Ok(())
    }

    fn mirror_disconnects(
        &mut self,
        node: usize,
        peer: PeerIndex,
        connection: Option<mirror_core::event::ConnectionId>,
        reason: DisconnectReason,
    ) -> Check {
        let Some(peer) = connection.and_then(|connection| self.meant(node, peer, connection)) else {
            return Ok(());
        };
        if reason == DisconnectReason::PeerFailed(Failure::NoSpace) {
            self.feed_resource(node, ResourceInput::NoSpace(PeerIndex(peer as u8)))?;
        }
        self.lose(node, peer, false, "a mirror asked for it")
    }

    fn reply(
        &mut self,
        node: usize,
        volume: usize,
        id: RequestId,
        outcome: Result<(), Refusal>,
        states: [mirror_core::state::PeerState; PEERS],
    ) -> Check {
        let Some(request) = self.nodes[node].volumes[volume].requests.get_mut(id) else {
            return Err(self.violation("reply", format!("{id:?} is answered after its release")));
        };
        let abandoned = match &mut request.origin {
            Origin::Host { replied, abandoned, .. } => {
                if std::mem::replace(replied, true) {
                    return Err(self.violation("reply", format!("{id:?} is answered twice")));
                }
                *abandoned
            }
            _ => false,
        };
        match request.origin.clone() {
            Origin::Stream { peer, started, .. } => {
                let answer = outcome.err().map(|refusal| refused(started.sequence, refusal));
                self.finished(node, peer, started, answer)
            }
            Origin::Barrier { peer, connection } => {
                if outcome.is_err() {
                    return self.lose(node, peer, false, "a flush for a barrier failed");
                }
                self.nodes[node].links[peer].intake.flushed(connection, volume as u16);
                self.pump_intake(node, peer)
            }
            Origin::Host { asked, .. } => {
                self.hosts.unanswered[node] = self.hosts.unanswered[node].saturating_sub(u32::from(!abandoned));
                self.judge_reply(node, volume, asked, outcome, abandoned, states)?;
                self.drained(node)
            }
        }
    }

    fn release(&mut self, node: usize, volume: usize, id: RequestId) -> Check {
        let Some(request) = self.nodes[node].volumes[volume].requests.remove(id) else {
            return Err(self.violation("release", format!("{id:?} is released twice")));
        };
        if request.waits() {
            return Err(self.violation("release", format!("{id:?} is released without an answer")));
        }
        let uses = |work: &Work| matches!(work, Work::Mutate { id: used, .. } if *used == id);
        let mut operations = self.nodes[node].operations.values();
        if operations.any(|operation| operation.volume == volume && uses(&operation.work)) {
            return Err(self.violation("payload", format!("{id:?} is released while the image still needs it")));
        }
        if let Origin::Host {
            asked: Asked::Write { stamp, .. },
            abandoned: true,
            ..
        } = request.origin
        {
            self.truth.give_up(stamp);
        }
        self.release_held(node, volume, id);
        Ok(())
    }

    fn mirror_event(&mut self, node: usize, volume: usize, event: &MirrorEvent) -> Check {
        match *event {
            MirrorEvent::FellBehind { peer } => {
                self.tally.behind += 1;
                for other in (0..self.nodes[node].volumes.len()).filter(|&other| other != volume) {
                    self.feed_mirror(node, other, Input::Command(Command::FallBehind(peer)))?;
                }
            }
            MirrorEvent::Disk(disk) => {
                self.image_state(node, volume, disk);
                self.feed_resource(node, ResourceInput::Disk { volume, disk })?;
            }
            MirrorEvent::VolumeFailed(why) => {
                self.volume_failed(node, volume, why)?;
            }
            MirrorEvent::Stopped { .. } => self.volume_stopped(node, volume)?,
            MirrorEvent::PeerState { .. }
            | MirrorEvent::Degraded { .. }
            | MirrorEvent::ResyncStarted { .. }
            | MirrorEvent::ResyncFinished { .. } => {}
            #[allow(unreachable_patterns, reason = "events that only the log wants")]
            _ => {}
        }
        Ok(())
    }

    /// The cores of a node, with their sabotage.
    pub fn sabotage(&self, mirror: &mut Mirror) {
        mirror.set_sabotage(self.options.sabotage);
    }

    /// The same for a resource.
    pub fn sabotage_resource(&self, resource: &mut Resource) {
        resource.set_sabotage(self.options.sabotage);
    }
}

fn refused(sequence: u64, refusal: Refusal) -> (mirror_core::stream::Answer, Payload) {
    let failure = match refusal {
        Refusal::Local(failure) => failure,
        _ => Failure::Io,
    };
    (
        mirror_core::stream::Answer::Failed { sequence, failure },
        Payload::Nothing,
    )
}
