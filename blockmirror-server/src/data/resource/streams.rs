//! Streams that live: what comes on them, and how they end.

use std::io;

use mirror_core::event::{ConnectionId, Failure, PeerIndex};
use mirror_core::resource::event::Input;
use mirror_core::stream::Control;

use super::partner::named_by;
use crate::data::stream::{StreamEvent, StreamLost, StreamReply};
use crate::data::thread::DataThread;
use crate::data::token::{Kind, Token};
use crate::data::volume::{Ended, Outward, StreamOrigin, Streamed};
use crate::ring::Op;

/// What may wait behind a word to the core, at most: everything a peer has credit for, and the bits of every volume.
const EVENTS_MAX: usize = 1 << 16;

impl DataThread {
    /// An operation of a stream came back. False: a send that went well, which nobody has to be told of.
    pub(in crate::data) fn on_stream(&mut self, token: Token, result: io::Result<usize>, op: Op) -> bool {
        let (index, connection) = named_by(token);
        let Some(partner) = self.resources.get_mut(token.index).and_then(|side| side.partner(index)) else {
            return false;
        };
        let is_send = token.kind == Kind::StreamSend;
        let outcome = if is_send {
            partner.port.on_sent(&mut self.turn, connection, result, op)
        } else {
            partner.port.on_received(&self.turn, connection, result, op)
        };
        let went_well = outcome.is_ok();
        if let Err(lost) = outcome {
            partner.lost.get_or_insert(lost);
        }
        !(is_send && went_well)
    }

    /// Heartbeats and silence.
    pub(in crate::data) fn check_streams(&mut self) {
        for at in 0..self.resources.len() {
            for peer in 0..self.resources[at].partners.len() {
                let partner = &mut self.resources[at].partners[peer];
                if partner.port.next_timeout().is_none_or(|due| due > self.turn.now) {
                    continue;
                }
                if let Err(lost) = partner.port.check_time(&self.turn) {
                    partner.lost.get_or_insert(lost);
                }
            }
        }
    }

    /// Send what the streams have queued.
    pub(in crate::data) fn flush_streams(&mut self) {
        for partner in self.resources.iter_mut().flat_map(|side| &mut side.partners) {
            partner.port.flush(&mut self.turn);
        }
    }

    /// Hand on what has come on the stream to a peer, up to the first word to the core: what is behind it waits until the
    /// core has heard it, for it may be about what the core does then. False: nothing.
    pub(super) fn take_events(&mut self, at: usize, index: PeerIndex) -> bool {
        if !self.resources[at].inbox.is_empty() {
            return false;
        }
        let Some(partner) = self.resources[at].partner(index) else {
            return false;
        };
        let Some(connection) = partner.port.connection() else {
            return false;
        };
        let mut events = std::mem::take(&mut self.stream_events);
        partner.port.take_events(&mut events);
        let lost = partner.lost.take_if(|_| events.is_empty());
        let any = !events.is_empty() || lost.is_some();
        let word = events.iter().position(|event| matches!(event, StreamEvent::Control(_)));
        let mut rest = match word {
            Some(word) if word + 1 < events.len() => events.split_off(word + 1),
            _ => Vec::new(),
        };
        let too_many = rest.len() > EVENTS_MAX;
        if !rest.is_empty() {
            partner.port.put_back(&mut rest);
        }
        for event in events.drain(..) {
            self.on_event(at, index, connection, event);
        }
        self.stream_events = events;
        if let Some(lost) = lost {
            self.lose_stream(at, index, &lost);
        } else if too_many {
            let reason = "the peer says more than can be listened to".to_owned();
            self.lose_stream(at, index, &StreamLost::Protocol(reason));
        }
        any
    }

    fn on_event(&mut self, at: usize, peer: PeerIndex, connection: ConnectionId, event: StreamEvent) {
        let present = self.resources[at].partner(peer).and_then(|p| p.port.connection());
        if present != Some(connection) {
            // An event before this one has ended it.
            if let StreamEvent::Request { started, .. } = event {
                self.answer_stream(at, StreamOrigin { peer, started }, StreamReply::Failed(Failure::Io));
            }
            return;
        }
        match event {
            StreamEvent::Request {
                started,
                volume,
                request,
                payload,
            } => {
                let origin = StreamOrigin { peer, started };
                match self.streamed_volume(at, peer, volume) {
                    Some(volume) => self.volumes[volume].start_streamed(&mut self.turn, origin, request, payload),
                    None => {
                        self.answer_stream(at, origin, StreamReply::Failed(Failure::Io));
                        self.lose_unnumbered(at, peer);
                    }
                }
            }
            StreamEvent::FlushVolume { connection, volume } => {
                match self.streamed_volume(at, peer, volume) {
                    Some(volume) => self.volumes[volume].end_epoch(&mut self.turn, peer, connection),
                    // Nothing was written to a volume that is not there.
                    None => self.epoch_flushed(at, peer, connection, volume, Ok(())),
                }
            }
            StreamEvent::Answered { volume, work, outcome } => {
                match self.streamed_volume(at, peer, volume) {
                    Some(volume) => {
                        self.volumes[volume].on_answer(&mut self.turn, (peer, connection), work, outcome);
                    }
                    // Whoever has asked would wait for ever.
                    None => self.lose_unnumbered(at, peer),
                }
            }
            StreamEvent::Control(Control::Identity(identity))
                if self.resources[at]
                    .partner(peer)
                    .is_some_and(|partner| !partner.numbering.is_theirs(&identity)) =>
            {
                let reason = "the peer names other volumes than when the connection was made".to_owned();
                self.lose_stream(at, peer, &StreamLost::Protocol(reason));
            }
            StreamEvent::Control(control) => self.resources[at].inbox.push_back(Input::Control {
                peer,
                connection,
                control,
            }),
        }
    }

    /// Something is about a volume that has no number on the stream, or is served no longer. While we close it that is no
    /// wonder.
    fn lose_unnumbered(&mut self, at: usize, peer: PeerIndex) {
        if self.resources[at].partner(peer).is_some_and(|partner| !partner.closing) {
            let reason = "the two nodes do not number the volumes alike".to_owned();
            self.lose_stream(at, peer, &StreamLost::Protocol(reason));
        }
    }

    /// The stream to a peer has ended, or is given up.
    pub(super) fn lose_stream(&mut self, at: usize, index: PeerIndex, lost: &StreamLost) {
        let side = &mut self.resources[at];
        let Some(partner) = side.partner(index) else { return };
        let since = partner.port.since();
        // A live Primary that gives a silent connection up resets it as well.
        let closed_by_peer = matches!(lost, StreamLost::Closed(_)) && partner.port.is_heard(self.turn.now);
        let Some(remains) = partner.port.lose() else { return };
        // What the core has closed itself it has done with.
        let told = partner.told && !partner.closing;
        partner.ended(&self.turn, since, lost.reason());
        let peer = partner.plan.name.clone();
        let (resource, reason) = (&side.name, lost.reason());
        match lost {
            StreamLost::Damaged(_) => tracing::error!(resource, peer, reason, "stream to the peer lost"),
            StreamLost::Ended(_) => tracing::info!(resource, peer, reason, "stream to the peer closed"),
            _ => tracing::warn!(resource, peer, reason, "stream to the peer lost"),
        }
        let connection = remains.connection;
        self.leave_volumes(at, index, connection);
        let mut loss = remains.loss;
        // An asynchronous Primary may have answered what it never said it had.
        loss.unknown |= self
            .volumes
            .iter()
            .zip(&self.homes)
            .any(|(volume, home)| home.0 == at && volume.is_async(index));
        let side = &mut self.resources[at];
        if told {
            side.inbox.push_back(Input::Missed { peer: index, loss });
            side.inbox.push_back(Input::Disconnected {
                peer: index,
                connection,
                closed_by_peer,
                reason: lost.reason().to_owned(),
            });
        }
    }

    /// No volume may use the connection any more.
    pub(super) fn leave_volumes(&mut self, at: usize, index: PeerIndex, connection: ConnectionId) {
        for place in self.resources[at].volumes.clone().into_iter().flatten() {
            self.volumes[place].stream_down(&mut self.turn, index, connection);
        }
    }

    /// Put what the volume asks of its peers on the streams.
    pub(in crate::data) fn pump(&mut self, place: usize) {
        let mut outward = std::mem::take(&mut self.outward);
        self.volumes[place].take_outward(&mut outward);
        let (at, volume) = self.homes[place];
        let side = &mut self.resources[at];
        for ask in outward.drain(..) {
            let Outward {
                peer,
                connection,
                request,
                payload,
                work,
            } = ask;
            let Some(partner) = side.partner(peer) else { continue };
            if partner.port.connection() != Some(connection) || partner.closing {
                continue;
            }
            match partner.numbering.number_of(volume) {
                Some(number) => {
                    partner.port.ask(&self.turn, number, request, payload, work);
                }
                None => {
                    let reason = "a volume has no number on the connection".to_owned();
                    partner.lost.get_or_insert(StreamLost::Protocol(reason));
                }
            }
        }
        for partner in &mut side.partners {
            partner.port.flush(&mut self.turn);
        }
        self.outward = outward;
    }

    /// A request of a stream, or the flush at the end of an epoch, has ended.
    pub(in crate::data) fn deliver_to_stream(&mut self, place: usize, end: Ended) {
        let (at, volume) = self.homes[place];
        match end {
            Ended::Streamed(Streamed { origin, reply }) => self.answer_stream(at, origin, reply),
            Ended::Epoch {
                peer,
                connection,
                outcome,
            } => self.epoch_ended(at, peer, connection, volume, outcome),
            Ended::Replied(_) | Ended::Dropped { .. } => {}
        }
    }

    fn answer_stream(&mut self, at: usize, origin: StreamOrigin, reply: StreamReply) {
        if let Some(partner) = self.resources[at].partner(origin.peer) {
            partner.port.finished(origin.started, reply);
        }
    }

    fn epoch_ended(
        &mut self,
        at: usize,
        peer: PeerIndex,
        connection: ConnectionId,
        volume: usize,
        outcome: Result<(), Failure>,
    ) {
        let partner = self.resources[at].partner(peer);
        // A later stream may number the volumes otherwise, and does not wait for this.
        let present = partner.filter(|partner| partner.port.connection() == Some(connection));
        if let Some(number) = present.and_then(|partner| partner.numbering.number_of(volume)) {
            self.epoch_flushed(at, peer, connection, number, outcome);
        }
    }

    fn epoch_flushed(
        &mut self,
        at: usize,
        peer: PeerIndex,
        connection: ConnectionId,
        number: u16,
        outcome: Result<(), Failure>,
    ) {
        let Some(partner) = self.resources[at].partner(peer) else {
            return;
        };
        if let Err(lost) = partner.port.flushed(connection, number, outcome) {
            self.lose_stream(at, peer, &lost);
        }
    }

    /// The number in the thread of a volume named on a stream.
    fn streamed_volume(&mut self, at: usize, peer: PeerIndex, volume: u16) -> Option<usize> {
        let side = &mut self.resources[at];
        let place = side.partner(peer)?.numbering.place(volume)?;
        *side.volumes.get(place)?
    }
}
