//! Which invariant, if any, is broken on purpose: the simulator's proof that it would notice. Without the feature
//! `sabotage` every invariant is always kept, and the compiler sees it.

/// The invariants that can be removed one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// Writes go to the legs while their extent is still being made durable in the activity log.
    I1,
    /// Overlapping mutations are in flight together.
    I2,
    /// Dirty bits are cleared when a copy is applied, not when it is durable.
    I3,
    /// A degraded reply does not wait, and dirty bits are not made durable before their extent goes cold.
    I4,
    /// A flush is answered by one that was already in flight when it arrived.
    I5,
}

/// Holds the one that is broken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    #[cfg(feature = "sabotage")]
    pub(crate) broken: Option<Sabotage>,
}

impl Kept {
    /// Is this invariant kept?
    #[inline]
    pub(crate) fn keeps(self, invariant: Sabotage) -> bool {
        #[cfg(feature = "sabotage")]
        {
            self.broken != Some(invariant)
        }
        #[cfg(not(feature = "sabotage"))]
        {
            let _ = invariant;
            true
        }
    }
}
