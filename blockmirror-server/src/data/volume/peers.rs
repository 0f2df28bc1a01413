//! The links to the peers of a volume, seen from the volume.

use std::io;
use std::time::Duration;

use mirror_core::event::{ConnectionId, Input, LinkKind, PeerIndex, SyncPlan};

use super::copy::peer_failure;
use super::mirrored::MirrorSide;
use super::{Machinery, Volume};
use crate::data::message::PeerHandover;
use crate::data::peer::{Fit, Link, LinkDone, LinkWork, Lost, Peer, named_by};
use crate::data::token::{Kind, Token};
use crate::data::turn::Turn;
use crate::ring::Op;

impl MirrorSide {
    pub(super) fn peer(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(index.0))
    }

    /// The link of this connection, if it is the present one.
    pub(super) fn link(&mut self, index: PeerIndex, connection: ConnectionId) -> Option<&mut Link> {
        self.peer(index)?.link_of(connection)
    }
}

impl Volume {
    /// The control side has made a connection to a peer.
    pub(crate) fn peer_ready(&mut self, turn: &Turn, handover: PeerHandover) {
        let fit = Fit {
            size: self.size,
            minimum_block: self.minimum_block,
        };
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let Some(peer) = mirror.peers.get_mut(handover.peer) else {
            return;
        };
        let index = PeerIndex(handover.peer as u8);
        if let Some(connection) = peer.dialled(turn, handover, fit) {
            tracing::info!(export = self.export, peer = peer.name(), "connected to the peer");
            mirror.tell(
                turn.now,
                Input::PeerUp {
                    peer: index,
                    connection,
                    link: LinkKind::Nbd,
                    plan: SyncPlan::Source,
                },
            );
        }
    }

    /// The control side could not make a connection to a peer.
    pub(crate) fn peer_failed(&mut self, turn: &Turn, peer: usize, error: String) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if let Some(peer) = mirror.peers.get_mut(peer) {
            peer.dial_failed(turn, error);
        }
    }

    /// An operation of a connection to a peer came back.
    pub(crate) fn on_link(&mut self, turn: &mut Turn, token: Token, result: io::Result<usize>, op: Op) {
        let (index, connection) = named_by(token);
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let Some(peer) = mirror.peer(index) else { return };
        let outcome = match token.kind {
            Kind::LinkSend => peer.on_sent(turn, connection, result, op),
            _ => peer.on_received(turn, connection, result, op),
        };
        self.take_link_answers(turn);
        if let Err(lost) = outcome {
            self.lose_link(turn, index, &lost);
        }
    }

    /// Send what the links have queued.
    pub(crate) fn flush_links(&mut self, turn: &mut Turn) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        for link in mirror.peers.iter_mut().filter_map(Peer::link_mut) {
            link.flush(turn);
        }
    }

    /// The time the core wanted to be woken at may have come.
    pub(crate) fn wake_core(&mut self, turn: &Turn) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if mirror.next_timeout().is_some_and(|at| at <= turn.now) {
            mirror.tell(turn.now, Input::Timeout);
        }
    }

    /// Timeouts of the links.
    pub(crate) fn check_time(&mut self, turn: &mut Turn) {
        self.check_branch(turn);
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        for index in 0..mirror.peers.len() {
            let Machinery::Mirror(mirror) = &mut self.machinery else {
                return;
            };
            let verdict = mirror.peers.get_mut(index).map_or(Ok(()), |peer| peer.check_time(turn));
            if let Err(lost) = verdict {
                self.lose_link(turn, PeerIndex(index as u8), &lost);
            }
        }
    }

    /// When the core wants to be woken.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.next_timeout(),
            Machinery::Plain(_) => None,
        }
    }

    /// A link has something that `check_time` has to look at.
    pub(crate) fn needs_time(&self) -> bool {
        match &self.machinery {
            Machinery::Mirror(mirror) => self.branch.needs_time() || mirror.peers.iter().any(Peer::needs_time),
            Machinery::Plain(_) => false,
        }
    }

    pub(super) fn peer_link(&mut self, index: PeerIndex, connection: ConnectionId) -> Option<&mut Link> {
        match &mut self.machinery {
            Machinery::Mirror(mirror) => mirror.link(index, connection),
            Machinery::Plain(_) => None,
        }
    }

    /// Tell the core what the links have answered. False: nothing.
    pub(super) fn take_link_answers(&mut self, turn: &mut Turn) -> bool {
        let mut any = false;
        for index in 0..self.peer_count() {
            let Machinery::Mirror(mirror) = &mut self.machinery else {
                return any;
            };
            let mut done = std::mem::take(&mut mirror.done);
            let Some(link) = mirror.peers.get_mut(index).and_then(Peer::link_mut) else {
                mirror.done = done;
                continue;
            };
            let connection = link.connection();
            link.take_done(&mut done);
            any |= !done.is_empty();
            for answer in done.drain(..) {
                self.link_answered(turn, PeerIndex(index as u8), connection, answer);
            }
            if let Machinery::Mirror(mirror) = &mut self.machinery {
                mirror.done = done;
            }
        }
        any
    }

    fn link_answered(&mut self, turn: &mut Turn, peer: PeerIndex, connection: ConnectionId, answer: LinkDone) {
        let LinkDone { work, outcome } = answer;
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if let (Err(error), Some(peer)) = (&outcome, mirror.peer(peer)) {
            peer.note_error(error.to_string());
        }
        let failure = outcome.as_ref().map(|_| ()).map_err(peer_failure);
        match work {
            LinkWork::Mutation(id) => {
                mirror.tell(
                    turn.now,
                    Input::PeerDone {
                        peer,
                        connection,
                        id,
                        outcome: failure,
                    },
                );
            }
            LinkWork::Flush => mirror.tell(
                turn.now,
                Input::PeerFlushDone {
                    peer,
                    connection,
                    outcome: failure,
                },
            ),
            LinkWork::Copy { piece, copy } => self.plain_answered(turn, piece, copy, outcome),
            LinkWork::Read(id) => self.plain_read(turn, id, outcome),
        }
    }

    fn lose_link(&mut self, turn: &mut Turn, index: PeerIndex, lost: &Lost) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let Some(peer) = mirror.peer(index) else { return };
        let Some(connection) = peer.lose(turn, lost) else {
            return;
        };
        tracing::warn!(
            export = self.export,
            peer = peer.name(),
            reason = lost.reason,
            "connection to the peer lost"
        );
        self.leave(turn, index, connection);
    }
}
