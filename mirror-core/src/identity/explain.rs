//! A decision in plain words: what, why, from which inputs, and what else could be done.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Role;
use super::decide::{Decision, Newer, Rule, Side, Verdict};

/// What `blockmirror why` tells of a handshake, for one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of the volume.
    pub verdict: String,
    /// The name of the rule.
    pub rule: &'static str,
    /// Why, in a sentence.
    pub because: String,
    /// What both sides said, one line each.
    pub inputs: Vec<String>,
    /// Rules that were tried before and did not apply, in their order.
    pub tried: Vec<&'static str>,
    /// What an operator could do, if anything is open to him.
    pub alternatives: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (rule {}): {}", self.verdict, self.rule, self.because)?;
        for input in &self.inputs {
            writeln!(f, "  {input}")?;
        }
        if !self.tried.is_empty() {
            writeln!(f, "  did not apply: {}", self.tried.join(", "))?;
        }
        for alternative in &self.alternatives {
            writeln!(f, "  you can: {alternative}")?;
        }
        Ok(())
    }
}

/// Explains a decision about a volume of `resource` by what it was made of.
pub fn explain(resource: &str, decision: &Decision, mine: &Side<'_>, theirs: &Side<'_>) -> Explanation {
    Explanation {
        verdict: verdict_in_words(decision.verdict, mine.node, theirs.node),
        rule: decision.rule.name(),
        because: because(decision, mine, theirs),
        inputs: [mine, theirs].map(|side| input(side)).into(),
        tried: tried(decision),
        alternatives: alternatives(resource, decision, mine, theirs),
    }
}

fn verdict_in_words(verdict: Verdict, mine: &str, theirs: &str) -> String {
    let copies = |from: &str, to: &str, full: bool| {
        let what = if full {
            "everything is compared by digests and what differs copied"
        } else {
            "what is dirty is compared and copied"
        };
        format!("{what} from {from} to {to}")
    };
    match verdict {
        Verdict::InStep => "in step, nothing to copy".to_owned(),
        Verdict::Source { full } => copies(mine, theirs, full),
        Verdict::Target { full } => copies(theirs, mine, full),
        Verdict::FreshBoth => "connected, and neither node has data yet".to_owned(),
        Verdict::NoSource => "connected, but there is no complete data to copy".to_owned(),
        Verdict::SplitBrain { .. } => "split brain, nobody's data is touched".to_owned(),
        Verdict::Unrelated => "unrelated data, nobody's data is touched".to_owned(),
        Verdict::TwoPrimaries => "refused: two Primaries".to_owned(),
        Verdict::OlderPrimary { mine: true } => format!("refused: {mine} is Primary on older data"),
        Verdict::OlderPrimary { mine: false } => format!("refused: {theirs} is Primary on older data"),
        Verdict::SizeMismatch => "refused: the sizes differ".to_owned(),
    }
}

fn because(decision: &Decision, mine: &Side<'_>, theirs: &Side<'_>) -> String {
    // "The one": the side the rule is about, where it is about one.
    let (one, other) = match (decision.newer, decision.verdict) {
        (Newer::Mine, _) | (Newer::Same, Verdict::Source { .. }) => (theirs.node, mine.node),
        _ => (mine.node, theirs.node),
    };
    match decision.rule {
        Rule::SizeMismatch => format!(
            "{} has {} bytes there and {} here",
            mine.volume.name, theirs.volume.size, mine.volume.size
        ),
        Rule::TwoPrimaries => "both nodes are Primary: their hosts may be writing different data".to_owned(),
        Rule::ResyncResumed => format!("a resync from {other} to {one} was cut off and goes on where it stopped"),
        Rule::FreshBoth => "the metadata of both is new and nobody was ever Primary".to_owned(),
        Rule::FreshOne => format!("the metadata of {one} is new: an empty or replaced image"),
        Rule::Restored => format!(
            "{one} does not remember meetings that {other} remembers: its image and metadata were put back to an earlier \
             state, or {other} was removed from its peers and is one again; its data has not changed since"
        ),
        Rule::RestoredAndMovedOn => format!(
            "{} and {} do not remember the same meetings: one was put back to an earlier state, or copied, and then \
             changed its data",
            mine.node, theirs.node
        ),
        Rule::WithdrawnName => format!(
            "{one} is Primary without its data, and had given them the name that {other} holds: it withdrew that before it \
             answered anything under it"
        ),
        Rule::DiskState => format!(
            "both have the same generation, and the image of {one} ({:?}) is in a worse state than that of {other}",
            if one == mine.node { mine } else { theirs }.volume.disk
        ),
        Rule::BothIncomplete => "both have the same generation, and neither image has everything".to_owned(),
        Rule::PrimaryDecides => format!("both have the same generation, blocks are marked, and {other} is Primary"),
        Rule::CrashedPrimary => "both have the same generation, blocks are marked, and one was Primary when it \
                                 crashed: copied from the side that has every write that was answered"
            .to_owned(),
        Rule::BitsOneSide => format!("both have the same generation, and only {other} has blocks marked"),
        Rule::BitsBothSides => format!(
            "both have the same generation and blocks marked; {other} was Primary later, or its name comes first"
        ),
        Rule::MissedFinish => "both have the same generation and nothing is marked: only the last message of a \
                               resync was lost"
            .to_owned(),
        Rule::SameGeneration => "both have the same generation and nothing is marked".to_owned(),
        Rule::Contradiction => "each has recorded the other as behind itself".to_owned(),
        Rule::BitmapForPeer => format!("{other} has recorded that {one} holds just the generation it has"),
        Rule::BitmapForOther => format!("{other} has recorded the generation of {one} for a third node"),
        Rule::History => format!("the generation of {one} is an earlier one of {other}"),
        Rule::PartedTogether => {
            "both recorded the same generation when they parted, and both went on from it".to_owned()
        }
        Rule::CommonHistory => "both went on from a generation that both remember".to_owned(),
        Rule::Unrelated => "no generation of the one is known to the other".to_owned(),
        Rule::OlderPrimary => "hosts work on a Primary whose data was replaced by newer data elsewhere".to_owned(),
        Rule::SourceIncomplete => format!("{other} has the newer generation, but its image is not complete"),
        Rule::VolumesDisagree => "one volume of the resource went on here, another there".to_owned(),
        Rule::DiscardMyData => "an operator gave one side's data up".to_owned(),
        Rule::Policy => "the policy `split_brain` gave one side's data up".to_owned(),
    }
}

fn input(side: &Side<'_>) -> String {
    let volume = side.volume;
    let role = match side.role {
        Role::Primary => "Primary",
        Role::Secondary => "Secondary",
    };
    let mut line = format!("{}: {role}, image {:?}, {} bytes", side.node, volume.disk, volume.size);
    if volume.fresh {
        line += ", fresh";
    } else {
        line += &format!(
            ", generation {:016x}, recorded for the other {:016x}, for third nodes {:016x?}, earlier {:016x?}",
            volume.current, volume.for_peer, volume.for_others, volume.history
        );
    }
    if !volume.withdrawn.is_empty() {
        line += &format!(", withdrawn {:016x?}", volume.withdrawn);
    }
    line += &format!(", {} bytes dirty, meeting {}", volume.dirty_bytes, volume.met.count);
    if volume.crashed_primary {
        line += ", was Primary and crashed";
    }
    if side.discard_my_data {
        line += ", its data was given up by the operator";
    }
    line
}

fn tried(decision: &Decision) -> Vec<&'static str> {
    // A rule that overruled another one is tried after it.
    let last = decision.overruled.unwrap_or(decision.rule);
    Rule::ALL
        .into_iter()
        .take_while(|rule| *rule != last)
        .map(Rule::name)
        .collect()
}

/// Commands stand in backquotes, whole: they are typed as they stand.
fn alternatives(resource: &str, decision: &Decision, ours: &Side<'_>, other: &Side<'_>) -> Vec<String> {
    let (mine, theirs) = (ours.node, other.node);
    let discard = |loser: &str, winner: &str| {
        format!(
            "keep the data of {winner}: on {loser} `blockmirror demote {resource}` if it is Primary, and \
             `blockmirror connect --discard-my-data {resource} {winner}`; on {winner} \
             `blockmirror connect {resource} {loser}`; what {loser} has changed is saved to a branch"
        )
    };
    let yield_role = |loser: &str, winner: &str| {
        format!(
            "stop the hosts of {loser}, and on it `blockmirror demote {resource}` and \
             `blockmirror connect {resource} {winner}`; on {winner} `blockmirror connect {resource} {loser}`"
        )
    };
    match decision.verdict {
        Verdict::SplitBrain { .. } | Verdict::Unrelated => [discard(mine, theirs), discard(theirs, mine)].into(),
        Verdict::TwoPrimaries => [yield_role(mine, theirs), yield_role(theirs, mine)].into(),
        Verdict::OlderPrimary { mine: true } => [yield_role(mine, theirs)].into(),
        Verdict::OlderPrimary { mine: false } => [yield_role(theirs, mine)].into(),
        Verdict::SizeMismatch => {
            let (small, large) = if ours.volume.size < other.volume.size {
                (ours, other)
            } else {
                (other, ours)
            };
            let (volume, size) = (&large.volume.name, large.volume.size);
            [format!("on {}: `blockmirror resize {volume} {size}`", small.node)].into()
        }
        Verdict::FreshBoth => [format!(
            "on the node whose data counts: `blockmirror promote --force {resource}`"
        )]
        .into(),
        Verdict::NoSource => [format!(
            "wait for a node with complete data, or take what is there: `blockmirror promote --force {resource}`"
        )]
        .into(),
        Verdict::InStep | Verdict::Source { .. } | Verdict::Target { .. } => Vec::new(),
    }
}
