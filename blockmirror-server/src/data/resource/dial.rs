//! Streams that begin: what the control side has negotiated, dialled here or there.

use mirror_core::event::PeerIndex;
use mirror_core::resource::event::Input;
use mirror_core::stream::Credit;

use super::numbering::Numbering;
use crate::data::message::StreamHandover;
use crate::data::stream::{Standing, StreamLost, StreamSetup, supersedes};
use crate::data::thread::DataThread;

/// Why a stream is not used.
pub(super) const VOLUMES_CHANGED: &str = "a volume was added or removed while the connection was made";

impl DataThread {
    /// The control side has negotiated a stream.
    pub(in crate::data) fn stream_ready(&mut self, handover: StreamHandover) {
        let (at, index) = (handover.resource, PeerIndex(handover.peer as u8));
        let stopping = self.stopping.is_some();
        let Some(side) = self.resources.get_mut(at).filter(|side| side.has_core() && !stopping) else {
            return;
        };
        let served = side.volume_names(&self.volumes);
        let hello = handover.hello;
        let node = side.node.clone();
        let Some(partner) = side.partner(index) else { return };
        if handover.dialled_by_us && !partner.take_answer() {
            return;
        }
        let numbering = Numbering::new(handover.named, &hello, handover.dialled_by_us);
        if !numbering.fits(&served) {
            return partner.dial_again(&self.turn);
        }
        let new = Standing {
            dialled: handover.dialled_by_us,
            incarnation: hello.incarnation,
            heard: self.turn.now,
        };
        if let Some(old) = partner.port.standing() {
            if !partner.closing && !supersedes(old, new, &node, &partner.plan.name, self.turn.now) {
                tracing::debug!(
                    peer = partner.plan.name,
                    "two streams have crossed: this one is not used"
                );
                return;
            }
            self.lose_stream(
                at,
                index,
                &StreamLost::Ended("a newer connection takes over".to_owned()),
            );
        }
        let Some(partner) = self.resources[at].partner(index) else {
            return;
        };
        partner.numbering = numbering;
        let (connection, tokens) = partner.next_connection();
        let setup = StreamSetup {
            connection,
            socket: handover.socket,
            unread: handover.unread,
            dialled: handover.dialled_by_us,
            incarnation: hello.incarnation,
            checksum: hello.checksum,
            credit: Credit {
                bytes: hello.credit_bytes,
                requests: hello.credit_requests,
            },
            heartbeat: partner.plan.heartbeat,
            dead_after: partner.plan.dead_after,
            request_timeout: partner.plan.request_timeout,
        };
        match partner.port.attach(&self.turn, setup, tokens) {
            Ok(()) => {
                partner.incarnation = hello.incarnation;
                if !handover.dialled_by_us {
                    partner.pause_for_theirs(&self.turn, &node);
                }
                for place in self.resources[at].volumes.iter().flatten() {
                    self.volumes[*place].set_seed(index, hello.digest_seed);
                }
            }
            Err(error) => partner.failed(&self.turn, format!("cannot use the connection: {error}")),
        }
    }

    /// The peer was reached and is a plain NBD server.
    pub(in crate::data) fn stream_plain(&mut self, resource: usize, peer: usize) {
        let index = PeerIndex(peer as u8);
        let Some(side) = self.resources.get_mut(resource) else {
            return;
        };
        let Some(partner) = side.partner(index) else { return };
        if partner.take_answer() {
            partner.stop_wanting(&self.turn);
            side.inbox.push_back(Input::IsPlain(index));
        }
    }

    /// An attempt to reach a peer failed.
    pub(in crate::data) fn stream_failed(&mut self, resource: usize, peer: usize, error: String) {
        let side = self.resources.get_mut(resource);
        let Some(partner) = side.and_then(|side| side.partner(PeerIndex(peer as u8))) else {
            return;
        };
        if partner.take_answer() && partner.port.connection().is_none() {
            partner.failed(&self.turn, error);
        }
    }

    /// An attempt was not begun, as asked.
    pub(in crate::data) fn stream_rested(&mut self, resource: usize, peer: usize) {
        let side = self.resources.get_mut(resource);
        if let Some(partner) = side.and_then(|side| side.partner(PeerIndex(peer as u8))) {
            partner.rested(&self.turn);
        }
    }

    /// Tell the core of streams that wait, once nothing that came on an older one is in progress (I11).
    pub(super) fn open_streams(&mut self, at: usize) {
        let side = &mut self.resources[at];
        let waits = side.partners.iter().any(|partner| partner.port.is_held());
        if !waits || !side.partners.iter().all(|partner| partner.port.is_quiet()) {
            return;
        }
        for peer in 0..side.partners.len() {
            self.open_stream(at, peer);
        }
    }

    fn open_stream(&mut self, at: usize, peer: usize) {
        let side = &mut self.resources[at];
        let served = side.volume_names(&self.volumes);
        let partner = &mut side.partners[peer];
        let Some(connection) = partner.port.connection().filter(|_| partner.port.is_held()) else {
            return;
        };
        if partner.expects_own(self.turn.now, &side.node) {
            return;
        }
        let index = partner.index;
        if !partner.numbering.fits(&served) {
            return self.lose_stream(at, index, &StreamLost::Ended(VOLUMES_CHANGED.to_owned()));
        }
        partner.numbering.begin(&served);
        if let Err(lost) = partner.port.open(&self.turn) {
            return self.lose_stream(at, index, &lost);
        }
        partner.told = true;
        partner.is_had(&self.turn, &side.node);
        tracing::info!(resource = side.name, peer = partner.plan.name, "stream to the peer");
        side.inbox.push_back(Input::Connected {
            peer: index,
            connection,
            incarnation: partner.incarnation,
        });
    }
}
