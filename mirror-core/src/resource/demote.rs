//! Demotion: this node becomes Secondary, for its operator or for another node that takes the role over.
//!
//! ```text
//!   Draining (hosts are shut out, what is in flight ends) --> Ordering (mirrors leave the role in order) --> Secondary
//! ```
//!
//! While hosts are drained it can be called off, and hosts come again. Once the mirrors have the order it is gone
//! through with.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::{COMMAND_MAX, DRAIN_MAX, HANDBACK};
use super::event::{Answer, CommandId, Output, Volumes};
use super::orders::Purpose;
use super::roles::Change;
use super::{Resource, index};
use crate::event::{ConnectionId, Order, OrderRefusal};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

/// One demotion under way.
#[derive(Clone, Debug)]
pub(super) struct Demotion {
    /// The operator, if it was one.
    pub by: Option<CommandId>,
    /// The node that takes the role over.
    asker: Option<(usize, ConnectionId)>,
    stage: Stage,
    until: Duration,
    failed: Option<(usize, OrderRefusal)>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Draining { drained: bool },
    Ordering { left: usize },
}

impl Demotion {
    pub fn is_ordering(&self) -> bool {
        matches!(self.stage, Stage::Ordering { .. })
    }

    pub fn timeout(&self) -> Option<Duration> {
        (!self.is_ordering() || self.by.is_some()).then_some(self.until)
    }

    pub fn order_done(&mut self, volume: usize, outcome: Result<(), OrderRefusal>) {
        if let Stage::Ordering { left } = &mut self.stage {
            *left -= 1;
        }
        if let Err(refusal) = outcome {
            self.failed = Some((volume, refusal));
        }
    }
}

impl Resource {
    /// Another node wants to be Primary.
    pub(super) fn asked_to_demote(&mut self, peer: usize, connection: ConnectionId, world: &dyn Volumes) {
        let refusal = if self.role == Role::Secondary {
            Some(format!("{} is not Primary", self.config.node))
        } else if self.change.is_some() || self.growth.is_some() {
            Some(format!("{} is in the middle of another change", self.config.node))
        } else if !self.is_in_step(peer, world) {
            Some(format!(
                "{} does not have everything yet: wait for the resync to end",
                self.peers[peer].name
            ))
        } else {
            None
        };
        match refusal {
            Some(why) => self.emit(Output::Send {
                peer: index(peer),
                connection,
                control: Control::DemoteRefused(why),
            }),
            None => self.begin_demotion(None, Some((peer, connection))),
        }
    }

    /// Begin one. Nothing else that changes the role is under way.
    pub(super) fn begin_demotion(&mut self, by: Option<CommandId>, asker: Option<(usize, ConnectionId)>) {
        self.change = Some(Change::Demotion(Demotion {
            by,
            asker,
            stage: Stage::Draining { drained: false },
            until: self.now + DRAIN_MAX,
            failed: None,
        }));
    }

    /// Nothing of hosts is in flight any more.
    pub(super) fn hosts_drained(&mut self) {
        if let Some(Change::Demotion(demotion)) = &mut self.change
            && let Stage::Draining { drained } = &mut demotion.stage
        {
            *drained = true;
        }
    }

    pub(super) fn step_demotion(&mut self, world: &dyn Volumes) {
        let Some(Change::Demotion(demotion)) = &self.change else {
            return;
        };
        let gone = demotion
            .asker
            .is_some_and(|(peer, connection)| self.peers[peer].link.connection() != Some(connection));
        let late = self.now >= demotion.until;
        match demotion.stage {
            Stage::Draining { .. } if gone => self.call_demotion_off("the node that asked for the role is gone"),
            Stage::Draining { drained: true } if self.has_lost_asker(world) => {
                self.call_demotion_off("the node that asked for the role does not have everything any more");
            }
            Stage::Draining { drained } if drained || !self.keeps(Sabotage::DrainedBeforeDemotion) => {
                let left = self.order_all(&Order::Demote, Purpose::Role);
                let until = self.now + COMMAND_MAX;
                if let Some(Change::Demotion(demotion)) = &mut self.change {
                    demotion.stage = Stage::Ordering { left };
                    demotion.until = until;
                }
            }
            Stage::Draining { .. } if late => {
                self.call_demotion_off(
                    "requests of hosts that are in flight do not end (on_disconnect = \"suspend\" may hold them: see `blockmirror status`)",
                );
            }
            Stage::Ordering { left: 0 } => self.end_demotion(gone, world),
            Stage::Ordering { .. } if late => self.answer_late(),
            Stage::Draining { .. } | Stage::Ordering { .. } => {}
        }
    }

    /// What asked to be Primary was in step then; what hosts wrote since may have left it behind (`async`).
    fn has_lost_asker(&self, world: &dyn Volumes) -> bool {
        let Some(Change::Demotion(demotion)) = &self.change else {
            return false;
        };
        demotion.asker.is_some_and(|(peer, _)| !self.is_in_step(peer, world))
    }

    /// Hosts come again.
    fn call_demotion_off(&mut self, why: &str) {
        let Some(Change::Demotion(demotion)) = self.change.take() else {
            return;
        };
        self.answer(demotion.by, Answer::Refused(format!("still Primary: {why}")));
        self.tell_asker(&demotion, Control::DemoteRefused(why.to_owned()));
    }

    fn tell_asker(&mut self, demotion: &Demotion, control: Control) {
        if let Some((peer, connection)) = demotion.asker
            && self.peers[peer].link.connection() == Some(connection)
        {
            self.emit(Output::Send {
                peer: index(peer),
                connection,
                control,
            });
        }
    }

    /// Who lacks something may not take this for an end in order, after which it would have everything: it does not know
    /// what a verify has found, and could become Primary before the two have met anew.
    fn part_with_those_behind(&mut self, world: &dyn Volumes) {
        for peer in self.partners().collect::<Vec<_>>() {
            if self.fell_behind(peer, world) {
                let name = &self.peers[peer].name;
                let text = format!("{name} lacks something that is here: decide again");
                self.say_goodbye(peer, false, text);
            }
        }
    }

    /// Every mirror has answered.
    fn end_demotion(&mut self, asker_gone: bool, world: &dyn Volumes) {
        let lost_asker = self.has_lost_asker(world);
        let Some(Change::Demotion(demotion)) = self.change.take() else {
            return;
        };
        if let Some((volume, refusal)) = demotion.failed {
            // Nobody may take this for an end in order.
            for peer in 0..self.peers.len() {
                self.close(peer, "the role was not left in order");
            }
            self.set_role(Role::Secondary);
            let why = format!(
                "volume {} could not leave the role in order: {refusal:?}",
                self.volumes[volume].name
            );
            self.answer(demotion.by, Answer::Refused(format!("Secondary, but {why}")));
            return;
        }
        self.part_with_those_behind(world);
        self.set_role(Role::Secondary);
        self.answer(demotion.by, Answer::Done);
        let Some((peer, _)) = demotion.asker else {
            return;
        };
        if lost_asker && !asker_gone {
            // Nobody is Primary now; it may be, but for what it lacks.
            let why = format!("{} does not have everything any more", self.peers[peer].name);
            self.tell_asker(&demotion, Control::DemoteRefused(why));
        } else if !asker_gone {
            self.tell_asker(&demotion, Control::Demoted);
            // From here on it may be Primary, whether or not it gets to say so.
            self.peers[peer].consented = Some(self.now);
            self.past.last_primary = Some(peer);
            self.past.sure = false;
            self.past.left_in_order = false;
            self.past.mine = false;
        }
        // If nobody becomes Primary after all, the hosts must not be left without one.
        self.past.take_back = Some(self.now + HANDBACK);
    }
}
