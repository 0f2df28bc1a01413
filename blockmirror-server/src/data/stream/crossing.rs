//! Two connections to one peer at a time: which one stays.

use std::time::Duration;

/// A link that has been heard of within this time is alive: a crossing connection does not replace it.
const FRESH: Duration = Duration::from_secs(1);

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// This node dialled it.
    pub(crate) dialled: bool,
    /// The peer's random number of its life, from its HELLO.
    pub(crate) incarnation: u64,
    /// When something came on it last.
    pub(crate) heard: Duration,
}

/// Does the `new` connection replace the `old` one, the present link? Both nodes come to the same answer about two
/// connections that crossed.
///
/// | case | stays |
/// |---|---|
/// | the peer has started anew since | the new one |
/// | both dialled by the same node: it has given the old one up | the new one |
/// | the old one has been silent: the peer has lost it | the new one |
/// | they crossed | the one dialled by the node with the smaller name |
pub(crate) fn supersedes(old: Standing, new: Standing, our_name: &str, peer_name: &str, now: Duration) -> bool {
    let silent = now.saturating_sub(old.heard) > FRESH;
    if old.incarnation != new.incarnation || old.dialled == new.dialled || silent {
        return true;
    }
    new.dialled == (our_name < peer_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(dialled: bool, incarnation: u64, heard: u64) -> Standing {
        Standing {
            dialled,
            incarnation,
            heard: Duration::from_millis(heard),
        }
    }

    #[test]
    fn both_ends_keep_the_same_one_of_two_that_crossed_in_whatever_order_they_came() {
        let now = Duration::from_millis(900);
        for (smaller, larger) in [("a", "b"), ("node-1", "node-2"), ("alpha", "beta")] {
            for ours_first in [false, true] {
                for (me, peer, dialled_by_the_smaller) in [(smaller, larger, true), (larger, smaller, false)] {
                    let ours = standing(true, 7, 10);
                    let theirs = standing(false, 7, 10);
                    let (old, new) = if ours_first { (ours, theirs) } else { (theirs, ours) };
                    let stays = if supersedes(old, new, me, peer, now) { new } else { old };
                    assert_eq!(stays.dialled, dialled_by_the_smaller, "{me}, ours first: {ours_first}");
                }
            }
        }
    }

    #[test]
    fn a_peer_that_started_anew_or_dialled_again_or_was_silent_gets_its_new_connection() {
        let now = Duration::from_millis(900);
        let old = standing(true, 7, 500);
        assert!(supersedes(old, standing(false, 8, 900), "a", "b", now), "another life");
        assert!(supersedes(old, standing(true, 7, 900), "b", "a", now), "dialled again");
        let later = now + FRESH;
        assert!(supersedes(old, standing(false, 7, 1900), "a", "b", later), "silent");
        assert!(!supersedes(old, standing(false, 7, 900), "a", "b", now), "crossed");
    }
}
