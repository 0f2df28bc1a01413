//! A host request between `Host` and `Release`.

use core::time::Duration;

use crate::config::{OnDisconnect, PEERS_MAX};
use crate::event::{Failure, Mutation, PeerIndex, RequestId};

/// One bit per peer.
pub(crate) type PeerMask = u8;

const _: () = assert!(PEERS_MAX <= PeerMask::BITS as usize);

/// The bit of a peer.
pub(crate) const fn bit(peer: usize) -> PeerMask {
    1 << peer
}

/// How far a mutation has come.
///
/// ```text
///  Ordered --(no overlap in flight, I2)--> Hot --(extents hot, I1)--> Suspended --(peers back)--+
///                                           |                                                   |
///                                           +------------------------------------> Started <----+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for an earlier overlapping range.
    Ordering,
    /// Waits for its extents to be durably hot.
    Heating,
    /// Waits for a peer with `on_disconnect = "suspend"`.
    Suspended,
    /// The legs have it.
    Started,
}

/// A mutation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// When it came.
    pub(crate) since: Duration,
    pub(crate) mutation: Mutation,
    pub(crate) phase: Phase,
    /// Counts what the legs were given: of two that overlap the later one has the higher number.
    pub(crate) number: u64,
    /// Its range is active in the order.
    pub(crate) ordered: bool,
    /// Its extents are pinned in the activity log.
    pub(crate) pinned: bool,
    /// The local leg's answer.
    pub(crate) local: Option<Result<(), Failure>>,
    /// In the queue of these peers.
    pub(crate) queued: PeerMask,
    /// Sent to these peers.
    pub(crate) in_flight: PeerMask,
    /// Was last sent to these peers so that it is durable there once it is answered.
    pub(crate) durable: PeerMask,
    /// Lost on the way to these peers, sent again when they are back (`suspend`).
    pub(crate) held: PeerMask,
    /// Of `held`: its range is free for what is fetched here; it waits for a resync to bring it there.
    pub(crate) lent: bool,
    /// Marked dirty for these peers instead.
    pub(crate) degraded: PeerMask,
    /// A peer with `on_disconnect = "fail"` went away meanwhile.
    pub(crate) failed_by: Option<PeerIndex>,
    /// Its connection died before it started.
    pub(crate) abandoned: bool,
    pub(crate) replied: bool,
    /// Everything is done but a new generation has to become durable first (I4).
    pub(crate) gated: bool,
}

impl Request {
    pub(crate) fn new(mutation: Mutation, since: Duration) -> Self {
        Self {
            since,
            mutation,
            phase: Phase::Ordering,
            number: 0,
            ordered: false,
            pinned: false,
            local: None,
            queued: 0,
            in_flight: 0,
            durable: 0,
            held: 0,
            lent: false,
            degraded: 0,
            failed_by: None,
            abandoned: false,
            replied: false,
            gated: false,
        }
    }

    /// Peers that still have to do something with it.
    pub(crate) fn busy(&self) -> PeerMask {
        self.queued | self.in_flight | self.held
    }

    /// This peer is lost: what `policy` says of what it has not answered.
    pub(crate) fn lose(&mut self, peer: usize, policy: OnDisconnect) {
        lose(peer, policy, &mut self.held, &mut self.degraded, &mut self.failed_by);
    }
}

/// A host flush under way.
#[derive(Clone, Debug)]
pub(crate) struct FlushRequest {
    pub(crate) id: RequestId,
    /// The local flush that covers it.
    pub(crate) local: u64,
    /// Per peer of `waiting`, the flush that covers it.
    pub(crate) targets: [u64; PEERS_MAX],
    /// Peers whose flush it waits for.
    pub(crate) waiting: PeerMask,
    /// Peers that lacked something when they flushed: lost before it is answered, they have not all it is about.
    pub(crate) partial: PeerMask,
    /// Peers it waits to come back (`suspend`).
    pub(crate) held: PeerMask,
    /// Peers it goes without: their new generation has to be durable.
    pub(crate) degraded: PeerMask,
    pub(crate) failed_by: Option<PeerIndex>,
}

impl FlushRequest {
    /// This peer is lost: what `policy` says of what it has not answered.
    pub(crate) fn lose(&mut self, peer: usize, policy: OnDisconnect) {
        lose(peer, policy, &mut self.held, &mut self.degraded, &mut self.failed_by);
    }
}

fn lose(
    peer: usize,
    policy: OnDisconnect,
    held: &mut PeerMask,
    degraded: &mut PeerMask,
    failed_by: &mut Option<PeerIndex>,
) {
    let (is, is_not) = if policy == OnDisconnect::Suspend {
        (held, degraded)
    } else {
        (degraded, held)
    };
    *is |= bit(peer);
    *is_not &= !bit(peer);
    if policy == OnDisconnect::Fail {
        *failed_by = Some(PeerIndex(peer as u8));
    }
}
