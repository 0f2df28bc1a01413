//! Meetings: how a node whose image *and* metadata were put back to an earlier state is recognised.
//!
//! Generation identifiers cannot tell: an image that was rolled back to a snapshot together with its metadata shows a
//! generation that is still the current one, and no dirty bits. So at every handshake, again as soon as both are ready for
//! each other, and now and then while they are connected, two nodes make a common random token durable, each in its record
//! of the other. A node that comes back with none of the last two tokens has forgotten a meeting: its metadata, and so its
//! data, are older than the other knows them to have been. Two, because either may die before it has written the last one
//! down; so what was put back by one meeting only is not seen. There are two on every connection: what was put back to
//! before the last one is seen, unless that ended before both had the second mark.

use super::decide::Side;

/// One meeting of two nodes over one volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meeting {
    /// How many there were, this one included; 0: never met.
    pub count: u64,
    /// Random, the same on both nodes; 0: never met.
    pub token: u64,
}

impl Meeting {
    /// Before the first one.
    pub const NEVER: Self = Self { count: 0, token: 0 };

    /// The meeting after this one, for two connected nodes that both hold this one. `salt` is random and the same on
    /// both.
    #[must_use]
    pub fn after(self, salt: u64) -> Self {
        Self {
            count: self.count.saturating_add(1),
            token: mix(self.token, salt),
        }
    }
}

/// What both nodes write down when a handshake has come to an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextMeeting {
    /// The new meeting.
    pub met: Meeting,
    /// The one before, which the other is known to hold: it counts as well, in case the other dies before it has
    /// written the new one down.
    pub before: Meeting,
}

/// The meeting that `mine` and `theirs` make of their present handshake; the same on both nodes. What was `before` is
/// the last meeting both remember. The incarnations make it a new one every time.
pub fn next_meeting(mine: &Side<'_>, theirs: &Side<'_>) -> NextMeeting {
    let (first, second) = if mine.node <= theirs.node {
        (mine, theirs)
    } else {
        (theirs, mine)
    };
    let of = |side: &Side<'_>| {
        let token = mix(side.volume.met.token, side.volume.met_before.token);
        mix(token, side.incarnation)
    };
    NextMeeting {
        met: Meeting {
            count: mine.volume.met.count.max(theirs.volume.met.count).saturating_add(1),
            token: mix(of(first), of(second)),
        },
        before: common(mine, theirs).unwrap_or(Meeting::NEVER),
    }
}

/// The latest meeting that both remember, `NEVER` for two that hold nothing newer; `None`: one of them has forgotten.
pub(super) fn common(mine: &Side<'_>, theirs: &Side<'_>) -> Option<Meeting> {
    let of = |side: &Side<'_>| [side.volume.met, side.volume.met_before];
    let held = of(theirs);
    of(mine)
        .into_iter()
        .filter(|meeting| held.contains(meeting))
        .max_by_key(|meeting| meeting.count)
}

/// Two numbers to one that is not 0; the finalizer of SplitMix64.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(32) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}
