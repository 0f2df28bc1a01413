//! Driving a resource: tell its core what has happened, do what it says.

use mirror_core::event::PeerIndex;
use mirror_core::resource::event::{Event, Input, Output};
use mirror_core::state::LocalDisk;
use mirror_core::stream::Control;

use super::dial::VOLUMES_CHANGED;
use super::view::View;
use crate::data::stream::StreamLost;
use crate::data::thread::DataThread;
use crate::data::volume::Note;

/// Rounds in which a resource's volumes, streams and core have found more to do within one turn; the rest waits for the
/// next one.
const ROUNDS_MAX: usize = 256;

impl DataThread {
    /// Let the volumes, the streams and the core of a resource go on until none has anything more to do.
    pub(in crate::data) fn settle_resource(&mut self, at: usize) {
        for _ in 0..ROUNDS_MAX {
            self.drain_volumes(at);
            if !self.resources[at].has_core() {
                return;
            }
            let came = self.take_all_events(at);
            self.take_notes(at);
            self.open_streams(at);
            self.check_drained(at);
            let told = self.tell_core(at);
            if !came && !told {
                return;
            }
        }
        self.turn.driver.waker().wake();
    }

    /// Tell the core that the time it named has come.
    pub(in crate::data) fn wake_resources(&mut self) {
        let now = self.turn.now;
        for side in &mut self.resources {
            let due = side.core.as_ref().and_then(|core| core.next_timeout());
            if due.is_some_and(|due| due <= now) && side.inbox.is_empty() {
                side.inbox.push_back(Input::Timeout);
            }
        }
    }

    fn drain_volumes(&mut self, at: usize) {
        for place in 0..self.resources[at].volumes.len() {
            if let Some(volume) = self.resources[at].volumes[place] {
                self.drain_volume(volume);
            }
        }
    }

    fn take_all_events(&mut self, at: usize) -> bool {
        let mut any = false;
        for peer in 0..self.resources[at].partners.len() {
            any |= self.take_events(at, PeerIndex(peer as u8));
        }
        any
    }

    /// What the mirrors have for the core.
    fn take_notes(&mut self, at: usize) {
        let mut notes = std::mem::take(&mut self.notes);
        for volume in 0..self.resources[at].volumes.len() {
            let Some(place) = self.resources[at].volumes[volume] else {
                continue;
            };
            self.volumes[place].take_notes(&mut notes);
            for note in notes.drain(..) {
                self.on_note(at, volume, note);
            }
        }
        self.notes = notes;
    }

    fn on_note(&mut self, at: usize, volume: usize, note: Note) {
        match note {
            Note::OrderDone { ticket, outcome } => {
                let side = &mut self.resources[at];
                if let Some(place) = side.volumes[volume] {
                    // It may have grown.
                    side.gate
                        .set_size(self.volumes[place].export(), self.volumes[place].size());
                    self.volumes[place].offer_answered(&mut self.turn, ticket);
                }
                side.inbox.push_back(Input::OrderDone {
                    volume,
                    ticket,
                    outcome,
                });
            }
            Note::Disk(disk) => {
                if let (LocalDisk::Diskless, Some(place)) = (disk, self.resources[at].volumes[volume]) {
                    self.volumes[place].close_image(&mut self.turn);
                }
                self.resources[at].inbox.push_back(Input::Disk { volume, disk });
            }
            Note::FellBehind(peer) => {
                for other in 0..self.resources[at].volumes.len() {
                    if let Some(place) = self.resources[at].volumes[other].filter(|_| other != volume) {
                        self.volumes[place].command(&self.turn, mirror_core::event::Command::FallBehind(peer));
                    }
                }
            }
            Note::GiveUp {
                peer,
                connection,
                why,
                no_space,
            } => {
                let present = self.resources[at]
                    .partner(peer)
                    .and_then(|partner| partner.port.connection());
                if present == Some(connection) {
                    if no_space {
                        self.resources[at].inbox.push_back(Input::NoSpace(peer));
                    }
                    let lost = StreamLost::Ended(why.to_owned());
                    self.lose_stream(at, peer, &lost);
                }
            }
        }
    }

    /// Tell the core the next thing and do what it says. False: there was nothing.
    fn tell_core(&mut self, at: usize) -> bool {
        let side = &mut self.resources[at];
        let Some(input) = side.inbox.pop_front() else {
            return false;
        };
        let view = View {
            volumes: &self.volumes,
            places: &side.volumes,
        };
        if let Some(core) = &mut side.core {
            core.handle(self.turn.now, input, &view);
        }
        while let Some(output) = self.resources[at].core.as_mut().and_then(|core| core.poll_output()) {
            self.perform(at, output);
        }
        self.name_the_primary(at);
        true
    }

    /// Whom hosts are sent to.
    fn name_the_primary(&mut self, at: usize) {
        let side = &mut self.resources[at];
        let Some(core) = &side.core else { return };
        let primary = core.primary_peer();
        if side.primary.as_deref() != primary {
            let primary = primary.map(str::to_owned);
            side.gate.set_primary(primary.clone());
            side.primary = primary;
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let side = &mut self.resources[at];
        match output {
            Output::Dial(peer) => {
                if let Some(partner) = side.partner(peer) {
                    partner.want(&self.turn);
                }
            }
            Output::CancelDial(peer) => {
                if let Some(partner) = side.partner(peer) {
                    partner.stop_wanting(&self.turn);
                }
            }
            Output::Send {
                peer,
                connection,
                control,
            } => {
                let Some(partner) = side.partner(peer) else { return };
                if partner.port.connection() != Some(connection) || partner.closing {
                    return;
                }
                match &control {
                    Control::Identity(identity) if !partner.numbering.is_ours(identity) => {
                        let lost = StreamLost::Ended(VOLUMES_CHANGED.to_owned());
                        self.lose_stream(at, peer, &lost);
                    }
                    _ => partner.port.control(&control),
                }
            }
            Output::Close {
                peer,
                connection,
                reason,
            } => self.close_stream(at, peer, connection, reason),
            Output::Order { volume, ticket, order } => {
                if let Some(place) = side.volumes.get(volume).copied().flatten() {
                    self.volumes[place].order(&self.turn, ticket, order);
                }
            }
            Output::PeerUp {
                volume,
                peer,
                connection,
                plan,
            } => {
                if let Some(place) = side.volumes.get(volume).copied().flatten() {
                    let coming = side.core.as_ref().map_or(0, |core| core.coming(volume, peer));
                    self.volumes[place].stream_up(&self.turn, (peer, connection), plan, coming);
                }
            }
            Output::OpenBranch { volume, generation } => {
                if let Some(place) = side.volumes.get(volume).copied().flatten() {
                    self.volumes[place].open_branch(generation);
                }
            }
            Output::Hosts(access) => self.admit_hosts(at, access),
            Output::Grow { volume, size } => self.grow(at, volume, size),
            Output::Answer { id, answer } => {
                if let Some(waiting) = side.answers.remove(&id) {
                    self.answered(at, waiting, answer);
                }
            }
            Output::Event(event) => self.note_resource_event(at, &event),
        }
    }

    fn close_stream(
        &mut self,
        at: usize,
        peer: PeerIndex,
        connection: mirror_core::event::ConnectionId,
        reason: String,
    ) {
        let Some(partner) = self.resources[at].partner(peer) else {
            return;
        };
        if partner.port.connection() != Some(connection) {
            return;
        }
        partner.closing = true;
        partner.port.close(&self.turn, reason);
        self.leave_volumes(at, peer, connection);
    }

    fn note_resource_event(&mut self, at: usize, event: &Event) {
        let side = &mut self.resources[at];
        let resource = side.name.clone();
        let mut name = |peer: PeerIndex| {
            side.partner(peer)
                .map_or_else(String::new, |partner| partner.plan.name.clone())
        };
        match event {
            Event::Role(role) => tracing::info!(resource, role = ?role, "role"),
            Event::Decided { peer, text } => tracing::info!(resource, peer = name(*peer), "{text}"),
            Event::SplitBrain { peer, text } => tracing::error!(resource, peer = name(*peer), "split brain: {text}"),
            Event::Lost { peer, text } => tracing::info!(resource, peer = name(*peer), "{text}"),
            Event::StandAlone { peer, text } => tracing::warn!(resource, peer = name(*peer), "StandAlone: {text}"),
        }
    }
}
