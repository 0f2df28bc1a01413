//! What two Secondaries leave to the next Primary.

use super::peer::{Lane, LaneStage, Ruling};
use crate::identity::{NodeIdentity, Role, Rule, Verdict};

impl Lane {
    fn park(&mut self) {
        self.stage = LaneStage::Parked;
        (self.tells_bits, self.wants_bits) = (false, false);
    }
}

/// Two Secondaries of one generation, with complete images, that have blocks marked for each other: either may hold what
/// the Primary has acknowledged, so that nothing is copied before there is a Primary, which is then the source.
pub(super) fn waits_for_primary(ruling: &Ruling, mine: &NodeIdentity, theirs: &NodeIdentity) -> bool {
    let both_secondary = mine.role == Role::Secondary && theirs.role == Role::Secondary;
    both_secondary && matches!(ruling.decision.rule, Rule::BitsOneSide | Rule::BitsBothSides)
}

/// All volumes of a node are of one time: where one waits for the next Primary, nothing is copied to another, either way.
/// (What a node has that the other lacks it may have in its cache only.)
pub(super) fn park_beside_waiting(lanes: &mut [Lane], mine: &NodeIdentity, theirs: &NodeIdentity) {
    let waits = |lane: &Lane| waits_for_primary(&lane.ruling, mine, theirs);
    if lanes.iter().any(waits) {
        let copies = |lane: &&mut Lane| {
            let verdict = lane.ruling.decision.verdict;
            matches!(verdict, Verdict::Target { .. } | Verdict::Source { .. })
        };
        lanes.iter_mut().filter(copies).for_each(Lane::park);
    }
}
