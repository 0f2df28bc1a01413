//! How a connection is ended on purpose: with a word, for without one it looks like the death of a process.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::config::REFUSED_RETRY;
use super::connect::said_by;
use super::event::{Output, Volumes};
use super::peer::{End, Link};
use super::{Resource, index};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

impl Resource {
    /// Close the connection; it is tried again unless the node stands alone. The other is told: without a word it would take
    /// this node for dead, and become Primary beside it.
    pub(super) fn close(&mut self, peer: usize, reason: &str) {
        let Some(connection) = self.peers[peer].link.connection() else {
            return;
        };
        if self.keeps(Sabotage::CloseSaid) {
            self.emit(Output::Send {
                peer: index(peer),
                connection,
                control: Control::Again {
                    reason: reason.to_owned(),
                },
            });
        }
        self.end_connection(peer, reason);
    }

    /// The same of a connection on which one of the two has said so.
    fn end_connection(&mut self, peer: usize, reason: &str) {
        let Some(connection) = self.peers[peer].link.connection() else {
            return;
        };
        self.emit(Output::Close {
            peer: index(peer),
            connection,
            reason: reason.to_owned(),
        });
        self.drop_link(peer, false);
    }

    pub(super) fn drop_link(&mut self, peer: usize, died: bool) {
        let state = &mut self.peers[peer];
        let link = core::mem::replace(&mut state.link, Link::Down);
        let loss = state.missed.take();
        // Who was told that it may become Primary may have done so.
        let role = if state.consented.take().is_some() {
            Role::Primary
        } else {
            state.role
        };
        state.disks.clear();
        state.asked = None;
        let was_joined = matches!(link, Link::Joined(_));
        // It came back as Primary and was not understood: it lived, and what it did since the two had parted nobody has heard.
        let came_back = role == Role::Primary;
        if was_joined || came_back || state.end.is_none() {
            let died = died && was_joined;
            state.end = Some(End { role, died, loss });
        }
        self.dial(peer);
    }

    /// Say why, close, and perhaps stay alone.
    pub(super) fn say_goodbye(&mut self, peer: usize, stand_alone: bool, reason: String) {
        let Some(connection) = self.peers[peer].link.connection() else {
            return;
        };
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control: Control::Goodbye {
                stand_alone,
                reason: reason.clone(),
            },
        });
        // Who stands alone already keeps the reason that he began with.
        if stand_alone && self.peers[peer].stand_alone.is_none() {
            self.stand_alone(peer, reason.clone());
        }
        self.retry_later(peer);
        self.end_connection(peer, &reason);
    }

    /// The other has said why it closes the connection.
    pub(super) fn heard_goodbye(&mut self, peer: usize, stand_alone: bool, reason: &str, world: &dyn Volumes) {
        let text = format!("{}{reason}", said_by(&self.peers[peer].name));
        // Who knows of the split brain and was told to connect goes on trying until the other is told, too.
        if stand_alone && self.peers[peer].stand_alone.is_none() && self.peers[peer].split_brain.is_none() {
            let told = format!("{}{}", said_by(&self.peers[peer].name), self.bare(peer, reason));
            self.peers[peer].split_brain = Some(told.clone());
            if !self.gives_up(peer, world) {
                self.stand_alone(peer, told);
            }
        }
        self.retry_later(peer);
        self.end_connection(peer, &text);
    }

    /// The other closes the connection, and lives.
    pub(super) fn heard_again(&mut self, peer: usize, reason: &str) {
        let text = format!("{}{reason}", said_by(&self.peers[peer].name));
        self.end_connection(peer, &text);
    }

    /// One of the two has refused.
    fn retry_later(&mut self, peer: usize) {
        let state = &mut self.peers[peer];
        state.not_before = state.rests_until.max(self.now + REFUSED_RETRY);
    }
}
