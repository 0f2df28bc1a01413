//! The leg here: bad sectors, an image that is given up, and one that comes back.
//!
//! ```text
//!  UpToDate --write or flush error, operator--> Diskless --Attach--> Inconsistent --everything fetched--> UpToDate
//! ```
//! While the leg is not complete an answered write has to be on a peer that is, durably: the mode is `sync` whatever
//! the configuration says, and every write carries FUA. No such peer left: changes wait for one, and are refused after
//! [`NO_DATA_WAIT`].

use alloc::vec::Vec;
use core::time::Duration;

use super::background::CopyKind;
use super::detach::Leaving;
use super::peer::Peer;
use super::request::{PeerMask, Phase};
use super::status::NoData;
use super::withdrawn::WithdrawnNames;
use super::{Admission, Mirror};
use crate::config::{COPY_BYTES_MIN, OnDisconnect, OnIoError};
use crate::event::{Failure, Mutation, Output, PeerIndex, Refusal, RequestId, Ticket};
use crate::identity::{Generation, Role};
use crate::metadata::ImageIdentity;
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

/// Changes wait so long for a peer that has the data, when the leg here has not; then they are refused. (A peer with
/// `on_disconnect = "suspend"` is waited for until the operator parts with it.)
pub(super) const NO_DATA_WAIT: Duration = Duration::from_secs(20);
/// Unreadable ranges remembered at most; an image with more of them is given up.
const BAD_MAX: usize = 64;

/// What is known of the leg here beyond the state of its disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Leg {
    /// Peers whose dirty bits name what is missing here, rather than there.
    pub(super) sources: PeerMask,
    /// Ranges that could not be read: they are being fetched, or wait for a peer that can serve them.
    pub(super) bad: Vec<ByteRange>,
    /// No leg has all of the data since then.
    without_data: Option<Duration>,
    /// Nobody came in time.
    gave_up: bool,
    /// The peer that had everything last: what was on its way to it waits for it.
    pub(super) awaited: Option<usize>,
    /// Mutations that wait for a peer have lent their ranges.
    pub(super) lent: bool,
    /// What the data were called when a peer that has everything last had their name durably, while a later name, under
    /// which nothing is answered yet, may have to be withdrawn.
    pub(super) confirmed: Option<Generation>,
    /// It was: the data needs another one when somebody has it again.
    pub(super) withdrawn: bool,
    /// Names that were.
    pub(super) withdrawn_names: WithdrawnNames,
    /// What the image is left behind with once a peer has everything by the name of now.
    pub(super) left: Option<Generation>,
    /// An operator's detach that waits for a peer.
    pub(super) leaving: Option<Leaving>,
    /// An operator's attach that does.
    pub(super) attaching: Option<Ticket>,
    /// An attach that is not durable yet: nothing is fetched to the image.
    pub(super) taking: bool,
    /// The image that the next attach is about.
    pub(super) offered: Option<ImageIdentity>,
    /// Nothing can be written down any more.
    pub(super) metadata_dead: bool,
    /// A flush was put out before the image was given up: its answer means nothing.
    pub(super) flush_lost: bool,
    /// A flush of the image has failed: any of what it had answered may be gone.
    pub(super) flush_failed: bool,
}

impl Mirror {
    pub(super) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// The leg here has everything.
    pub(super) fn leg_is_complete(&self) -> bool {
        self.superblock.disk == LocalDisk::UpToDate
    }

    /// A peer that has everything gets every write.
    fn has_complete_peer(&self) -> bool {
        self.peers.iter().any(|link| link.state == PeerState::SyncTarget)
    }

    /// Nothing is answered now: no leg that is here, or connected, has all of the data.
    pub(super) fn nobody_has_data(&self) -> bool {
        let served = self.leg_is_complete() || self.has_complete_peer() || self.is_promoting();
        self.is_primary() && !served
    }

    /// The log cannot tell any more what is sent, and no peer that has everything has the name yet that would.
    fn is_untold(&self) -> bool {
        self.leg.metadata_dead && self.has_complete_peer() && self.leg.confirmed.is_some()
    }

    /// May a change start, as far as the leg here is concerned?
    pub(super) fn leg_admission(&self) -> Admission {
        if self.role == Role::Secondary {
            let gone = self.superblock.disk == LocalDisk::Diskless;
            return if gone {
                Admission::Refused(Refusal::Local(Failure::Io))
            } else {
                Admission::Open
            };
        }
        if self.is_untold() {
            Admission::Suspended
        } else if self.leg_is_complete() || self.has_complete_peer() {
            Admission::Open
        } else if self.leg.gave_up {
            Admission::Refused(Refusal::Local(Failure::Io))
        } else {
            Admission::Suspended
        }
    }

    /// A write to a peer has to be durable before it is answered: it is the only leg that has everything, and may go
    /// away with what it has not flushed while this node goes on.
    pub(super) fn needs_fua(&self, peer: usize) -> bool {
        let last = self.peers[peer].state == PeerState::SyncTarget && !self.leg_is_complete();
        last || self.leg.leaving.is_some()
    }

    /// Give a mutation to the leg here; without an image it counts as done, and its blocks as missing here.
    pub(super) fn start_local(&mut self, id: RequestId, mutation: Mutation) {
        if self.superblock.disk != LocalDisk::Diskless {
            return self.emit(Output::Local { id, mutation });
        }
        let outcome = if self.is_primary() { Ok(()) } else { Err(Failure::Io) };
        if let Some(request) = self.request(id) {
            request.local = Some(outcome);
        }
        if !self.is_primary() {
            self.missed_change();
            return self.advance(id);
        }
        for link in &mut self.peers {
            link.mark_dirty(mutation.range);
        }
    }

    /// A Primary without an image.
    pub(super) fn lives_on_peers(&self) -> bool {
        self.is_primary() && self.superblock.disk == LocalDisk::Diskless
    }

    /// A write failed here. What the local leg holds now is not known: whatever it is, every peer has to get it.
    pub(super) fn distrust_local(&mut self, range: ByteRange) {
        for peer in 0..self.peers.len() {
            self.peers[peer].mark_dirty(range);
            if self.peers[peer].state != PeerState::SyncTarget {
                self.need_generation(peer);
            }
        }
    }

    /// Watch whether any leg has all of the data.
    pub(super) fn leg_watch(&mut self) {
        if !self.is_primary() || self.leg_is_complete() || self.has_complete_peer() {
            self.leg.without_data = None;
        } else if self.leg.without_data.is_none() {
            self.leg.without_data = Some(self.now);
        }
        if self.leg.without_data.is_some() && self.stopping.is_asked() && !self.has_failed() {
            // Nobody will come any more that could make them good.
            self.refuse_waiting(Refusal::Stopping);
        }
    }

    /// The local leg wrote something: what was unreadable there may be readable again.
    pub(super) fn wrote_here(&mut self, range: ByteRange) {
        let covers = |bad: &ByteRange| range.offset <= bad.offset && bad.end() <= range.end();
        self.leg.bad.retain(|bad| !covers(bad));
    }

    /// A request failed on the image: give it up, if a peer can stand in. False: who asked gets the error.
    pub(super) fn local_leg_failed(&mut self) -> bool {
        let gone = self.superblock.disk == LocalDisk::Diskless;
        if !self.is_primary() {
            if !gone && self.config.on_io_error == OnIoError::Detach {
                self.leave_image();
            }
            return false;
        }
        gone || (self.config.on_io_error == OnIoError::Detach && self.detach())
    }

    /// An answer to a flush of an image that has been given up.
    pub(super) fn is_flush_of_old_image(&mut self) -> bool {
        core::mem::take(&mut self.leg.flush_lost)
    }

    /// A metadata write failed. False: nothing can be promised any more.
    pub(super) fn survives_metadata_failure(&mut self) -> bool {
        if !self.leg.metadata_dead {
            self.leg.metadata_dead = self.local_leg_failed();
        }
        self.leg.metadata_dead
    }

    /// A suspended mutation lets go of its range while the leg here has to be fetched to: what it waits for may be a peer
    /// that waits for the end of that.
    pub(super) fn let_range_go(&mut self, id: RequestId) {
        if !self.is_primary() || self.leg_is_complete() {
            return;
        }
        self.end_range(id);
    }

    /// It is about to start: it needs its range (I2). False: another one has it, and will say so when it ends.
    pub(super) fn takes_range_again(&mut self, id: RequestId) -> bool {
        let orders = self.keeps(Sabotage::I2);
        let Some(request) = self.request(id).filter(|request| orders && !request.ordered) else {
            return true;
        };
        request.phase = Phase::Ordering;
        let range = request.mutation.range;
        let free = self.order.admit(id.0, range);
        if free && let Some(request) = self.request(id) {
            request.ordered = true;
        }
        free
    }

    /// The peer was the last one that had everything, and is lost: what it had not answered waits for it.
    pub(super) fn holds_for_data(&mut self, peer: usize) -> bool {
        if !self.is_primary() || self.leg_is_complete() || self.has_complete_peer() || self.closed().is_some() {
            return false;
        }
        *self.leg.awaited.get_or_insert(peer) == peer
    }

    /// A peer that has everything is there (again): what waited for another one goes to it.
    pub(super) fn data_is_back(&mut self, peer: usize) {
        self.leg.without_data = None;
        self.leg.gave_up = false;
        if core::mem::take(&mut self.leg.withdrawn) && !self.leg_is_complete() {
            self.renew_generation();
        }
        if let Some(awaited) = self.leg.awaited.take() {
            if awaited != peer {
                self.lose_awaited(awaited, peer);
            }
            self.hold_unanswered(peer);
        }
        self.name_without_the_lost();
    }

    /// When somebody has to have come.
    pub(super) fn leg_timeout_at(&self) -> Option<Duration> {
        let endless = |link: &Peer| link.policy() == OnDisconnect::Suspend && !link.removed;
        if self.leg.gave_up || self.peers.iter().any(endless) {
            return None;
        }
        self.leg.without_data.map(|since| since + NO_DATA_WAIT)
    }

    /// For `status`: nobody who is here has the data.
    pub(super) fn no_data(&self, now: Duration) -> Option<NoData> {
        let since = self.leg.without_data?;
        Some(NoData {
            elapsed: now.saturating_sub(since),
            rest: match self.leg.gave_up {
                true => Some(Duration::ZERO),
                false => self.leg_timeout_at().map(|at| at.saturating_sub(now)),
            },
        })
    }

    pub(super) fn leg_timeout(&mut self) {
        if self.leg_timeout_at().is_some_and(|at| at <= self.now) {
            self.leg.gave_up = true;
            self.refuse_waiting(Refusal::Local(Failure::Io));
        }
    }

    /// The local leg failed a READ. A peer that has the range serves it (see `read_from`), and it is written here
    /// again.
    pub(super) fn local_read_failed(&mut self, range: ByteRange, failure: Failure) {
        if !self.is_primary()
            || self.superblock.disk == LocalDisk::Diskless
            || failure != Failure::Io
            || self.has_failed()
        {
            return;
        }
        let blocks = range.blocks();
        let (offset, end) = (
            blocks.start * BLOCK_BYTES,
            (blocks.end * BLOCK_BYTES).min(self.config.size),
        );
        let mut at = offset;
        while at < end {
            let piece = ByteRange::new(at, (end - at).min(COPY_BYTES_MIN));
            at = piece.end();
            self.repair(piece);
        }
    }

    fn repair(&mut self, range: ByteRange) {
        let Some((peer, _)) = self.server_of(range) else {
            return;
        };
        if !self.leg.bad.contains(&range) {
            if self.leg.bad.len() >= BAD_MAX {
                self.local_leg_failed();
                return;
            }
            self.leg.bad.push(range);
        }
        let under_way = |link: &Peer| link.resync.is_asked(CopyKind::Repair, range);
        if !self.peers.iter().any(under_way) {
            self.ask_copy(peer, CopyKind::Repair, range);
        }
    }

    /// The peer cannot read all of the range either: the host gets its error. Most of it may be good on one of the two.
    pub(super) fn irreparable(&mut self, range: ByteRange) {
        self.leg.bad.retain(|bad| *bad != range);
        for half in range.halves().into_iter().flatten() {
            if self.leg.bad.len() < BAD_MAX {
                self.repair(half);
            }
        }
    }

    /// A bad range was written again, or could not be.
    pub(super) fn repaired(&mut self, range: ByteRange, done: bool) {
        if done {
            self.leg.bad.retain(|bad| *bad != range);
        } else {
            self.local_leg_failed();
        }
    }

    /// The peers a Diskless or Inconsistent Primary can go on with, for `status`.
    pub fn served_by(&self) -> Vec<PeerIndex> {
        let complete =
            |(at, link): (usize, &Peer)| (link.state == PeerState::SyncTarget).then_some(PeerIndex(at as u8));
        self.peers.iter().enumerate().filter_map(complete).collect()
    }
}
