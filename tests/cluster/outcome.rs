//! What a run is asked for and what it gives back.

pub use blockmirror_tests::campaign::Violation;
use mirror_core::sabotage::Sabotage;

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Print everything that happens.
    pub trace: bool,
    /// Break this rule in the cores.
    pub sabotage: Option<Sabotage>,
    /// Leave out these of the plan's faults, by their place (shrinking).
    pub without: Vec<usize>,
    /// Ask for so many host requests at most (shrinking).
    pub requests_max: Option<u64>,
    /// So many nodes, whatever the seed says.
    pub nodes: Option<usize>,
    /// Break this promise of the shell.
    pub broken: Option<Broken>,
}

/// A promise of the shell that can be broken, to show that it is needed and that its loss is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A new connection is told to the resource while requests of the old one are still being applied.
    Fence,
    /// What a branch must hold is not saved.
    Branch,
    /// Hosts are not shut out before `HostsDrained`.
    Shut,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fence, Self::Branch, Self::Shut];

    /// What is done when it is broken, in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Fence => "A node hears of a new connection while requests of lost ones are still being applied.",
            Self::Branch => "What a branch must hold is not saved.",
            Self::Shut => "Hosts are not shut out before a resource hears that they are.",
        }
    }
}

/// A number for everything that happened: two runs with one digest were the same run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    /// One more thing happened.
    #[inline]
    pub fn mix(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// What happened how often: a simulator that no longer reaches a corner shows it here.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Tally {
            /// Sum, for many runs.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Name and value of each count.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),*]
            }
        }
    };
}

tally! {
    /// Writes answered.
    writes,
    /// Flushes answered.
    flushes,
    /// Reads answered.
    reads,
    /// Reads served by another node's image.
    remote_reads,
    /// Requests answered with an error.
    refusals,
    /// Writes answered without a peer.
    degraded,
    /// Resync requests done, from source to target.
    copies,
    /// Of these, found equal by their digests.
    equal,
    /// Resync requests done, by a target that is Primary.
    fetches,
    /// Times a peer became Established.
    in_step,
    /// Times a queue was full.
    behind,
    /// Connections made.
    connections,
    /// Connections lost.
    lost,
    /// Requests that arrived on a connection its sender had given up.
    late,
    /// Processes killed.
    kills,
    /// Power losses.
    power_losses,
    /// Processes stopped for a while.
    pauses,
    /// Promotions.
    promotions,
    /// Promotions by force.
    forced,
    /// Planned switchovers.
    switchovers,
    /// Moments with two Primaries.
    double,
    /// Split brains seen.
    split_brains,
    /// Blocks saved to a branch.
    saved,
    /// Images given up.
    detached,
    /// Images attached again.
    attached,
    /// Volumes grown.
    resized,
    /// Verify passes asked for.
    verified,
    /// Sectors that rotted.
    rotten,
    /// Writes that landed on another sector.
    misdirected,
    /// Writes that a death cut off with some sectors done and others not.
    torn,
    /// The same of metadata.
    torn_metadata,
    /// Operations of images that failed with EIO.
    io_errors,
    /// With ENOSPC.
    no_space,
    /// Metadata transactions that failed.
    metadata_errors,
    /// Links that carried nothing in one direction.
    one_way,
    /// Links that stood still, and then delivered.
    stalled,
    /// Connections that one side gave up while the other went on using it.
    half_open,
    /// Disks that were slow for a while.
    slowed,
    /// Clocks that jumped.
    clock_jumps,
    /// Promotions asked for while a node was down, a link cut, an image not whole, or the role about to move.
    worst_moments,
    /// Commands refused.
    commands_refused,
    /// Frames through the codec.
    encoded,
}

/// A run that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What happened, as one number.
    pub digest: Digest,
    /// What happened how often.
    pub tally: Tally,
    /// Events.
    pub steps: u64,
}
