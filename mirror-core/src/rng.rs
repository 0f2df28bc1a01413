//! New identifiers from the entropy a mirror was given: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
//! Number Generators, 2014). Unpredictability is not needed, distinctness is.

/// A source of identifiers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(entropy: u64) -> Self {
        Self(entropy)
    }

    /// Never 0: 0 stands for "none".
    pub(crate) fn identifier(&mut self) -> u64 {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            if mixed != 0 {
                return mixed;
            }
        }
    }

    /// Differs from `current`, so that a step between generations always shows.
    pub(crate) fn identifier_after(&mut self, current: u64) -> u64 {
        loop {
            let next = self.identifier();
            if next != current {
                return next;
            }
        }
    }
}
