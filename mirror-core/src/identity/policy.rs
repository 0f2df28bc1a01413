//! What the configuration may decide about diverged data in the operator's place.

use super::decide::Side;

/// `split_brain` of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SplitBrainPolicy {
    /// Both nodes stand alone until an operator decides.
    #[default]
    Manual,
    /// The node that became Primary later, by the nodes' own clocks, gives its data up.
    DiscardYounger,
    /// The node with fewer bytes changed since they parted gives its data up.
    DiscardLeastChanges,
    /// A node that changed nothing since they parted gives up its generation, which is all it has.
    DiscardZeroChanges,
}

/// Which of two nodes gives up, by the policy: true: the first. Over all volumes of the resource.
pub(super) fn loser_is_first(policy: SplitBrainPolicy, pairs: &[(Side<'_>, Side<'_>)]) -> Option<bool> {
    let (first, second) = pairs.first()?;
    let changed = |of: fn(&(Side<'_>, Side<'_>)) -> u64| pairs.iter().map(of).fold(0, u64::saturating_add);
    let here = changed(|pair| pair.0.volume.dirty_bytes);
    let there = changed(|pair| pair.1.volume.dirty_bytes);
    match policy {
        SplitBrainPolicy::Manual => None,
        SplitBrainPolicy::DiscardYounger => match (first.primary_since, second.primary_since) {
            (0, _) | (_, 0) => None,
            (here, there) => unequal(there, here),
        },
        SplitBrainPolicy::DiscardLeastChanges => unequal(here, there),
        SplitBrainPolicy::DiscardZeroChanges => match (here, there) {
            (0, 0) => unequal(second.node, first.node),
            (0, _) => Some(true),
            (_, 0) => Some(false),
            _ => None,
        },
    }
}

/// Whether the first is the smaller one; `None`: they are equal.
fn unequal<T: Ord>(first: T, second: T) -> Option<bool> {
    (first != second).then(|| first < second)
}
