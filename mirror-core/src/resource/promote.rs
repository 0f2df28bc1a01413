//! Promotion: this node becomes Primary, by a planned switchover if another is.
//!
//! ```text
//!   Settling --(a Primary is connected)--> Handover --Demoted--> Consent --all--> Asking --> Ordering --> Primary
//!       '------------------------------------------------------->'
//! ```
//!
//! A Primary that is lost before it has given the role away leads back to Settling, now as a takeover.
//!
//! Handshakes under way come to their end first; what would be lost is looked at; a connected Primary is asked to become
//! Secondary; everybody connected is asked for consent, which is what keeps two nodes from doing this at a time; the
//! mirrors are asked whether they can, so that one that cannot leaves the others as they were; then they are ordered to;
//! hosts come last. Every volume gets a generation of its own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::commands::in_words;
use super::config::{COMMAND_MAX, CONSENT_STANDS, HANDOVER_MAX, SETTLE_MAX};
use super::consent::Asked;
use super::event::{Answer, CommandId, Output, Volumes};
use super::orders::Purpose;
use super::peer::Link;
use super::roles::Change;
use super::{Resource, index};
use crate::event::{ConnectionId, Order, OrderRefusal};
use crate::identity::Role;
use crate::sabotage::Sabotage;
use crate::stream::Control;

/// Said of a promotion that failed when names were being given.
const HALF_DONE: &str = ". The data of this node may have their new names already, and then count as newer than those of \
                         before: what was accepted as lost is given up with that. Mend the volume, then promote again";

/// One promotion under way.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    /// The operator, if it was one.
    pub by: Option<CommandId>,
    force: bool,
    accept: Option<String>,
    pub stage: Stage,
    /// Whose consent was asked.
    pub asked: Vec<Asked>,
    /// All mirrors have said that they can.
    able: bool,
    pub until: Duration,
    /// Who became Secondary for this.
    pub handed_over: Option<usize>,
    promoted: Vec<usize>,
    /// When, by this node's clock: what the mirrors were told.
    since: u64,
    failed: Option<(usize, OrderRefusal)>,
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Settling,
    Handover { peer: usize, connection: ConnectionId },
    Consent,
    Asking { left: usize },
    Ordering { left: usize },
}

impl Promotion {
    /// Mirrors are asked, or told.
    pub fn is_ordering(&self) -> bool {
        matches!(self.stage, Stage::Asking { .. } | Stage::Ordering { .. })
    }

    /// Others have agreed, or have to.
    pub fn asks_or_orders(&self) -> bool {
        matches!(self.stage, Stage::Consent) || self.is_ordering()
    }

    pub fn timeout(&self) -> Option<Duration> {
        (!self.is_ordering() || self.by.is_some()).then_some(self.until)
    }

    pub fn order_done(&mut self, volume: usize, outcome: Result<(), OrderRefusal>) {
        let asked = matches!(self.stage, Stage::Asking { .. });
        if let Stage::Asking { left } | Stage::Ordering { left } = &mut self.stage {
            *left -= 1;
        }
        match outcome {
            Ok(()) if asked => {}
            Ok(()) => self.promoted.push(volume),
            Err(refusal) => self.failed = Some((volume, refusal)),
        }
    }
}

impl Resource {
    /// Begin one. Nothing else that changes the role is under way.
    pub(super) fn begin_promotion(
        &mut self,
        by: Option<CommandId>,
        force: bool,
        accept: Option<String>,
        world: &dyn Volumes,
    ) {
        self.change = Some(Change::Promotion(Promotion {
            by,
            force,
            accept,
            stage: Stage::Settling,
            asked: Vec::new(),
            able: false,
            until: self.now + SETTLE_MAX,
            handed_over: None,
            promoted: Vec::new(),
            since: 0,
            failed: None,
        }));
        self.step_promotion(world);
    }

    pub(super) fn promotion(&mut self) -> Option<&mut Promotion> {
        match &mut self.change {
            Some(Change::Promotion(promotion)) => Some(promotion),
            _ => None,
        }
    }

    pub(super) fn step_promotion(&mut self, world: &dyn Volumes) {
        let now = self.now;
        if self.promotion().is_some_and(|promotion| promotion.is_ordering()) {
            // Who comes on another connection meanwhile knows of nothing.
            self.ask_all();
        }
        let Some(promotion) = self.promotion() else {
            return;
        };
        let (late, refused) = (now >= promotion.until, promotion.failed.is_some());
        match promotion.stage.clone() {
            Stage::Settling => {
                if late || self.is_settled() {
                    self.settled(world);
                }
            }
            Stage::Handover { peer, connection } => self.step_handover(peer, connection, late),
            Stage::Consent => self.step_consent(late, world),
            Stage::Asking { left: 0 } if !refused => {
                promotion.able = true;
                self.begin_consent(None);
                self.step_consent(false, world);
            }
            Stage::Asking { left: 0 } | Stage::Ordering { left: 0 } => self.end_promotion(),
            Stage::Asking { .. } | Stage::Ordering { .. } if late => self.answer_late(),
            Stage::Asking { .. } | Stage::Ordering { .. } => {}
        }
    }

    /// No handshake is on its way to an end, and nobody is expected to say that it has become Primary.
    fn is_settled(&self) -> bool {
        let consented = |at: usize| {
            self.peers[at]
                .consented
                .is_some_and(|at| self.now < at + CONSENT_STANDS)
        };
        if self.connected_partners().any(consented) {
            return false;
        }
        self.connected_partners().all(|at| match &self.peers[at].link {
            Link::Comparing(comparing) => comparing.held.is_some(),
            Link::Joined(joined) => joined.is_ready(),
            Link::Down => true,
        })
    }

    fn settled(&mut self, world: &dyn Volumes) {
        let Some(promotion) = self.promotion() else {
            return;
        };
        let (force, accept) = (promotion.force, promotion.accept.clone());
        let primary = self.partners().find(|at| self.peers[*at].is_connected_primary());
        let permit = self.permit_data(world, primary).and_then(|()| match primary {
            // What it has comes with the handover.
            Some(_) => Ok(()),
            None => self.permit_loss(world, force, accept.as_deref()),
        });
        match (permit, primary) {
            (Err(answer), _) => self.abandon_promotion(answer),
            (Ok(()), Some(peer)) => self.ask_for_handover(peer),
            (Ok(()), None) => {
                self.begin_consent(None);
                self.step_promotion(world);
            }
        }
    }

    fn ask_for_handover(&mut self, peer: usize) {
        let ready = self.peers[peer].joined().filter(|joined| joined.is_ready());
        let Some(connection) = ready.map(|joined| joined.connection) else {
            let text = format!(
                "{} is Primary and the handshake with it has not ended: see `blockmirror why`",
                self.peers[peer].name
            );
            self.abandon_promotion(Answer::Refused(text));
            return;
        };
        let until = self.now + HANDOVER_MAX;
        if let Some(promotion) = self.promotion() {
            promotion.stage = Stage::Handover { peer, connection };
            promotion.until = until;
        }
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control: Control::AskDemote,
        });
    }

    fn step_handover(&mut self, peer: usize, connection: ConnectionId, late: bool) {
        if self.peers[peer].link.connection() != Some(connection) {
            // It is gone, and did not give the role away: what is left is a takeover, with what that asks for.
            self.settle_again();
        } else if late {
            let text = format!("{} did not become Secondary in time", self.peers[peer].name);
            self.abandon_promotion(Answer::Refused(text));
        } else if !self.keeps(Sabotage::DemotedBeforePromotion) {
            self.heard_demoted(peer);
        }
    }

    /// Begin anew: the Primary is not there, or not Primary, any more.
    fn settle_again(&mut self) {
        let until = self.now + SETTLE_MAX;
        if let Some(promotion) = self.promotion() {
            promotion.asked.clear();
            promotion.stage = Stage::Settling;
            promotion.until = until;
        }
    }

    /// The old Primary has become Secondary for this node.
    pub(super) fn heard_demoted(&mut self, peer: usize) {
        let asked = match self.promotion() {
            Some(promotion) => matches!(promotion.stage, Stage::Handover { peer: asked, .. } if asked == peer),
            None => false,
        };
        if !asked {
            return;
        }
        self.heard_role(peer, Role::Secondary);
        if let Some(promotion) = self.promotion() {
            promotion.handed_over = Some(peer);
        }
        self.begin_consent(Some(peer));
    }

    /// The Primary keeps the role.
    pub(super) fn heard_demote_refused(&mut self, peer: usize, why: &str) {
        let asked = match self.promotion() {
            Some(promotion) => matches!(promotion.stage, Stage::Handover { peer: asked, .. } if asked == peer),
            None => false,
        };
        if asked && self.peers[peer].role == Role::Secondary {
            // Not any more: it left the role before it was asked.
            self.settle_again();
        } else if asked {
            let text = format!("{} stays Primary: {why}", self.peers[peer].name);
            self.abandon_promotion(Answer::Refused(text));
        }
    }

    /// Nobody objects: ask the mirrors, and order them to when all of them can.
    pub(super) fn commit_promotion(&mut self, world: &dyn Volumes) {
        let Some(promotion) = self.promotion() else {
            return;
        };
        let (handed_over, force, accept) = (promotion.handed_over, promotion.force, promotion.accept.clone());
        let able = promotion.able;
        let permit = self.permit_data(world, handed_over).and_then(|()| {
            if handed_over.is_some() {
                return Ok(());
            }
            self.permit_loss(world, force, accept.as_deref())
        });
        if let Err(answer) = permit {
            self.abandon_promotion(answer);
            return;
        }
        let alone = self.live_volumes().count() < 2;
        if able || alone || !self.keeps(Sabotage::AskedBeforeTold) {
            return self.order_promotion(handed_over.is_some(), world);
        }
        let left = self.order_all(&Order::Agree, Purpose::Role);
        let until = self.now + COMMAND_MAX;
        if let Some(promotion) = self.promotion() {
            (promotion.stage, promotion.until) = (Stage::Asking { left }, until);
        }
    }

    /// All mirrors become a Primary's. What is not in step meets anew afterwards.
    fn order_promotion(&mut self, handed_over: bool, world: &dyn Volumes) {
        let doubtful = self.doubtful(handed_over, world);
        for peer in 0..self.peers.len() {
            if !matches!(self.peers[peer].link, Link::Down) && !self.is_in_step(peer, world) {
                self.close(peer, "this node becomes Primary: decide again");
            }
        }
        let volumes: Vec<usize> = self.live_volumes().collect();
        let since = self.config.clock + self.now.as_secs();
        for volume in &volumes {
            let order = Order::Promote {
                generation: self.rng.identifier(),
                doubtful: doubtful.clone(),
                since,
            };
            self.order(*volume, order, Purpose::Role);
        }
        let until = self.now + COMMAND_MAX;
        if let Some(promotion) = self.promotion() {
            promotion.stage = Stage::Ordering { left: volumes.len() };
            (promotion.until, promotion.since) = (until, since);
        }
    }

    /// Every mirror has answered.
    fn end_promotion(&mut self) {
        let Some(Change::Promotion(promotion)) = self.change.take() else {
            return;
        };
        if let Some((volume, refusal)) = promotion.failed {
            self.promotion_failed(promotion, volume, refusal);
            return;
        }
        self.past.mine = true;
        self.past.this_life = true;
        self.past.last_primary = None;
        self.past.unless_taken = None;
        self.past.answers_lost = false;
        self.past.take_back = None;
        self.past.primary_since = promotion.since;
        for peer in &mut self.peers {
            peer.consented = None;
        }
        self.set_role(Role::Primary);
        // Who has asked sends its hosts at once: they must find the door open.
        self.admit_hosts();
        self.answer(promotion.by, Answer::Done);
    }

    /// A mirror has refused, or failed while it had its data named: what became of that name nobody knows, and the names
    /// of the others are out. So it is said, for a loss that was accepted is given up with them.
    fn promotion_failed(&mut self, promotion: Promotion, volume: usize, refusal: OrderRefusal) {
        let named = matches!(promotion.stage, Stage::Ordering { .. }) && refusal != OrderRefusal::WrongState;
        let half = named || !promotion.promoted.is_empty();
        for volume in promotion.promoted {
            self.order(volume, Order::Demote, Purpose::Nothing);
        }
        let name = &self.volumes[volume].name;
        let text = format!("volume {name} cannot become Primary: {}", in_words(refusal));
        let answer = if half {
            Answer::HalfDone(text + HALF_DONE)
        } else {
            Answer::Refused(text)
        };
        self.answer(promotion.by, answer);
        self.put_off_take_back();
        self.tell_state();
    }

    /// It comes to nothing. Who has consented hears that it is over.
    pub(super) fn abandon_promotion(&mut self, answer: Answer) {
        if let Some(Change::Promotion(promotion)) = self.change.take() {
            if promotion.by.is_none() {
                self.put_off_take_back();
            }
            self.answer(promotion.by, answer);
            self.tell_state();
        }
    }
}
