//! The rules of [`decide`](super::decide::decide), in their order.

use core::cmp::Ordering;

use super::decide::{Decision, Newer, Rule, Side, Verdict};
use super::lineage::{Known, is_same_data, known, made_since, shares_past, withdrew};
use super::meeting;
use super::sides::{disk_rank, is_complete, is_inconsistent, is_marked, is_primary};
use crate::state::LocalDisk;

/// A rule that is left out, if any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip(Option<Rule>);

impl Skip {
    /// Every rule holds.
    pub(super) const NONE: Self = Self(None);

    /// All but this one.
    #[cfg(any(test, feature = "sabotage"))]
    pub(super) const fn only(rule: Rule) -> Self {
        Self(Some(rule))
    }

    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.0 != Some(rule)
    }
}

/// One of two sides, as the rules speak of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Mine,
    Theirs,
}

impl Who {
    fn other(self) -> Self {
        match self {
            Self::Mine => Self::Theirs,
            Self::Theirs => Self::Mine,
        }
    }

    fn newer(self) -> Newer {
        match self {
            Self::Mine => Newer::Mine,
            Self::Theirs => Newer::Theirs,
        }
    }
}

/// Both sides, and what is asked of them as a pair.
struct Pair<'s, 'a> {
    mine: &'s Side<'a>,
    theirs: &'s Side<'a>,
    skip: Skip,
}

pub(super) fn decide(mine: &Side<'_>, theirs: &Side<'_>, skip: Skip) -> Decision {
    let pair = Pair { mine, theirs, skip };
    let found = pair
        .unfit()
        .or_else(|| pair.resumed())
        .or_else(|| pair.fresh())
        .or_else(|| pair.restored())
        .or_else(|| pair.withdrawn())
        .or_else(|| pair.same_generation())
        .unwrap_or_else(|| pair.different_generations());
    pair.checked(found)
}

impl<'s, 'a> Pair<'s, 'a> {
    fn side(&self, who: Who) -> &'s Side<'a> {
        match who {
            Who::Mine => self.mine,
            Who::Theirs => self.theirs,
        }
    }

    /// The one side for which `holds`; `None` when it holds for both or neither.
    fn only(&self, holds: impl Fn(&Side<'_>) -> bool) -> Option<Who> {
        match (holds(self.mine), holds(self.theirs)) {
            (true, false) => Some(Who::Mine),
            (false, true) => Some(Who::Theirs),
            _ => None,
        }
    }

    fn both(&self, holds: impl Fn(&Side<'_>) -> bool) -> bool {
        holds(self.mine) && holds(self.theirs)
    }

    fn neither(&self, holds: impl Fn(&Side<'_>) -> bool) -> bool {
        !holds(self.mine) && !holds(self.theirs)
    }

    /// The rule's verdict, unless the rule is left out.
    fn ruling(&self, rule: Rule, verdict: Verdict, newer: Newer) -> Option<Decision> {
        self.skip.keeps(rule).then_some(Decision {
            verdict,
            rule,
            overruled: None,
            newer,
        })
    }

    fn copy_from(&self, source: Who, full: bool, rule: Rule, newer: Newer) -> Option<Decision> {
        self.ruling(rule, verdict_of(source, full), newer)
    }

    /// Pairs that cannot work together whatever their data.
    fn unfit(&self) -> Option<Decision> {
        if self.mine.volume.size != self.theirs.volume.size {
            let found = self.ruling(Rule::SizeMismatch, Verdict::SizeMismatch, Newer::Neither);
            if found.is_some() {
                return found;
            }
        }
        if self.both(is_primary) {
            return self.ruling(Rule::TwoPrimaries, Verdict::TwoPrimaries, Newer::Neither);
        }
        None
    }

    /// Both remember the resync that made the one Inconsistent: it was given up for the other's data then, whatever its
    /// identifiers say, and has not been written to by anybody else.
    fn resumed(&self) -> Option<Decision> {
        let (mine, theirs) = (self.mine.volume, self.theirs.volume);
        if mine.sync == 0 || mine.sync != theirs.sync || meeting::common(self.mine, self.theirs).is_none() {
            return None;
        }
        let target = self.only(is_inconsistent)?;
        let source = target.other();
        // Of one generation nobody was Primary in between: the target may still be the one that had the role.
        let newer = if is_same_data(self.mine, self.theirs) {
            Newer::Same
        } else {
            source.newer()
        };
        is_complete(self.side(source))
            .then(|| self.copy_from(source, false, Rule::ResyncResumed, newer))
            .flatten()
    }

    fn fresh(&self) -> Option<Decision> {
        let fresh = |side: &Side<'_>| side.volume.fresh;
        if self.both(fresh) {
            return self.ruling(Rule::FreshBoth, Verdict::FreshBoth, Newer::Neither);
        }
        let source = self.only(fresh)?.other();
        self.copy_from(source, true, Rule::FreshOne, source.newer())
    }

    /// The side that has forgotten a meeting was put back to an earlier state. Its dirty bits, and the other's for it,
    /// do not tell what differs; and that its generation is known to the other does not mean that it has all of it.
    fn restored(&self) -> Option<Decision> {
        if meeting::common(self.mine, self.theirs).is_some() {
            return None;
        }
        let count = |side: &Side<'_>| side.volume.met.count;
        let source = match count(self.mine).cmp(&count(self.theirs)) {
            Ordering::Greater => Some(Who::Mine),
            Ordering::Less => Some(Who::Theirs),
            // Each has met somebody else under the other's name: a clone.
            Ordering::Equal => None,
        };
        if let Some(source) = source {
            let (old, new) = (self.side(source.other()), self.side(source));
            let same = old.volume.current == new.volume.current;
            let moved_on = !same && (known(new, old).is_none() || known(old, new).is_some());
            if !moved_on {
                return self.copy_from(source, true, Rule::Restored, source.newer());
            }
            if made_since(old, new) {
                return Some(in_full(self.different_generations()));
            }
        }
        let split = Verdict::SplitBrain { ancestor: false };
        shares_past(self.mine, self.theirs)
            .then(|| self.ruling(Rule::RestoredAndMovedOn, split, Newer::Neither))
            .flatten()
    }

    /// A Primary without the data has withdrawn the name that the other was told of just before it was lost: what it had
    /// then, it has now, and the Primary's hosts have seen nothing newer.
    fn withdrawn(&self) -> Option<Decision> {
        let source = match (withdrew(self.mine, self.theirs), withdrew(self.theirs, self.mine)) {
            (true, _) => Who::Theirs,
            (_, true) => Who::Mine,
            _ => return None,
        };
        self.copy_from(source, false, Rule::WithdrawnName, Newer::Same)
    }

    fn same_generation(&self) -> Option<Decision> {
        if self.mine.volume.current != self.theirs.volume.current {
            return None;
        }
        let found = self.worse_disk().or_else(|| self.marked_blocks());
        if found.is_some() {
            return found;
        }
        let behind = |side: &Side<'_>| side.volume.for_peer != 0;
        let in_step = |rule| self.ruling(rule, Verdict::InStep, Newer::Same);
        if self.neither(behind) {
            in_step(Rule::SameGeneration)
        } else {
            in_step(Rule::MissedFinish).or_else(|| in_step(Rule::SameGeneration))
        }
    }

    /// Of one generation: a complete image is copied from, an incomplete one never. Nor is one that is known to lack something
    /// copied over what the other has left, which may be just that: somebody has to say that it is the data.
    fn worse_disk(&self) -> Option<Decision> {
        let rank = |side: &Side<'_>| disk_rank(side.volume.disk);
        let outdated = |side: &Side<'_>| side.volume.disk == LocalDisk::Outdated;
        let lacking = self.neither(is_primary) && self.only(outdated).is_some() && self.only(is_inconsistent).is_some();
        if self.neither(is_complete) || lacking {
            return self.ruling(Rule::BothIncomplete, Verdict::NoSource, Newer::Same);
        }
        let source = match rank(self.mine).cmp(&rank(self.theirs)) {
            Ordering::Greater => Who::Mine,
            Ordering::Less => Who::Theirs,
            Ordering::Equal => return None,
        };
        // A Diskless leg lacks what was written since, and bits say what that is. Another that is worse without a bit
        // to say where contradicts itself: everything is compared.
        let diskless = self.side(source.other()).volume.disk == LocalDisk::Diskless;
        let full = !diskless && self.neither(is_marked);
        self.copy_from(source, full, Rule::DiskState, Newer::Same)
    }

    /// Of one generation, both as good: blocks that are marked on either side are compared and copied (I9).
    fn marked_blocks(&self) -> Option<Decision> {
        if self.neither(is_marked) {
            return None;
        }
        let from = |source, rule| self.copy_from(source, false, rule, Newer::Same);
        let primary = self.only(is_primary).and_then(|who| from(who, Rule::PrimaryDecides));
        let crashed = || {
            let crashed = self.only(|side| side.volume.crashed_primary)?;
            let volume = self.side(crashed).volume;
            // Normally only the crashed side may hold writes that were answered. With a peer that had every one of
            // them first it is the other way: what the crash took from this image's cache is still there.
            let survivor_has_all = volume.acks_wait && volume.for_peer == 0;
            let source = if survivor_has_all { crashed.other() } else { crashed };
            from(source, Rule::CrashedPrimary)
        };
        let one_side = || self.only(is_marked).and_then(|who| from(who, Rule::BitsOneSide));
        primary.or_else(crashed).or_else(one_side).or_else(|| self.tie())
    }

    /// Both sides have blocks marked and nothing tells them apart: the one that was Primary later, else the one whose
    /// name comes first. Either is right; it only has to be the same on both.
    fn tie(&self) -> Option<Decision> {
        let (mine, theirs) = (self.mine, self.theirs);
        let order = mine
            .primary_since
            .cmp(&theirs.primary_since)
            .then_with(|| theirs.node.cmp(mine.node));
        let source = match order {
            Ordering::Greater => Who::Mine,
            Ordering::Less => Who::Theirs,
            // Two nodes of one name: nothing is safe.
            Ordering::Equal => return self.ruling(Rule::BitsBothSides, Verdict::NoSource, Newer::Same),
        };
        self.copy_from(source, false, Rule::BitsBothSides, Newer::Same)
    }

    /// Who knows the other's generation as an earlier one has the newer data.
    fn different_generations(&self) -> Decision {
        let split = |ancestor, rule| self.ruling(rule, Verdict::SplitBrain { ancestor }, Newer::Neither);
        let relation = match (known(self.mine, self.theirs), known(self.theirs, self.mine)) {
            (Some(_), Some(_)) => split(false, Rule::Contradiction),
            (Some(how), None) => self.copy_known(Who::Mine, how),
            (None, Some(how)) => self.copy_known(Who::Theirs, how),
            (None, None) => None,
        };
        let parted = || {
            let (mine, theirs) = (self.mine.volume.for_peer, self.theirs.volume.for_peer);
            (mine == theirs && mine != 0)
                .then(|| split(true, Rule::PartedTogether))
                .flatten()
        };
        let past = || {
            shares_past(self.mine, self.theirs)
                .then(|| split(false, Rule::CommonHistory))
                .flatten()
        };
        relation
            .or_else(parted)
            .or_else(past)
            .unwrap_or_else(|| self.unrelated())
    }

    /// Nothing else applies. (Left out, data that nobody knows anything of would be taken for equal.)
    fn unrelated(&self) -> Decision {
        let verdict = if self.skip.keeps(Rule::Unrelated) {
            Verdict::Unrelated
        } else {
            Verdict::InStep
        };
        Decision {
            verdict,
            rule: Rule::Unrelated,
            overruled: None,
            newer: Newer::Neither,
        }
    }

    fn copy_known(&self, source: Who, how: Known) -> Option<Decision> {
        let (full, rule) = match how {
            Known::ForPeer => (false, Rule::BitmapForPeer),
            Known::ForOther => (true, Rule::BitmapForOther),
            // The other was told of a generation that it confirmed to nobody: the bits count from before it.
            Known::HistorySinceRecord => (false, Rule::History),
            Known::History => (true, Rule::History),
        };
        self.copy_from(source, full, rule, source.newer())
    }

    /// A copy needs a complete source, and a target whose hosts do not work on what would be replaced.
    fn checked(&self, found: Decision) -> Decision {
        let source = match found.verdict {
            Verdict::Source { .. } => Who::Mine,
            Verdict::Target { .. } => Who::Theirs,
            _ => return found,
        };
        let overrule = |rule, verdict| Decision {
            verdict,
            rule,
            overruled: Some(found.rule),
            newer: found.newer,
        };
        // Of one generation: a Primary gets back the very data it serves.
        let same = is_same_data(self.mine, self.theirs);
        let gets_back = same && matches!(found.rule, Rule::DiskState | Rule::ResyncResumed | Rule::WithdrawnName);
        let target = self.side(source.other());
        let replaced = is_primary(target) && !gets_back;
        if replaced && self.skip.keeps(Rule::OlderPrimary) {
            let mine = source == Who::Theirs;
            return overrule(Rule::OlderPrimary, Verdict::OlderPrimary { mine });
        }
        if !is_complete(self.side(source)) && self.skip.keeps(Rule::SourceIncomplete) {
            return overrule(Rule::SourceIncomplete, Verdict::NoSource);
        }
        // Blocks of another resync lie in it, and nobody here has them marked.
        let mixed = is_inconsistent(target) && found.rule != Rule::ResyncResumed;
        let verdict = if mixed { verdict_of(source, true) } else { found.verdict };
        Decision { verdict, ..found }
    }
}

/// One side's data is given up for the other's; `None` when that is not possible: the loser is Primary, or the other
/// has no complete data.
pub(super) fn give_up(mine: &Side<'_>, theirs: &Side<'_>, loser_is_mine: bool, full: bool) -> Option<Verdict> {
    let (loser, source) = if loser_is_mine {
        (mine, Who::Theirs)
    } else {
        (theirs, Who::Mine)
    };
    let winner = if loser_is_mine { theirs } else { mine };
    let full = full || is_inconsistent(loser);
    (!is_primary(loser) && is_complete(winner)).then(|| verdict_of(source, full))
}

/// Bits of before they met do not tell what differs.
fn in_full(found: Decision) -> Decision {
    let verdict = match found.verdict {
        Verdict::Source { .. } => Verdict::Source { full: true },
        Verdict::Target { .. } => Verdict::Target { full: true },
        other => other,
    };
    Decision { verdict, ..found }
}

fn verdict_of(source: Who, full: bool) -> Verdict {
    match source {
        Who::Mine => Verdict::Source { full },
        Who::Theirs => Verdict::Target { full },
    }
}
