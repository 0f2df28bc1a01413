//! What two Secondaries leave to the next Primary.

use super::peer::{Lane, LaneStage, Ruling};
use crate::identity::{Newer, NodeIdentity, Role, Rule, Verdict};
use crate::state::LocalDisk;

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
/// (What a node has that the other lacks it may have in its cache only.) Nor beside one that is the same as far as the two
/// can tell, if a third node was the Primary: it may have got further on the one than on the other (`async`). And where the
/// image of one is gone that is, or may be, newer than the other's, nothing of that time is copied to the other beside it.
pub(super) fn park_beside_waiting(lanes: &mut [Lane], mine: &NodeIdentity, theirs: &NodeIdentity) {
    let both_secondary = mine.role == Role::Secondary && theirs.role == Role::Secondary;
    let unsure = both_secondary && !mine.bits_tell && !theirs.bits_tell;
    let waits = lanes.iter().any(|lane| {
        let in_step = lane.ruling.decision.verdict == Verdict::InStep;
        waits_for_primary(&lane.ruling, mine, theirs) || (unsure && in_step)
    });
    let gone = |whose| {
        let mut all = lanes.iter();
        both_secondary && all.any(|lane| is_gone(&lane.ruling, whose, mine, theirs))
    };
    let (gone_here, gone_there) = (gone(Newer::Mine), gone(Newer::Theirs));
    for lane in lanes {
        let parked = match lane.ruling.decision.verdict {
            Verdict::Source { .. } => waits || gone_here,
            Verdict::Target { .. } => waits || gone_there,
            _ => false,
        };
        if parked {
            lane.park();
        }
    }
}

/// The one side has no image of a volume of which the other has an image that is, or may be, older.
fn is_gone(ruling: &Ruling, whose: Newer, mine: &NodeIdentity, theirs: &NodeIdentity) -> bool {
    let (ours, other) = (&mine.volumes[ruling.mine], &theirs.volumes[ruling.theirs]);
    let (has, lacks) = if whose == Newer::Mine {
        (other, ours)
    } else {
        (ours, other)
    };
    let newer = ruling.decision.newer == whose || (ruling.decision.newer == Newer::Same && lacks.withholds());
    newer && lacks.disk == LocalDisk::Diskless && has.disk != LocalDisk::Diskless && !has.fresh
}
