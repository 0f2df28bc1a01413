//! What holds for every pair of sides, whatever the rules: no rule is known here. The mutation run and the tests hold the
//! decision against it over small domains.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::decide::{Decision, Rule, Side, Verdict};
use super::domain::{Node, flags, generations};
use super::meeting;
use super::policy::SplitBrainPolicy;
use super::together::{decide_together, decide_together_without};
use super::{Generation, Role};
use crate::state::LocalDisk;

/// Leave out every rule over all pairs of small domains, each where it decides: what goes wrong first, by rule. Rules in
/// nobody's way here are missing: those that need several volumes or a policy, and those that only save work.
pub fn left_out() -> Vec<(Rule, String)> {
    let mut missed: Vec<(Rule, String)> = Vec::new();
    for (mine, theirs) in [(flags("a"), flags("b")), (generations("a"), generations("b"))] {
        for (a, b) in mine.iter().flat_map(|a| theirs.iter().map(move |b| (a, b))) {
            let found = decide(a, b, None);
            for rule in [Some(found.rule), found.overruled].into_iter().flatten() {
                if missed.iter().any(|(known, _)| *known == rule) {
                    continue;
                }
                let without = decide(a, b, Some(rule));
                if let Some(text) = complaint(a, b, without, decide(b, a, Some(rule))) {
                    missed.push((rule, format!("{text}: {}", in_words(a, b))));
                }
            }
        }
    }
    missed
}

fn decide(a: &Node, b: &Node, without: Option<Rule>) -> Decision {
    let pair: [(Side<'_>, Side<'_>); 1] = [(a.side(), b.side())];
    let policy = SplitBrainPolicy::Manual;
    match without {
        Some(rule) => decide_together_without(policy, &pair, rule)[0],
        None => decide_together(policy, &pair)[0],
    }
}

/// What is wrong with what two sides conclude, each from its own view.
pub(super) fn complaint(a: &Node, b: &Node, found: Decision, other: Decision) -> Option<&'static str> {
    let mirrored = Decision {
        verdict: found.verdict.mirrored(),
        newer: found.newer.mirrored(),
        ..found
    };
    if other != mirrored {
        return Some("the two conclude differently");
    }
    let about_copies = match found.verdict {
        Verdict::InStep => in_step(a, b, found),
        Verdict::Source { full } => copied(a, b, full, found),
        Verdict::SplitBrain { ancestor: true } if knows(a, b) && knows(b, a) => Some("bits count from nowhere known"),
        Verdict::Unrelated if shares_past(a, b) => Some("data with a common past is called unrelated"),
        _ => None,
    };
    about_copies.or_else(|| connected(a, b, found))
}

fn in_step(a: &Node, b: &Node, found: Decision) -> Option<&'static str> {
    if !is_same(a, b) || !is_trusted(a, b) {
        return Some("different data counts as equal");
    }
    if is_marked(a) || is_marked(b) {
        return Some("I9: marked blocks are passed over");
    }
    if a.volume.disk != b.volume.disk || !is_complete(a) {
        return Some("an image that is not whole counts as whole");
    }
    let behind = a.volume.for_peer != 0 || b.volume.for_peer != 0;
    (behind && found.rule == Rule::SameGeneration).then_some("nobody is told that the last word of a resync was lost")
}

/// Who goes on with whom.
fn connected(a: &Node, b: &Node, found: Decision) -> Option<&'static str> {
    let both_primary = a.role == Role::Primary && b.role == Role::Primary;
    let fits = !both_primary && a.volume.size == b.volume.size;
    let withdrawn = got_name_of(a, b) || got_name_of(b, a);
    if !found.verdict.connects() {
        let one_line = is_same(a, b) || withdrawn;
        return (fits && one_line && is_trusted(a, b)).then_some("nodes of one generation part");
    }
    if both_primary {
        return Some("I7: two Primaries go on together");
    }
    if !fits {
        return Some("volumes of different sizes are connected");
    }
    let by_word = found.rule == Rule::DiscardMyData || resumes(a, b) || resumes(b, a);
    let fresh = a.volume.fresh || b.volume.fresh;
    let related = is_same(a, b) || withdrawn || knows(a, b) || knows(b, a);
    (!fresh && !by_word && !related).then_some("diverged data is connected")
}

/// `b` is overwritten from `a`: nothing of it is lost without the operator's word.
fn copied(a: &Node, b: &Node, full: bool, found: Decision) -> Option<&'static str> {
    let discarded = found.rule == Rule::DiscardMyData;
    let same = a.volume.current == b.volume.current || got_name_of(a, b);
    let resumed = resumes(a, b);
    if !is_complete(a) {
        return Some("there is nothing whole to copy from");
    }
    if !full && !is_trusted(a, b) {
        return Some("dirty bits of before a restore are trusted");
    }
    if !discarded && !b.volume.fresh && !resumed && !same && (!knows(a, b) || knows(b, a)) {
        return Some("I7: data is overwritten");
    }
    if b.role == Role::Primary && (!same || b.volume.disk == LocalDisk::UpToDate) {
        return Some("a Primary's data is replaced under its hosts");
    }
    // Only the resync that made it so knows what an Inconsistent image lacks; it had been given up when that began.
    if !full && !resumed && b.volume.disk == LocalDisk::Inconsistent {
        return Some("blocks of other nodes lie in what is copied to");
    }
    if full && resumed && is_trusted(a, b) {
        return Some("a resync that was cut off begins anew");
    }
    let alone = a.role == Role::Secondary && b.role == Role::Secondary;
    let crashed = a.volume.crashed_primary || b.volume.crashed_primary;
    let as_good = same && is_trusted(a, b) && a.volume.disk == b.volume.disk && is_complete(b);
    if as_good && alone && !crashed && is_marked(b) && !is_marked(a) {
        return Some("what only one side has marked is overwritten by the other");
    }
    if as_good && alone && a.volume.crashed_primary && !b.volume.crashed_primary && has_all(a) {
        return Some("what a crash took from a cache is not brought back");
    }
    (!full && !bits_tell(a, b, discarded)).then_some("dirty bits do not tell")
}

/// What is marked in `a` is all that `b` lacks.
fn bits_tell(a: &Node, b: &Node, discarded: bool) -> bool {
    // Given up: what is marked in `b` counts from where they parted, too.
    // What is marked in `a` counts from its record of `b` on; an earlier one in a history stands behind a later one.
    let place = |generation| a.volume.history.iter().position(|earlier| *earlier == generation);
    let since_record = match (place(b.volume.current), place(a.volume.for_peer)) {
        (Some(current), Some(record)) => record > current,
        _ => false,
    };
    since_record
        || resumes(a, b)
        || a.volume.current == b.volume.current
        || got_name_of(a, b)
        || a.volume.for_peer == b.volume.current
        || (discarded && [a.volume.current, a.volume.for_peer].contains(&b.volume.for_peer))
}

/// `b` is Inconsistent by a resync from `a` that has not ended.
fn resumes(a: &Node, b: &Node) -> bool {
    a.volume.sync != 0 && a.volume.sync == b.volume.sync && b.volume.disk == LocalDisk::Inconsistent
}

/// Everybody had every write before `node`, which crashed as Primary, answered it.
fn has_all(node: &Node) -> bool {
    node.volume.acks_wait && node.volume.for_peer == 0
}

/// `b` is a Primary that lacks its data, and was about to call them what they are called in `a`.
fn got_name_of(a: &Node, b: &Node) -> bool {
    let lacks = b.role == Role::Primary && !is_complete(b);
    lacks && !a.volume.fresh && !b.volume.fresh && b.volume.withdrawn.contains(&a.volume.current)
}

fn is_trusted(a: &Node, b: &Node) -> bool {
    meeting::common(&a.side(), &b.side()).is_some()
}

fn is_same(a: &Node, b: &Node) -> bool {
    a.volume.current == b.volume.current && !a.volume.fresh && !b.volume.fresh
}

fn is_marked(node: &Node) -> bool {
    node.volume.dirty_bytes > 0
}

fn is_complete(node: &Node) -> bool {
    !node.volume.fresh && matches!(node.volume.disk, LocalDisk::UpToDate | LocalDisk::Outdated)
}

fn knows(a: &Node, b: &Node) -> bool {
    let generation = b.volume.current;
    a.volume.for_peer == generation
        || a.volume.for_others.contains(&generation)
        || a.volume.history.contains(&generation)
}

fn shares_past(a: &Node, b: &Node) -> bool {
    let mine = past(a);
    past(b).into_iter().any(|generation| mine.contains(&generation))
}

fn past(node: &Node) -> Vec<Generation> {
    let volume = &node.volume;
    let mut all = alloc::vec![volume.current, volume.for_peer];
    all.extend(volume.for_others.iter().chain(&volume.history));
    all.retain(|generation| *generation != 0);
    all
}

fn in_words(a: &Node, b: &Node) -> String {
    let side = |node: &Node| {
        let it = &node.volume;
        format!(
            "{:?} {:?} generation {} for peer {} others {:?} history {:?} withdrawn {:?} dirty {}",
            node.role, it.disk, it.current, it.for_peer, it.for_others, it.history, it.withdrawn, it.dirty_bytes
        )
    };
    format!("{} / {}", side(a), side(b))
}
