//! All volumes of a resource together: what one node gives up, it gives up in every volume. Else a database would come
//! from one node and its log from the other.

use alloc::vec::Vec;

use super::Role;
use super::decide::{Decision, Newer, Rule, Side, Verdict};
use super::policy::{SplitBrainPolicy, loser_is_first};
use super::rules::{self, Skip, give_up};
use crate::state::LocalDisk;

/// Decides for all common volumes of a resource, in each pair this node first. The same on both nodes, mirrored, when
/// both have the same policy.
///
/// Diverged data are given up by the operator's word (`discard_my_data` on one side), else by the policy: only where
/// both recorded the common ancestor (and not where volumes disagree: what is newer may be of one and the same Primary,
/// and then nobody has gone on from the ancestor alone). The node that gives up must not be Primary, and the other's data
/// must be complete. What is given up is to be saved to a branch first: rules [`Rule::DiscardMyData`] and [`Rule::Policy`].
pub fn decide_together(policy: SplitBrainPolicy, pairs: &[(Side<'_>, Side<'_>)]) -> Vec<Decision> {
    together(policy, pairs, Skip::NONE)
}

/// As [`decide_together`], with one rule left out: the simulator's proof that it would notice.
#[cfg(any(test, feature = "sabotage"))]
pub fn decide_together_without(policy: SplitBrainPolicy, pairs: &[(Side<'_>, Side<'_>)], rule: Rule) -> Vec<Decision> {
    together(policy, pairs, Skip::only(rule))
}

fn together(policy: SplitBrainPolicy, pairs: &[(Side<'_>, Side<'_>)], skip: Skip) -> Vec<Decision> {
    let mut found: Vec<Decision> = pairs
        .iter()
        .map(|(mine, theirs)| rules::decide(mine, theirs, skip))
        .collect();
    if skip.keeps(Rule::VolumesDisagree) {
        part_disagreeing(&mut found, pairs);
    }
    if !found.iter().any(is_diverged) {
        return found;
    }
    let discarded = || surrender(&found, pairs, discarder(pairs)?, Rule::DiscardMyData);
    let by_policy = || {
        let ancestors_known = found.iter().filter(|found| is_diverged(found)).all(|found| {
            let known = matches!(
                found.verdict,
                Verdict::SplitBrain { ancestor: true } | Verdict::OlderPrimary { .. }
            );
            known && found.rule != Rule::VolumesDisagree
        });
        let loser = loser_is_first(policy, pairs).filter(|_| ancestors_known)?;
        surrender(&found, pairs, loser, Rule::Policy)
    };
    let operator = skip.keeps(Rule::DiscardMyData).then(discarded).flatten();
    let decided = operator.or_else(|| skip.keeps(Rule::Policy).then(by_policy).flatten());
    decided.unwrap_or(found)
}

/// One volume went on here, another there: nodes that parted, even if no single volume shows it. Not so where the older
/// image is known to lack something: a Primary without it went on with the other node's.
fn part_disagreeing(found: &mut [Decision], pairs: &[(Side<'_>, Side<'_>)]) {
    let went_on = |found: &Decision| matches!(found.rule, Rule::BitmapForPeer | Rule::BitmapForOther | Rule::History);
    let claims = |found: &Decision, (mine, theirs): &(Side<'_>, Side<'_>)| {
        let older = if found.newer == Newer::Mine { theirs } else { mine };
        went_on(found) && older.volume.disk == LocalDisk::UpToDate
    };
    let newer = |whose| {
        let mut all = found.iter().zip(pairs);
        all.any(|(found, pair)| found.newer == whose && claims(found, pair))
    };
    if !(newer(Newer::Mine) && newer(Newer::Theirs)) {
        return;
    }
    for found in found.iter_mut().filter(|found| went_on(found)) {
        *found = Decision {
            verdict: Verdict::SplitBrain {
                ancestor: found.rule == Rule::BitmapForPeer,
            },
            rule: Rule::VolumesDisagree,
            overruled: Some(found.rule),
            newer: Newer::Neither,
        };
    }
}

/// Only an operator, or a policy in his place, gets the two on together.
fn is_diverged(found: &Decision) -> bool {
    matches!(
        found.verdict,
        Verdict::SplitBrain { .. } | Verdict::Unrelated | Verdict::OlderPrimary { .. }
    )
}

/// The one node whose operator gave its data up: true: this one.
fn discarder(pairs: &[(Side<'_>, Side<'_>)]) -> Option<bool> {
    let (mine, theirs) = pairs.first()?;
    (mine.discard_my_data != theirs.discard_my_data).then_some(mine.discard_my_data)
}

/// Every volume with the loser as the target; `None` when one of them cannot be.
fn surrender(
    found: &[Decision],
    pairs: &[(Side<'_>, Side<'_>)],
    loser_is_mine: bool,
    rule: Rule,
) -> Option<Vec<Decision>> {
    let mut decided = Vec::with_capacity(found.len());
    for (found, (mine, theirs)) in found.iter().zip(pairs) {
        let loser = if loser_is_mine { mine } else { theirs };
        // No word makes volumes of different sizes fit.
        if loser.role == Role::Primary || found.verdict == Verdict::SizeMismatch {
            return None;
        }
        let is_already = match found.verdict {
            Verdict::Target { .. } => loser_is_mine,
            Verdict::Source { .. } => !loser_is_mine,
            Verdict::InStep | Verdict::FreshBoth => true,
            _ => false,
        };
        // What the winner lacks altogether is no data of the loser's that anything else contradicts.
        decided.push(if is_already || found.rule == Rule::FreshOne {
            *found
        } else {
            let verdict = give_up(mine, theirs, loser_is_mine, !bits_tell(found))?;
            Decision {
                verdict,
                rule,
                overruled: Some(found.rule),
                newer: found.newer,
            }
        });
    }
    Some(decided)
}

/// What is marked on either side is all that differs.
fn bits_tell(found: &Decision) -> bool {
    match found.verdict {
        Verdict::SplitBrain { ancestor } => ancestor,
        Verdict::Source { full } | Verdict::Target { full } => !full,
        Verdict::OlderPrimary { .. } => found.overruled == Some(Rule::BitmapForPeer),
        _ => false,
    }
}
