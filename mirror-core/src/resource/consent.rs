//! Consent: who wants to become Primary tells everybody it is connected to, and everybody has to agree. A node agrees
//! with one at a time; of two that ask each other, the one whose name comes first goes on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::{CONSENT_MAX, CONSENT_NEWS, CONSENT_STANDS};
use super::event::{Answer, Output, Volumes};
use super::peer::Link;
use super::promote::{Promotion, Stage};
use super::resize::Growth;
use super::roles::Change;
use super::{Resource, index};
use crate::event::ConnectionId;
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

/// Who was asked, on which connection.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    peer: usize,
    connection: ConnectionId,
    agreed: bool,
}

impl Resource {
    /// Everybody has to agree; whoever has just given the role away to this node has.
    pub(super) fn begin_consent(&mut self, but: Option<usize>) {
        let until = self.now + CONSENT_MAX;
        let giver = but.and_then(|peer| Some((peer, self.peers[peer].link.connection()?)));
        let agreed = giver.map(|(peer, connection)| Asked {
            peer,
            connection,
            agreed: true,
        });
        if let Some(promotion) = self.promotion() {
            (promotion.stage, promotion.until) = (Stage::Consent, until);
            promotion.asked.extend(agreed);
        }
    }

    /// Whoever can be asked and was not, on the connection that there is now: what it said on an earlier one it does not
    /// know of any more.
    pub(super) fn ask_all(&mut self) {
        let Some(promotion) = self.promotion() else { return };
        let mut asked = core::mem::take(&mut promotion.asked);
        asked.retain(|asked| self.peers[asked.peer].link.connection() == Some(asked.connection));
        for peer in 0..self.peers.len() {
            let joined = self.peers[peer].joined().map(|joined| joined.connection);
            let held = match &self.peers[peer].link {
                Link::Comparing(comparing) => comparing.heard.as_ref().map(|_| comparing.connection),
                _ => None,
            };
            let is_new = |connection: &ConnectionId| !asked.iter().any(|known| known.is_on(peer, *connection));
            if let Some(connection) = joined.or(held).filter(is_new) {
                self.emit(Output::Send {
                    peer: index(peer),
                    connection,
                    control: Control::Promoting,
                });
                asked.push(Asked {
                    peer,
                    connection,
                    agreed: false,
                });
            }
        }
        if let Some(promotion) = self.promotion() {
            promotion.asked = asked;
        }
    }

    pub(super) fn step_consent(&mut self, late: bool, world: &dyn Volumes) {
        self.ask_all();
        let Some(promotion) = self.promotion() else { return };
        let asked = promotion.asked.clone();
        let missing: Vec<&str> = asked
            .iter()
            .filter(|asked| !asked.agreed)
            .map(|asked| self.peers[asked.peer].name.as_str())
            .collect();
        if missing.is_empty() || !self.keeps(Sabotage::ConsentBeforePromotion) {
            self.commit_promotion(world);
        } else if late {
            let text = format!("{} did not say whether it agrees", missing.join(", "));
            self.abandon_promotion(Answer::Refused(text));
        }
    }

    /// A node has no objection.
    pub(super) fn heard_consent(&mut self, from: usize) {
        if let Some(promotion) = self.promotion() {
            let of_it = promotion.asked.iter_mut().filter(|asked| asked.peer == from);
            of_it.for_each(|asked| asked.agreed = true);
        }
    }

    /// A node objects.
    pub(super) fn heard_objection(&mut self, from: usize, why: &str) {
        let text = format!("{} objects: {why}", self.peers[from].name);
        let asks = |promotion: &mut Promotion| matches!(promotion.stage, Stage::Consent);
        if self.promotion().is_some_and(asks) {
            self.abandon_promotion(Answer::Refused(text));
        }
    }

    /// Another node wants to become Primary.
    pub(super) fn asked_for_consent(&mut self, peer: usize, connection: ConnectionId) {
        self.peers[peer].asked = Some((connection, self.now + CONSENT_NEWS));
        self.answer_question(peer);
    }

    /// When the next question has to be answered.
    pub(super) fn questions_timeout(&self) -> Option<Duration> {
        self.peers.iter().filter_map(|peer| Some(peer.asked?.1)).min()
    }

    /// Answer what the peer has asked, if that can be.
    pub(super) fn answer_question(&mut self, peer: usize) {
        let Some((connection, until)) = self.peers[peer].asked else {
            return;
        };
        let objection = self.objection_to(peer);
        let sees_another = self.primary_but(peer).is_some();
        if objection.is_some() && sees_another && self.now < until {
            return;
        }
        self.peers[peer].asked = None;
        let control = match objection {
            Some(why) => Control::PromoteRefused(why),
            None => {
                let other = self.peers[peer].name.clone();
                let text = format!("{other} is becoming Primary at the same moment, and its name comes first");
                self.abandon_promotion(Answer::Refused(text));
                self.peers[peer].consented = Some(self.now);
                // Perhaps it will not be.
                if self.past.unless_taken.is_none() && !self.past.mine {
                    self.past.unless_taken = Some(self.past.last_primary);
                }
                self.past.last_primary = Some(peer);
                self.past.sure = false;
                self.past.left_in_order = false;
                self.past.mine = false;
                self.past.take_back = None;
                Control::PromoteGranted
            }
        };
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control,
        });
    }

    /// A node besides this one that was Primary when it was last heard of.
    fn primary_but(&self, peer: usize) -> Option<usize> {
        let mut others = self.connected_partners().filter(|at| *at != peer);
        others.find(|at| self.peers[*at].is_connected_primary())
    }

    fn objection_to(&self, peer: usize) -> Option<String> {
        let me = &self.config.node;
        if self.role == Role::Primary || matches!(self.change, Some(Change::Demotion(_))) {
            return Some(format!("{me} is Primary"));
        }
        if self.growth.as_ref().is_some_and(Growth::shrinks) {
            return Some(format!("{me} is making a volume smaller"));
        }
        let first = *me < self.peers[peer].name;
        if let Some(Change::Promotion(promotion)) = &self.change
            && (promotion.is_ordering() || promotion.handed_over.is_some() || first)
        {
            return Some(format!("{me} is becoming Primary at the same moment"));
        }
        if let Some(at) = self.primary_but(peer) {
            return Some(format!("{} is Primary, as {me} sees it", self.peers[at].name));
        }
        let others = self.connected_partners().filter(|at| *at != peer);
        for at in others {
            let other = &self.peers[at];
            if other.consented.is_some_and(|at| self.now < at + CONSENT_STANDS) {
                return Some(format!("{} is becoming Primary, and {me} has agreed", other.name));
            }
        }
        None
    }
}

impl Asked {
    fn is_on(&self, peer: usize, connection: ConnectionId) -> bool {
        self.peer == peer && self.connection == connection
    }
}
