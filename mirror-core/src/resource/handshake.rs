//! The handshake: both nodes say who they are, decide by the same rules, and tell each other what they concluded.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Event, Output, Volumes};
use super::loss::{has_more, lacked};
use super::park::waits_for_primary;
use super::peer::{Comparing, Link, Ruling, VerdictHeard};
use super::why::{HandshakeRecord, VolumeRecord};
use super::{Resource, index};
use crate::identity::{Decision, NodeIdentity, Role, Side, Verdict, VolumeIdentity, decide_together, next_meeting};
use crate::sabotage::Sabotage;
use crate::stream::Control;

impl Resource {
    /// This node, as the peer is to be told.
    pub(super) fn identity_for(&self, peer: usize, revision: u32, world: &dyn Volumes) -> NodeIdentity {
        let mut volumes: Vec<VolumeIdentity> = self
            .live_volumes()
            .map(|at| VolumeIdentity {
                name: self.volumes[at].name.clone(),
                ..world.identity(at, index(peer))
            })
            .collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        NodeIdentity {
            node: self.config.node.clone(),
            incarnation: self.config.incarnation,
            revision,
            role: self.role,
            discard_my_data: self.gives_up(peer, world) && self.role == Role::Secondary,
            primary_since: self.past.primary_since,
            bits_tell: self.bits_tell(peer),
            was_primary: self.past.mine,
            answers_lost: self.past.answers_lost,
            volumes,
        }
    }

    /// The other has said who it is.
    pub(super) fn heard_identity(&mut self, peer: usize, identity: NodeIdentity) {
        if identity.node != self.peers[peer].name {
            let text = format!(
                "a node that calls itself {} came in the place of {}",
                identity.node, self.peers[peer].name
            );
            self.say_goodbye(peer, true, text);
            return;
        }
        let role = identity.role;
        let disks = identity
            .volumes
            .iter()
            .map(|volume| (volume.name.clone(), volume.disk))
            .collect();
        self.peers[peer].disks = disks;
        match &mut self.peers[peer].link {
            Link::Down => return,
            Link::Comparing(comparing) => {
                comparing.heard = Some(identity);
                comparing.rulings = None;
                comparing.verdict_said = false;
                comparing.held = None;
            }
            Link::Joined(_) => {
                self.close(peer, "the other node has changed since the handshake");
            }
        }
        self.heard_role(peer, role);
    }

    /// The other has said what it concluded.
    pub(super) fn heard_verdict(&mut self, peer: usize, mine: u32, yours: u32, verdicts: Vec<u8>, text: String) {
        if let Link::Comparing(comparing) = &mut self.peers[peer].link {
            comparing.verdict_heard = Some(VerdictHeard {
                my_revision: mine,
                your_revision: yours,
                verdicts,
                text,
            });
        }
    }

    /// Say what has to be said, conclude what can be concluded.
    pub(super) fn step_handshake(&mut self, peer: usize, world: &dyn Volumes) {
        // What a change of role makes of the identifiers is told when it is done.
        if self.is_giving_orders() {
            return;
        }
        self.say_identity(peer, world);
        self.rule(peer);
        let Link::Comparing(comparing) = &self.peers[peer].link else {
            return;
        };
        if comparing.rulings.is_none() {
            return;
        }
        let held = self.why_held(peer);
        if let Link::Comparing(comparing) = &mut self.peers[peer].link {
            comparing.held.clone_from(&held);
        }
        if held.is_none() {
            self.say_verdict(peer);
            self.conclude(peer);
        }
    }

    /// Once, and again when it is not true any more.
    fn say_identity(&mut self, peer: usize, world: &dyn Volumes) {
        let Link::Comparing(comparing) = &self.peers[peer].link else {
            return;
        };
        let connection = comparing.connection;
        let said = comparing.said.as_ref();
        let revision = said.map_or(1, |said| said.revision + 1);
        let identity = self.identity_for(peer, revision, world);
        if said.is_some_and(|said| !self.keeps(Sabotage::IdentityRevised) || is_same(said, &identity)) {
            return;
        }
        if let Link::Comparing(comparing) = &mut self.peers[peer].link {
            comparing.said = Some(identity.clone());
            comparing.rulings = None;
            comparing.verdict_said = false;
        }
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control: Control::Identity(identity),
        });
    }

    /// Decide, once both identities are there; part if that is what it comes to.
    fn rule(&mut self, peer: usize) {
        let Link::Comparing(comparing) = &self.peers[peer].link else {
            return;
        };
        let (Some(mine), Some(theirs), None) = (&comparing.said, &comparing.heard, &comparing.rulings) else {
            return;
        };
        let rulings = self.judge(mine, theirs);
        let record = HandshakeRecord::new(&self.config.name, self.now, mine, theirs, &rulings);
        let refusal = refusal(&record, &rulings, mine, theirs);
        let newer = rulings.iter().any(|ruling| has_more(ruling, theirs));
        let lacked = lacked(&self.peers[peer].lacked, &rulings, mine);
        let state = &mut self.peers[peer];
        state.record = Some(record);
        (state.newer, state.lacked) = (newer, lacked);
        let any = |is: fn(&Verdict) -> bool| rulings.iter().any(|ruling| is(&ruling.decision.verdict));
        let is_split = any(|verdict| {
            matches!(
                verdict,
                Verdict::SplitBrain { .. } | Verdict::Unrelated | Verdict::TwoPrimaries
            )
        });
        // A volume may be growing, on one node a moment before the other.
        let heals = any(|verdict| *verdict == Verdict::SizeMismatch) && !is_split;
        if let Some(text) = refusal {
            self.part(peer, text, is_split, !heals);
        } else if let Link::Comparing(comparing) = &mut self.peers[peer].link {
            comparing.rulings = Some(rulings);
        }
    }

    /// The two cannot go on together: not before an operator has looked, if `stand_alone`.
    fn part(&mut self, peer: usize, text: String, is_split: bool, stand_alone: bool) {
        if is_split {
            self.peers[peer].split_brain = Some(text.clone());
            self.event(Event::SplitBrain {
                peer: index(peer),
                text: text.clone(),
            });
        }
        if let Some(record) = &mut self.peers[peer].record {
            record.outcome = format!("refused: {text}");
        }
        self.say_goodbye(peer, stand_alone, text);
    }

    fn judge(&self, mine: &NodeIdentity, theirs: &NodeIdentity) -> Vec<Ruling> {
        let mut places = Vec::new();
        let mut pairs = Vec::new();
        for (my_place, volume) in mine.volumes.iter().enumerate() {
            let Some(their_place) = theirs.volumes.iter().position(|other| other.name == volume.name) else {
                continue;
            };
            let Some(at) = self.live_volumes().find(|at| self.volumes[*at].name == volume.name) else {
                continue;
            };
            places.push((at, my_place, their_place));
            let other = &theirs.volumes[their_place];
            pairs.push((Side::new(mine, volume), Side::new(theirs, other)));
        }
        let decisions = self.decide(&pairs);
        let judged = places.into_iter().zip(&pairs).zip(decisions);
        judged
            .map(|(((volume, mine, theirs), (ours, other)), decision)| Ruling {
                volume,
                mine,
                theirs,
                decision,
                next: next_meeting(ours, other),
            })
            .collect()
    }

    /// All volumes of a resource are of one time: data that is given up in one is given up in all.
    fn decide(&self, pairs: &[(Side<'_>, Side<'_>)]) -> Vec<Decision> {
        let policy = self.config.split_brain;
        #[cfg(feature = "sabotage")]
        if let Some(Sabotage::Decision(rule)) = self.kept.broken {
            return crate::identity::decide_together_without(policy, pairs, rule);
        }
        if self.keeps(Sabotage::VolumesTogether) {
            decide_together(policy, pairs)
        } else {
            let alone = |pair| decide_together(policy, core::slice::from_ref(pair));
            pairs.iter().flat_map(alone).collect()
        }
    }

    /// Why the verdict has to wait. A volume is overwritten from one side at a time. And two Secondaries that differ do
    /// not copy from each other while a Primary is connected to one of them: it knows better, and what it writes meanwhile
    /// would be missing.
    fn why_held(&self, peer: usize) -> Option<String> {
        let Link::Comparing(comparing) = &self.peers[peer].link else {
            return None;
        };
        let theirs = comparing.heard.as_ref()?;
        let targets = comparing.rulings.as_ref()?.iter();
        let targets = targets.filter(|ruling| matches!(ruling.decision.verdict, Verdict::Target { .. }));
        for ruling in targets.filter(|_| self.keeps(Sabotage::OneSource)) {
            let other = self
                .partners()
                .find(|at| *at != peer && self.is_target_of(*at, ruling.volume));
            if let Some(other) = other {
                let (volume, name) = (&self.volumes[ruling.volume].name, &self.peers[other].name);
                return Some(format!("volume {volume} is being copied from {name}: one at a time"));
            }
        }
        let mut primaries = self
            .partners()
            .filter(|at| *at != peer && self.peers[*at].is_connected_primary());
        let primary = primaries.next().map(|at| &self.peers[at].name);
        let mine = comparing.said.as_ref()?;
        let overwritten = |ruling: &Ruling| matches!(ruling.decision.verdict, Verdict::Target { .. });
        if theirs.role == Role::Primary
            && let Some(primary) = primary.filter(|_| mine.role == Role::Secondary)
            && comparing.rulings.iter().flatten().any(overwritten)
        {
            return Some(format!(
                "{primary} is Primary as well: what it writes here is not overwritten before one of the two is demoted"
            ));
        }
        let differ = comparing.rulings.as_ref()?.iter().any(|ruling| {
            let copied = matches!(ruling.decision.verdict, Verdict::Source { .. } | Verdict::Target { .. });
            copied && !waits_for_primary(ruling, mine, theirs)
        });
        if !differ || self.role == Role::Primary || theirs.role == Role::Primary {
            return None;
        }
        if let Some(primary) = primary {
            return Some(format!(
                "{primary} is Primary and brings both up to date: nothing is copied between two Secondaries"
            ));
        }
        self.is_role_moving()
            .then(|| "a node is becoming Primary at this moment: it decides".to_owned())
    }

    fn say_verdict(&mut self, peer: usize) {
        let Link::Comparing(comparing) = &mut self.peers[peer].link else {
            return;
        };
        let (Some(mine), Some(theirs), Some(rulings)) = (&comparing.said, &comparing.heard, &comparing.rulings) else {
            return;
        };
        if comparing.verdict_said {
            return;
        }
        let control = Control::Verdict {
            my_revision: mine.revision,
            your_revision: theirs.revision,
            verdicts: rulings.iter().map(|ruling| ruling.decision.verdict.code()).collect(),
            text: rules_in_words(rulings, mine),
        };
        comparing.verdict_said = true;
        let connection = comparing.connection;
        self.emit(Output::Send {
            peer: index(peer),
            connection,
            control,
        });
    }

    /// Both have concluded: of the same, and the same?
    fn conclude(&mut self, peer: usize) {
        let Link::Comparing(comparing) = &self.peers[peer].link else {
            return;
        };
        let (Some(mine), Some(theirs), Some(rulings), Some(heard)) = (
            &comparing.said,
            &comparing.heard,
            &comparing.rulings,
            &comparing.verdict_heard,
        ) else {
            return;
        };
        let of_these = heard.my_revision == theirs.revision && heard.your_revision == mine.revision;
        if !of_these && self.keeps(Sabotage::VerdictOfRevision) {
            return;
        }
        let agreed = rulings.len() == heard.verdicts.len()
            && rulings
                .iter()
                .zip(&heard.verdicts)
                .all(|(ruling, code)| ruling.decision.verdict.mirrored().code() == *code);
        if agreed {
            self.join(peer);
            return;
        }
        let text = format!(
            "the nodes conclude differently: here {}; there {}; are they configured alike (split_brain) and of \
             releases that fit?",
            rules_in_words(rulings, mine),
            heard.text
        );
        self.part(peer, text, false, true);
    }

    /// What is agreed is what the join goes on with.
    pub(super) fn take_comparing(&mut self, peer: usize) -> Option<Comparing> {
        match core::mem::replace(&mut self.peers[peer].link, Link::Down) {
            Link::Comparing(comparing) => Some(comparing),
            other => {
                self.peers[peer].link = other;
                None
            }
        }
    }
}

/// Would it be decided alike? How much is dirty changes with every write, and does not matter as long as it is not
/// nothing.
fn is_same(a: &NodeIdentity, b: &NodeIdentity) -> bool {
    let same_volume = |a: &VolumeIdentity, b: &VolumeIdentity| {
        a.name == b.name
            && a.size == b.size
            && a.fresh == b.fresh
            && a.current == b.current
            && a.for_peer == b.for_peer
            && a.for_others == b.for_others
            && a.withdrawn == b.withdrawn
            && a.disk == b.disk
            && a.crashed_primary == b.crashed_primary
            && (a.dirty_bytes == 0) == (b.dirty_bytes == 0)
    };
    a.role == b.role
        && a.discard_my_data == b.discard_my_data
        && a.bits_tell == b.bits_tell
        && a.answers_lost == b.answers_lost
        && a.volumes.len() == b.volumes.len()
        && a.volumes.iter().zip(&b.volumes).all(|(a, b)| same_volume(a, b))
}

/// Why the two cannot go on together, if they cannot: one volume is enough.
fn refusal(record: &HandshakeRecord, rulings: &[Ruling], mine: &NodeIdentity, theirs: &NodeIdentity) -> Option<String> {
    if rulings.is_empty() && !(mine.volumes.is_empty() && theirs.volumes.is_empty()) {
        return Some(format!(
            "{} and {} have no volume of the same name",
            mine.node, theirs.node
        ));
    }
    let at = rulings.iter().position(|ruling| !ruling.decision.verdict.connects())?;
    let VolumeRecord { name, explanation, .. } = &record.volumes[at];
    let mut text = format!("volume {name}: {} ({})", explanation.verdict, explanation.because);
    for alternative in &explanation.alternatives {
        text.push_str("; you can: ");
        text.push_str(alternative);
    }
    Some(text)
}

fn rules_in_words(rulings: &[Ruling], mine: &NodeIdentity) -> String {
    let words: Vec<String> = rulings
        .iter()
        .map(|ruling| {
            let name = &mine.volumes[ruling.mine].name;
            format!("{name}: {}", ruling.decision.rule.name())
        })
        .collect();
    if words.is_empty() {
        "no volumes".to_owned()
    } else {
        words.join(", ")
    }
}
