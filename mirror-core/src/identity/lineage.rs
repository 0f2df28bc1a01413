//! What one side's identifiers say of the other's generation.

use super::decide::Side;
use super::sides::{is_complete, is_primary};
use super::{Generation, Meeting, meeting};

/// How a side knows the other's current generation as one that came before its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has recorded that the other holds just this.
    ForPeer,
    /// It has recorded that a third node holds it.
    ForOther,
    /// It was there once, and has counted what changed for the other since even earlier.
    HistorySinceRecord,
    /// It was there once.
    History,
}

/// How `side` knows the generation of `other`.
pub(super) fn known(side: &Side<'_>, other: &Side<'_>) -> Option<Known> {
    let (volume, generation) = (side.volume, other.volume.current);
    if generation == 0 {
        None
    } else if volume.for_peer == generation {
        Some(Known::ForPeer)
    } else if volume.for_others.contains(&generation) {
        Some(Known::ForOther)
    } else {
        let place = |generation| volume.history.iter().position(|earlier| *earlier == generation);
        let recorded = place(volume.for_peer).filter(|_| volume.for_peer != 0);
        place(generation).map(|place| match recorded {
            Some(recorded) if recorded > place => Known::HistorySinceRecord,
            _ => Known::History,
        })
    }
}

/// The one is a Primary that lacks its data, and the other, which has forgotten no meeting, holds them by a name that
/// the one gave them and withdrew.
pub(super) fn withdrew(one: &Side<'_>, other: &Side<'_>) -> bool {
    let name = other.volume.current;
    let lacks = is_primary(one) && !is_complete(one) && name != 0;
    lacks && one.volume.withdrawn.contains(&name) && meeting::common(one, other).is_some()
}

/// They have one name, or two of which one was withdrawn.
pub(super) fn is_same_data(mine: &Side<'_>, theirs: &Side<'_>) -> bool {
    mine.volume.current == theirs.volume.current || withdrew(mine, theirs) || withdrew(theirs, mine)
}

/// Some generation is, or was once, part of both.
pub(super) fn shares_past(mine: &Side<'_>, theirs: &Side<'_>) -> bool {
    lineage(mine).any(|generation| generation != 0 && lineage(theirs).any(|other| other == generation))
}

/// The one has made its record of the other, as that of a new peer, over data that the other has never heard of: they
/// have not met since, so that there is no meeting the one could have forgotten, and generations tell whose data is newer.
pub(super) fn made_since(one: &Side<'_>, other: &Side<'_>) -> bool {
    let volume = one.volume;
    let never = [volume.met, volume.met_before] == [Meeting::NEVER; 2];
    let heard_of = lineage(other).any(|generation| generation == volume.for_peer);
    never && volume.for_peer != 0 && !heard_of
}

fn lineage<'a>(side: &Side<'a>) -> impl Iterator<Item = Generation> + use<'a> {
    let volume = side.volume;
    [volume.current, volume.for_peer]
        .into_iter()
        .chain(volume.for_others.iter().copied())
        .chain(volume.history.iter().copied())
}
