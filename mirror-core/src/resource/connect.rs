//! Connections to other blockmirrors come and go.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::commands::{Then, taken_back};
use super::config::{HANDSHAKE_MAX, PREPARE_MAX, RECHECK, SPACE_RETRY};
use super::event::{Answer, CommandId, Event, Loss, Output, Volumes};
use super::orders::Purpose;
use super::peer::{Comparing, Link};
use super::{Resource, index};
use crate::config::PeerKind;
use crate::event::{ConnectionId, LinkKind, Order};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

/// How it begins what is said to a peer that is not let in.
const STANDS_ALONE: &str = "this node stands alone until its operator says connect: ";

impl Resource {
    /// The daemon has started.
    pub(super) fn start(&mut self, world: &dyn Volumes) {
        self.read_disks(world);
        if self.partners().next().is_none() {
            // The mirrors were made as Primary.
            self.role = Role::Primary;
        }
        for peer in 0..self.peers.len() {
            self.dial(peer);
        }
    }

    /// Reach the peer, if that is wanted and not under way.
    pub(super) fn dial(&mut self, peer: usize) {
        let state = &mut self.peers[peer];
        let wanted = state.may_be_partner() && state.stand_alone.is_none() && self.now >= state.not_before;
        if wanted && !state.dialled && matches!(state.link, Link::Down) {
            state.dialled = true;
            self.emit(Output::Dial(index(peer)));
        }
    }

    /// A stream is up.
    pub(super) fn connected(&mut self, peer: usize, connection: ConnectionId) {
        if !matches!(self.peers[peer].link, Link::Down) {
            self.close(peer, "a newer connection has replaced it");
        }
        self.peers[peer].dialled = false;
        self.peers[peer].missed = None;
        let unwanted = if self.peers[peer].removed {
            Some("this node has no such peer any more".to_owned())
        } else if self.peers[peer].kind == Some(PeerKind::Plain) {
            Some("this node knows the peer as a plain NBD server: remove the peer and add it again".to_owned())
        } else if self.now < self.peers[peer].rests_until {
            let name = &self.peers[peer].name;
            Some(format!(
                "{name} had no space left: make room on its image, it is tried again soon"
            ))
        } else {
            self.stands_alone(peer)
        };
        self.peers[peer].link = Link::Comparing(Comparing {
            connection,
            progress: self.now,
            said: None,
            heard: None,
            rulings: None,
            verdict_said: false,
            held: None,
            verdict_heard: None,
        });
        if let Some(reason) = unwanted {
            // A split brain is seen by both, though the first word of it may have been lost with its connection.
            let diverged = self.peers[peer].split_brain.is_some();
            self.say_goodbye(peer, diverged, reason);
        } else if self.peers[peer].kind.is_none() {
            self.set_kind(peer, PeerKind::Partner);
        }
    }

    /// Why the peer is not let in: this node stands alone towards it.
    fn stands_alone(&self, peer: usize) -> Option<String> {
        let reason = self.peers[peer].stand_alone.as_ref()?;
        Some(format!("{STANDS_ALONE}{}", self.bare(peer, reason)))
    }

    /// What is behind it, without who said so: the two would wrap each other's words in their own at every try.
    pub(super) fn bare<'a>(&self, peer: usize, mut reason: &'a str) -> &'a str {
        let [here, there] = [&self.config.node, &self.peers[peer].name].map(|name| said_by(name));
        while let Some(rest) = [STANDS_ALONE, &here, &there]
            .iter()
            .find_map(|before| reason.strip_prefix(before))
        {
            reason = rest;
        }
        reason
    }

    /// The peer is a plain NBD server.
    pub(super) fn is_plain(&mut self, peer: usize) {
        self.peers[peer].dialled = false;
        match self.peers[peer].kind {
            Some(PeerKind::Plain) => {}
            None => self.set_kind(peer, PeerKind::Plain),
            Some(PeerKind::Partner) => self.stand_alone(
                peer,
                "a plain NBD server answers where a blockmirror was: if that is meant, remove the peer and add it again"
                    .to_owned(),
            ),
        }
    }

    fn set_kind(&mut self, peer: usize, kind: PeerKind) {
        self.peers[peer].kind = Some(kind);
        let link = match kind {
            PeerKind::Plain => LinkKind::Nbd,
            PeerKind::Partner => LinkKind::Stream,
        };
        let order = Order::SetKind {
            peer: index(peer),
            kind: link,
        };
        self.order_all(&order, Purpose::Kind);
    }

    /// What the peer had sent beyond what arrived.
    pub(super) fn missed(&mut self, peer: usize, loss: Loss) {
        let state = &mut self.peers[peer];
        match (&state.link, &mut state.end) {
            (Link::Down, Some(end)) => end.loss = Some(loss),
            (Link::Down, None) => {}
            _ => state.missed = Some(loss),
        }
    }

    /// The peer has no space left. It rests: each try costs hosts a resync that may end in the same way.
    pub(super) fn no_space(&mut self, peer: usize) {
        let state = &mut self.peers[peer];
        state.no_space = true;
        state.rests_until = self.now + SPACE_RETRY;
        state.not_before = state.not_before.max(state.rests_until);
    }

    /// The stream is gone.
    pub(super) fn disconnected(&mut self, peer: usize, connection: ConnectionId, closed_by_peer: bool, reason: &str) {
        if self.peers[peer].link.connection() != Some(connection) {
            return;
        }
        self.event(Event::Lost {
            peer: index(peer),
            text: reason.to_owned(),
        });
        self.drop_link(peer, closed_by_peer);
    }

    /// Do not try before an operator says so.
    pub(super) fn stand_alone(&mut self, peer: usize, text: String) {
        self.peers[peer].stand_alone = Some(text.clone());
        if self.peers[peer].dialled {
            self.peers[peer].dialled = false;
            self.emit(Output::CancelDial(index(peer)));
        }
        self.event(Event::StandAlone {
            peer: index(peer),
            text,
        });
    }

    /// A control frame. One of an older connection says nothing of the present one.
    pub(super) fn control(&mut self, peer: usize, connection: ConnectionId, control: Control, world: &dyn Volumes) {
        let present = self.peers[peer].link.connection();
        if present.is_none() || (present != Some(connection) && self.keeps(Sabotage::OldConnectionIgnored)) {
            return;
        }
        self.progress(peer);
        match control {
            Control::Identity(identity) => self.heard_identity(peer, identity),
            Control::Verdict {
                my_revision,
                your_revision,
                verdicts,
                text,
            } => self.heard_verdict(peer, my_revision, your_revision, verdicts, text),
            Control::Bitmap { volume, blocks, last } => self.heard_bitmap(peer, usize::from(volume), blocks, last),
            Control::State { role, disks } => self.heard_state(peer, role, &disks, world),
            Control::AskDemote => self.asked_to_demote(peer, connection, world),
            Control::Demoted => self.heard_demoted(peer),
            Control::DemoteRefused(why) => self.heard_demote_refused(peer, &why),
            Control::Promoting => self.asked_for_consent(peer, connection),
            Control::PromoteGranted => self.heard_consent(peer),
            Control::PromoteRefused(why) => self.heard_objection(peer, &why),
            Control::Grow { volume, size } => self.asked_to_grow(peer, connection, (usize::from(volume), size), world),
            Control::Grown { volume, size } => self.heard_grown(peer, usize::from(volume), size),
            Control::GrowRefused { why, .. } => self.heard_grow_refused(peer, &why),
            Control::Resize {
                volume,
                size,
                assume_clean,
            } => self.asked_to_resize(peer, usize::from(volume), size, assume_clean),
            Control::Resized { volume, size } => self.heard_resized(peer, usize::from(volume), size),
            Control::Meet { salt } => self.asked_to_meet(peer, salt),
            Control::Met { salt } => self.heard_met(peer, salt),
            Control::Goodbye { stand_alone, reason } => self.heard_goodbye(peer, stand_alone, &reason, world),
            Control::Again { reason } => self.heard_again(peer, &reason),
            // The link's own.
            Control::Heartbeat { .. } | Control::HeartbeatAck { .. } | Control::Credit { .. } => {}
        }
    }

    /// The connection has got further.
    pub(super) fn progress(&mut self, peer: usize) {
        match &mut self.peers[peer].link {
            Link::Down => {}
            Link::Comparing(comparing) => comparing.progress = self.now,
            Link::Joined(joined) => joined.progress = self.now,
        }
    }

    /// What has become possible on a connection, or is overdue.
    pub(super) fn step_link(&mut self, peer: usize, world: &dyn Volumes) {
        match &self.peers[peer].link {
            Link::Down => self.dial(peer),
            Link::Comparing(comparing) => {
                if comparing.heard.is_none() && self.now >= comparing.progress + HANDSHAKE_MAX {
                    self.close(peer, "the other node did not say who it is");
                } else {
                    self.step_handshake(peer, world);
                }
            }
            Link::Joined(joined) => {
                if !joined.is_ready() && self.now >= joined.progress + PREPARE_MAX {
                    self.close(peer, "preparing the volumes made no progress");
                } else {
                    self.note_in_step(peer, world);
                    self.step_join(peer, world);
                }
            }
        }
    }

    /// When the connection has to be looked at. Once the other has said who it is, there is no bound on its verdict
    /// here: it may have a reason to hold it, and the link's heartbeats tell whether it lives.
    pub(super) fn link_timeout(&self, peer: usize) -> Option<Duration> {
        match &self.peers[peer].link {
            Link::Down => Some(self.peers[peer].not_before).filter(|at| *at > self.now),
            Link::Comparing(comparing) if comparing.heard.is_none() => Some(comparing.progress + HANDSHAKE_MAX),
            Link::Comparing(_) => Some(self.now + RECHECK),
            Link::Joined(joined) if !joined.is_ready() => Some(joined.progress + PREPARE_MAX),
            Link::Joined(_) => self.meeting_due(peer),
        }
    }

    /// The operator parts with the peer. He goes on without it: what `on_disconnect = "suspend"` holds back for it goes, too.
    pub(super) fn disconnect(&mut self, id: CommandId, peer: usize, world: &dyn Volumes) {
        let reason = format!("the operator of {} disconnects", self.config.node);
        if self.peers[peer].stand_alone.is_none() {
            self.stand_alone(peer, "disconnected by the operator".to_owned());
        }
        self.peers[peer].parted = true;
        self.order_all(&part(peer, true), Purpose::Nothing);
        self.say_goodbye(peer, false, reason);
        if self.has_word(peer, world) {
            self.command_for_all(id, &taken_back(peer), Then::Nothing);
        } else {
            self.answer(Some(id), Answer::Done);
        }
    }

    /// A volume that has come waits for nobody whom the operator has parted with either.
    pub(super) fn part_new_volume(&mut self, volume: usize) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].parted && !self.peers[peer].removed {
                self.order(volume, part(peer, true), Purpose::Nothing);
            }
        }
    }

    /// The operator wants the peer back.
    pub(super) fn connect_again(&mut self, peer: usize) {
        if core::mem::take(&mut self.peers[peer].parted) {
            self.order_all(&part(peer, false), Purpose::Nothing);
        }
        let state = &mut self.peers[peer];
        state.stand_alone = None;
        (state.not_before, state.rests_until) = (self.now, self.now);
        self.dial(peer);
    }
}

/// How what the peer has said begins.
pub(super) fn said_by(name: &str) -> String {
    format!("{name} said: ")
}

/// The operator parts with the peer, or wants it back.
pub(super) fn part(peer: usize, parted: bool) -> Order {
    Order::Part {
        peer: index(peer),
        parted,
    }
}
