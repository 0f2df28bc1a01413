//! A volume gets another size: first every image, then the mirrors of the other nodes, this node's last.
//!
//! A node that is asked by its operator leads. While images grow, nothing has changed: if one cannot, all stays as it
//! was. Then the other nodes' volumes take the size, and only when all have it, this node's: no write beyond the old
//! end can reach a node that does not have it yet.
//!
//! It gets smaller only while nobody is Primary and all are in step, and after every node has made sure that its image
//! holds nothing beyond the new end: see [`shrink`](super::shrink). The images are cut last, by the shell.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::GROW_MAX;
use super::event::{Answer, CommandId, Output, Volumes};
use super::orders::Purpose;
use super::peer::{Joined, LaneStage};
use super::{Resource, index};
use crate::event::{ConnectionId, Order, OrderRefusal};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

pub(super) const BUSY: &str = "another change of the resource is under way: try again when it has ended";

/// Volumes that other nodes may ask this one to grow at a time.
const GUESTS_MAX: usize = 64;

/// One led by this node.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    /// The operator, until he has been answered.
    id: Option<CommandId>,
    pub(super) volume: usize,
    pub(super) size: u64,
    assume_clean: bool,
    shrinks: bool,
    pub(super) stage: Stage,
    until: Duration,
}

impl Growth {
    /// It makes the volume smaller.
    pub(super) fn shrinks(&self) -> bool {
        self.shrinks
    }
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Every image grows: those that are asked for and are not done, and whose are.
    Images {
        here: bool,
        missing: Vec<(usize, ConnectionId)>,
        grown: Vec<usize>,
    },
    /// The other nodes' volumes take the size.
    Others { missing: Vec<(usize, ConnectionId)> },
    /// This node's does.
    Here,
}

/// One led by another node.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    peer: usize,
    connection: ConnectionId,
    volume: usize,
    size: u64,
}

impl Resource {
    pub(super) fn growth_timeout(&self) -> Option<Duration> {
        let growth = self.growth.as_ref()?;
        growth.id.map(|_| growth.until)
    }

    /// The operator's command.
    pub(super) fn begin_growth(
        &mut self,
        id: CommandId,
        volume: usize,
        (size, assume_clean, force): (u64, bool, bool),
        world: &dyn Volumes,
    ) {
        let shrinks = self.would_shrink(volume, size, world);
        let objection = if shrinks {
            self.why_no_shrink(volume, size, force, world)
        } else {
            self.why_no_growth(volume, size, world)
        };
        if let Some(why) = objection {
            self.answer(Some(id), Answer::Refused(why));
            return;
        }
        let mut missing = Vec::new();
        for peer in 0..self.peers.len() {
            if let Some((connection, place)) = self.lane_place(peer, volume) {
                missing.push((peer, connection));
                let control = Control::Grow { volume: place, size };
                self.send(peer, connection, control);
            }
        }
        self.note_growth(volume, None);
        self.note_led(volume, None);
        self.growth = Some(Growth {
            id: Some(id),
            volume,
            size,
            assume_clean,
            shrinks,
            stage: Stage::Images {
                here: false,
                missing,
                grown: Vec::new(),
            },
            until: self.now + GROW_MAX,
        });
        self.emit(Output::Grow { volume, size });
    }

    fn why_no_growth(&self, volume: usize, size: u64, world: &dyn Volumes) -> Option<String> {
        if self.growth.is_some() || self.change.is_some() {
            return Some(BUSY.into());
        }
        let primary = self.partners().find(|at| self.peers[*at].is_connected_primary());
        if let (Role::Secondary, Some(peer)) = (self.role, primary) {
            return Some(format!("{} is Primary: resize there", self.peers[peer].name));
        }
        let now = (!self.peers.is_empty()).then(|| world.identity(volume, index(0)).size);
        if now == Some(size) {
            return Some(format!("the volume has {size} bytes already"));
        }
        // After a change that was cut short each node without it follows, though the sizes keep them apart.
        let is_begun = self.partners().any(|at| self.has_size(at, volume, size));
        if is_begun { None } else { self.why_apart(volume, size) }
    }

    /// Who could not follow.
    pub(super) fn why_apart(&self, volume: usize, size: u64) -> Option<String> {
        for at in self.partners() {
            let peer = &self.peers[at];
            let joined = peer.joined().is_some_and(Joined::is_ready);
            if !joined && !self.has_size(at, volume, size) {
                return Some(format!("{} is not connected: it would have another size", peer.name));
            }
        }
        None
    }

    /// The volume that the peer means.
    fn volume_at(&self, peer: usize, place: usize) -> Option<usize> {
        let joined = self.peers[peer].joined()?;
        let lane = joined.lanes.iter().find(|lane| lane.ruling.theirs == place)?;
        (lane.stage != LaneStage::Preparing).then_some(lane.ruling.volume)
    }

    pub(super) fn send(&mut self, peer: usize, connection: ConnectionId, control: Control) {
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control,
        });
    }

    /// An image here has been made larger, or not.
    pub(super) fn grown(&mut self, volume: usize, outcome: Result<u64, String>) {
        if let Some(growth) = &mut self.growth
            && growth.volume == volume
            && let Stage::Images { here, .. } = &mut growth.stage
        {
            match outcome {
                Ok(size) if size >= growth.size => *here = true,
                Ok(size) => self.end_growth(Err(format!("the image here has {size} bytes"))),
                Err(why) if growth.shrinks => self.end_growth(Err(format!("the image here cannot be smaller: {why}"))),
                Err(why) => self.end_growth(Err(format!("the image here cannot grow: {why}"))),
            }
            return;
        }
        let Some((guest, place)) = self.take_guest(volume) else {
            return;
        };
        let control = match outcome {
            Ok(size) if size >= guest.size => Control::Grown {
                volume: place,
                size: guest.size,
            },
            Ok(size) => Control::GrowRefused {
                volume: place,
                why: format!("the image has {size} bytes"),
            },
            Err(why) => Control::GrowRefused { volume: place, why },
        };
        self.send(guest.peer, guest.connection, control);
    }

    /// Another node asks for a larger image.
    pub(super) fn asked_to_grow(
        &mut self,
        peer: usize,
        connection: ConnectionId,
        (place, size): (usize, u64),
        world: &dyn Volumes,
    ) {
        let mut busy = self.growth.is_some() || self.change.is_some() || self.guests.len() >= GUESTS_MAX;
        let volume = self.volume_at(peer, place);
        // One leads: the answer would go to the other.
        let mut guests = self.guests.iter();
        busy |= guests.any(|guest| guest.peer != peer && Some(guest.volume) == volume);
        busy |= self.role == Role::Primary && volume.is_some_and(|volume| self.would_shrink(volume, size, world));
        match volume {
            Some(volume) if !busy => {
                self.note_led(volume, Some((peer, connection)));
                self.serve_guest(Guest {
                    peer,
                    connection,
                    volume,
                    size,
                });
                self.emit(Output::Grow { volume, size });
            }
            _ => {
                let control = Control::GrowRefused {
                    volume: place as u16,
                    why: "another change of the resource is under way".into(),
                };
                self.send(peer, connection, control);
            }
        }
    }

    /// Another node's image has the size.
    pub(super) fn heard_grown(&mut self, from: usize, place: usize, size: u64) {
        let volume = self.volume_at(from, place);
        if let Some(growth) = &mut self.growth
            && Some(growth.volume) == volume
            && growth.size == size
            && let Stage::Images { missing, grown, .. } = &mut growth.stage
        {
            grown.extend(missing.extract_if(.., |(peer, _)| *peer == from).map(|(peer, _)| peer));
        }
    }

    /// Another node cannot.
    pub(super) fn heard_grow_refused(&mut self, from: usize, why: &str) {
        if self.growth.is_some() {
            let text = format!("{}: {why}", self.peers[from].name);
            self.end_growth(Err(text));
        }
    }

    /// Every image has the size: another node leads, and lets the volume here have it.
    pub(super) fn asked_to_resize(&mut self, peer: usize, place: usize, size: u64, assume_clean: bool) {
        let (Some(volume), Some(connection)) = (self.volume_at(peer, place), self.peers[peer].link.connection()) else {
            return;
        };
        self.note_growth(volume, Some(peer));
        self.note_led(volume, Some((peer, connection)));
        self.serve_guest(Guest {
            peer,
            connection,
            volume,
            size,
        });
        self.order(volume, Order::Resize { size, assume_clean }, Purpose::Resize { size });
    }

    /// A mirror here has taken the size, or not.
    pub(super) fn resize_order_done(&mut self, volume: usize, size: u64, outcome: Result<(), OrderRefusal>) {
        let leads = self
            .growth
            .as_ref()
            .is_some_and(|growth| growth.volume == volume && matches!(growth.stage, Stage::Here));
        if outcome.is_ok() {
            self.guests.retain(|guest| (guest.volume, guest.size) != (volume, size));
            self.tell_size(volume, size);
        }
        if leads {
            self.end_growth(outcome.map_err(|refusal| format!("the volume here cannot take the size: {refusal:?}")));
        } else if let Err(refusal) = outcome
            && let Some((guest, place)) = self.take_guest(volume)
        {
            let control = Control::GrowRefused {
                volume: place,
                why: format!("the volume cannot take the size: {refusal:?}"),
            };
            self.send(guest.peer, guest.connection, control);
        }
    }

    /// The latest word about a volume is the one that is answered.
    fn serve_guest(&mut self, guest: Guest) {
        self.guests.retain(|earlier| earlier.volume != guest.volume);
        self.guests.push(guest);
    }

    /// Whose growth of this volume has got an answer here, and the volume's place in their HELLO; `None`: nobody's, or
    /// they are gone.
    fn take_guest(&mut self, volume: usize) -> Option<(Guest, u16)> {
        let at = self.guests.iter().position(|guest| guest.volume == volume)?;
        let guest = self.guests.remove(at);
        let (connection, place) = self.lane_place(guest.peer, volume)?;
        (connection == guest.connection).then_some((guest, place))
    }

    /// The next stage, if it can be.
    pub(super) fn step_growth(&mut self) {
        let Some(growth) = self.growth.clone() else {
            return;
        };
        let waits_for = match &growth.stage {
            Stage::Images { missing, .. } | Stage::Others { missing } => missing.as_slice(),
            Stage::Here => &[],
        };
        let lost = waits_for
            .iter()
            .find(|(peer, connection)| self.peers[*peer].link.connection() != Some(*connection));
        if let Some((peer, _)) = lost {
            let text = format!("the connection to {} was lost", self.peers[*peer].name);
            self.end_growth(Err(text));
        } else if self.now >= growth.until && !matches!(growth.stage, Stage::Here) {
            self.end_growth(Err("not every node has answered in time".into()));
        } else if self.now >= growth.until {
            let id = self.growth.as_mut().and_then(|growth| growth.id.take());
            let text = "the volume here has not followed in time, and still may: see `blockmirror status`";
            self.answer(id, Answer::Refused(text.into()));
        } else if let Stage::Images {
            here: true,
            missing,
            grown,
        } = &growth.stage
            && missing.is_empty()
        {
            self.resize_others(&growth, grown);
        } else if matches!(&growth.stage, Stage::Others { missing } if missing.is_empty() || !self.keeps(Sabotage::OthersGrowFirst))
        {
            let order = Order::Resize {
                size: growth.size,
                assume_clean: growth.assume_clean,
            };
            let size = growth.size;
            self.order(growth.volume, order, Purpose::Resize { size });
            self.set_growth_stage(Stage::Here);
        }
    }

    /// Who has come while images grew is not among them.
    fn resize_others(&mut self, growth: &Growth, grown: &[usize]) {
        let mut missing = Vec::new();
        for &peer in grown {
            if let Some((connection, place)) = self.lane_place(peer, growth.volume) {
                missing.push((peer, connection));
                let control = Control::Resize {
                    volume: place,
                    size: growth.size,
                    assume_clean: growth.assume_clean,
                };
                self.send(peer, connection, control);
            }
        }
        self.set_growth_stage(Stage::Others { missing });
        self.step_growth();
    }

    fn set_growth_stage(&mut self, stage: Stage) {
        if let Some(growth) = &mut self.growth {
            growth.stage = stage;
        }
    }

    fn end_growth(&mut self, outcome: Result<(), String>) {
        let Some(growth) = self.growth.take() else {
            return;
        };
        let answer = match (outcome, growth.stage) {
            (Ok(()), _) => Answer::Done,
            (Err(why), Stage::Images { .. }) => Answer::Refused(format!("{why}; the volume keeps its size everywhere")),
            (Err(why), _) => Answer::Refused(format!(
                "{why}; some nodes have the new size already: they stay apart from the others until resize is repeated \
                 where it is missing"
            )),
        };
        self.answer(growth.id, answer);
    }
}
