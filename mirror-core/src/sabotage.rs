//! Which invariant, if any, is broken on purpose: the simulator's proof that it would notice. Without the feature
//! `sabotage` every invariant is always kept, and the compiler sees it.

use core::fmt;

use crate::identity::Rule;

/// The rules by name; what is done without one is the text beside it.
macro_rules! rules {
    ($($(#[doc = $broken:literal])+ $name:ident),* $(,)?) => {
        /// The invariants and rules that can be removed one at a time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Sabotage {
            $($(#[doc = $broken])+ $name,)*
            /// A rule of the decision at a handshake is left out.
            Decision(Rule),
        }

        impl Sabotage {
            /// All of them but the rules of the decision, which are [`Rule`].
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What is done when it is broken, in words.
            pub fn in_words(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($broken),+),)*
                    Self::Decision(_) => " A rule of the decision at a handshake is left out.",
                }
                .trim_start()
            }
        }
    };
}

rules! {
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
    /// A read of what the leg here lacks is served by it.
    I6,
    /// Verify counts what a first look finds, which may be a write on its way.
    Recheck,
    /// A peer on which verify has found a difference keeps the present name of the data.
    DifferentIsBehind,
    /// Bitmap pages move to the places of a larger volume before the superblock says that everything is dirty.
    ResizeOrder,
    /// A promotion keeps the generation of before.
    I7,
    /// Dirty bits are dropped when a handshake finds the same generation on both sides.
    I9,
    /// What is said to others of this node's identity is said before it is durable.
    I10,
    /// Requests of a new connection are started while some of an older one are still in progress.
    I11,
    /// A gap in the numbers of a stream's requests is not seen.
    SequenceChecked,
    /// What is behind a barrier is started while what is in front of it is still in progress.
    BarrierHeld,
    /// A barrier is passed without making what is in front of it durable.
    BarrierFlushed,
    /// A new generation counts as soon as it is durable here, whoever else is in step.
    GenerationAlone,
    /// No other generation for a partner that was lost after it had been told of the last one.
    LostAfterTold,
    /// A name that was withdrawn is forgotten: who was told of it just before it was lost is taken to have newer data.
    WithdrawnRemembered,
    /// A partner that comes back while another is away is taken to have given its data to nobody meanwhile.
    PassedOn,
    /// Whom the Primary does not speak of is taken to be in step with it, because it was in step here.
    UnlistedDoubted,
    /// Data that were given up still count as an earlier state of those that replaced them.
    OtherLine,
    /// An image that was declared to be the data before it was whole counts as a later state of what others have.
    LineOfItsOwn,
    /// Peers whose differences nobody knows keep the dirty bits they have.
    Doubt,
    /// An `async` peer is not waited for while the leg here is not complete.
    ForcedSync,
    /// What the last leg that had everything had not confirmed when it was lost is sent again, though it was answered.
    LostAnswers,
    /// That answered writes may be nowhere any more is not told to other nodes.
    LossTold,
    /// The same is forgotten with the life of the daemon.
    LossDurable,
    /// The target of a resync stays UpToDate while it is overwritten.
    BeginTarget,
    /// The target of a resync that no handshake announced is not told before it is overwritten.
    SyncBegin,
    /// An `async` partner gets no barrier for a flush of the host.
    Barrier,
    /// What a Secondary applied on an earlier connection is not made durable when the next one begins.
    MetDurable,
    /// The data gets a later name before what was applied under the earlier one is durable.
    NameCoversData,
    /// Nothing is flushed when the role moves from one node to another.
    Handover,
    /// A resource listens to control frames of a connection that is gone.
    OldConnectionIgnored,
    /// A connection is closed without a word, as by a process that has died.
    CloseSaid,
    /// A change of identity during a handshake is not told.
    IdentityRevised,
    /// A verdict on an earlier identity counts for the present one.
    VerdictOfRevision,
    /// Data that an operator or a policy gave up are overwritten without being saved.
    BranchBeforeOverwrite,
    /// The target of a resync sends its dirty bits before it is durably Inconsistent.
    BeginBeforeBits,
    /// A resync begins before the dirty bits of the other side have been taken over.
    MergeBeforeUp,
    /// A forced promotion does not ask for the loss to be quoted back.
    LossQuotedBack,
    /// A node becomes Primary without telling the nodes it is connected to.
    ConsentBeforePromotion,
    /// The volumes of a resource are told to be a Primary's without having been asked whether all of them can.
    AskedBeforeTold,
    /// A switchover does not wait for the old Primary.
    DemotedBeforePromotion,
    /// A node becomes Secondary while hosts still write.
    DrainedBeforeDemotion,
    /// Hosts are let in while a promotion is under way.
    PromotedBeforeHosts,
    /// A volume is overwritten from two sides at a time.
    OneSource,
    /// Data is given up in one volume of a resource and kept in another.
    VolumesTogether,
    /// Two Secondaries of which one has fallen behind since they met go on as if they were in step.
    BehindMeetsAnew,
    /// A volume grows here before the other nodes' volumes have.
    OthersGrowFirst,
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
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
