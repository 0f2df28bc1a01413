//! Names of the data that are withdrawn: the last peer that had everything is lost before any had the new name durably.
//!
//! A peer may have made a name durable and not have been able to say so. It comes back with a name that is not the data's
//! any more, and has all that was answered. So withdrawn names are told at a handshake as long as nobody is there who has
//! the data; and the next name that the data get comes after them. They are known in this life only: whoever starts again
//! is Secondary, and is copied to from who holds one.

use alloc::vec::Vec;

use super::Mirror;
use super::peer::{Peer, Told};
use crate::identity::{Generation, WITHDRAWN_MAX};
use crate::sabotage::Sabotage;

/// Names that the data had for a moment. Nothing was answered under them, and nobody else can have written under them.
#[derive(Clone, Debug, Default)]
pub(super) struct WithdrawnNames {
    /// What the data are called instead. Once they are called otherwise the names say nothing of them.
    of: Generation,
    /// The latest first; older ones than the bound are forgotten, and who holds one is taken for diverged.
    names: Vec<Generation>,
}

impl Mirror {
    /// The last peer that had everything is lost, and none had the new name durably, so that nothing was answered under it:
    /// the data here is called as before. Whichever name it has, it has the newer data.
    ///
    /// Not so when one that would count by the old name may have lost what it had answered and not flushed: only the new
    /// name tells that it has everything.
    pub(super) fn withdraw_name(&mut self, peer: usize) {
        let unused = self.leg.confirmed.filter(|_| self.peers[peer].told != Told::Known);
        let place = |name| self.superblock.history.iter().position(|&earlier| earlier == name);
        let Some((name, place)) = unused.and_then(|name| Some((name, place(name)?))) else {
            return;
        };
        (self.leg.confirmed, self.leg.withdrawn) = (None, true);
        self.peers[peer].told = Told::Known;
        self.persisting.superblock_wanted = true;
        let lacks = |link: &Peer| link.may_forget && !link.removed && [0, name].contains(&link.record.generation);
        if self.leg.left.is_some() || self.peers.iter().any(|link| link.connection.is_none() && lacks(link)) {
            return;
        }
        let mut names = alloc::vec![self.superblock.generation];
        names.extend(self.superblock.history.drain(..=place).take(place));
        names.truncate(WITHDRAWN_MAX);
        self.leg.withdrawn_names = WithdrawnNames { of: name, names };
        self.superblock.generation = name;
        let link = &mut self.peers[peer];
        if link.record.generation == name {
            link.record.generation = 0;
        }
        self.forget_other_lines();
    }

    /// Names of just these data that were withdrawn.
    pub(super) fn withdrawn_names(&self) -> &[Generation] {
        let withdrawn = &self.leg.withdrawn_names;
        if withdrawn.of == self.superblock.generation && self.keeps(Sabotage::WithdrawnRemembered) {
            &withdrawn.names
        } else {
            &[]
        }
    }

    /// The data get another name. Those that were withdrawn are earlier ones: of what was there when it came, nothing is
    /// missing in what is there now.
    pub(super) fn rename(&mut self, generation: Generation) {
        let withdrawn = self.withdrawn_names().to_vec();
        self.superblock.rename(generation);
        self.superblock.remember_all(&withdrawn);
    }

    /// A peer that has everything has come: it hears what the data are called. Where that was withdrawn they get another
    /// name in this very moment (`data_is_back`); a name before one that it holds is none that it could follow.
    pub(super) fn tell_unless_renamed(&mut self, peer: usize) {
        if !self.leg.withdrawn {
            self.tell_generation(peer);
        }
    }
}
