//! Background requests of a peer: copies to it, fetches from it, comparisons with it.
//!
//! Each takes its range in the range order like a mutation: it waits for the mutations on it, and later ones wait for
//! it. To a plain server it goes through the queue behind older writes, to a partner it takes its place in the stream,
//! so it never overtakes an older write. Only the first look of a comparison takes no range: what it finds is looked
//! at again.

use alloc::vec::Vec;

use super::background::{CopyKind, CopyPhase, CopyRequest};
use super::peer::{Entry, Peer};
use super::{COPY_ID, Mirror};
use crate::event::{ConnectionId, CopyId, Output, PeerIndex};
use crate::range::ByteRange;
use crate::state::{LocalDisk, PeerState};

impl Mirror {
    /// Does the rate let a request of this length out now? If not, and nothing in flight will say so, a timer will.
    pub(super) fn may_ask(&mut self, peer: usize, length: u64) -> bool {
        let now = self.now;
        let resync = &mut self.peers[peer].resync;
        resync.wake_at = None;
        if resync.copies.len() >= resync.rate.requests() {
            return false;
        }
        let in_flight = resync.in_flight_bytes();
        let may = resync.rate.take(now, in_flight, length);
        if !may {
            resync.wake_at = resync.rate.next_at();
        }
        may
    }

    /// Background traffic of this peer goes on: look at the application and at the rate.
    pub(super) fn pace(&mut self, peer: usize) {
        let now = self.now;
        self.latency.set_background(now, true);
        let slow = |link: &Peer| !link.is_in_pass() || link.resync.rate.is_at_floor(link.resync.in_flight_bytes());
        let at_floor = self.peers.iter().all(slow);
        self.latency.look(now, at_floor);
        self.peers[peer].resync.rate.tick(now, &self.latency);
    }

    /// A host write was answered.
    pub(super) fn note_latency(&mut self, since: core::time::Duration) {
        if self.peers.is_empty() {
            return;
        }
        let background = self.peers.iter().any(Peer::is_in_pass);
        self.latency.set_background(self.now, background);
        self.latency.note(self.now.saturating_sub(since));
    }

    pub(super) fn ask_copy(&mut self, peer: usize, kind: CopyKind, range: ByteRange) {
        self.copies += 1;
        // The range order knows 31 bits of the name: enough to tell apart the few that live together.
        let id = CopyId(self.copies & u64::from(COPY_ID - 1));
        self.peers[peer].resync.copies.push(CopyRequest {
            id,
            range,
            kind,
            phase: CopyPhase::Ordering,
            stale: false,
            asked_at: self.now,
        });
        if kind == CopyKind::Look {
            self.send_copy(peer, id);
        } else if self.order.admit(COPY_ID | id.0 as u32, range) {
            self.copy_ordered(id.0 as u32);
        }
    }

    /// The range is closed to the host now.
    pub(super) fn copy_ordered(&mut self, id: u32) {
        let owner = |peer: &Peer| peer.resync.copies.iter().position(|copy| copy.id.0 as u32 == id);
        let found = self
            .peers
            .iter()
            .enumerate()
            .find_map(|(at, peer)| owner(peer).map(|copy| (at, copy)));
        let Some((peer, at)) = found else { return };
        let copy = self.peers[peer].resync.copies[at];
        self.peers[peer].resync.copies[at].phase = CopyPhase::Queued;
        if self.is_wanted(peer, copy.kind) {
            self.enqueue_copy(peer, copy.id, copy.range);
        } else {
            self.forget_copy(peer, copy.id);
            self.caught_up(peer);
        }
    }

    /// What was asked for still makes sense.
    fn is_wanted(&self, peer: usize, kind: CopyKind) -> bool {
        let (state, has_image) = (self.peers[peer].state, self.superblock.disk != LocalDisk::Diskless);
        match kind {
            CopyKind::Copy => state == PeerState::SyncSource,
            CopyKind::Fetch => state == PeerState::SyncTarget && has_image,
            CopyKind::Repair => state.replicates() && has_image,
            CopyKind::Compare | CopyKind::Look => state == PeerState::Established,
        }
    }

    pub(super) fn send_copy(&mut self, peer: usize, copy: CopyId) {
        let Some(connection) = self.peers[peer].connection else {
            return;
        };
        let now = self.now;
        let mut copies = self.peers[peer].resync.copies.iter_mut();
        let Some(request) = copies.find(|request| request.id == copy) else {
            return;
        };
        (request.phase, request.asked_at) = (CopyPhase::InFlight, now);
        let (range, kind) = (request.range, request.kind);
        let peer = PeerIndex(peer as u8);
        self.emit(match kind {
            CopyKind::Copy => Output::Copy {
                peer,
                connection,
                copy,
                range,
            },
            CopyKind::Fetch | CopyKind::Repair => Output::Fetch {
                peer,
                connection,
                copy,
                range,
            },
            CopyKind::Compare | CopyKind::Look => Output::Compare {
                peer,
                connection,
                copy,
                range,
            },
        });
    }

    /// A request ended: it leaves the window, its range is open to the host again. `None`: it is not known any more.
    pub(super) fn take_copy(&mut self, peer: usize, connection: ConnectionId, copy: CopyId) -> Option<CopyRequest> {
        if self.peers[peer].connection != Some(connection) {
            return None;
        }
        let copies = &mut self.peers[peer].resync.copies;
        let place = copies.iter().position(|request| request.id == copy)?;
        let request = copies.remove(place);
        if request.kind != CopyKind::Look {
            self.left_window(peer, request.range);
            self.release_range(request.range);
        }
        Some(request)
    }

    /// A request that was not sent: its range is open to the host again, its bits stay.
    pub(super) fn forget_copy(&mut self, peer: usize, copy: CopyId) {
        let copies = &mut self.peers[peer].resync.copies;
        let Some(place) = copies.iter().position(|request| request.id == copy) else {
            return;
        };
        let request = copies.remove(place);
        self.close_copy(peer, request);
    }

    /// The connection is gone, and every request with it.
    pub(super) fn drop_copies(&mut self, peer: usize) {
        for request in core::mem::take(&mut self.peers[peer].resync.copies) {
            self.close_copy(peer, request);
        }
        self.pause_verify(peer);
        let resync = &mut self.peers[peer].resync;
        resync.progress = None;
        resync.persist_at = None;
        resync.wake_at = None;
        self.peers[peer].reset_resync_pass();
    }

    /// The mirror stops, or its leg is gone: what was not sent stays dirty.
    pub(super) fn drop_unsent_copies(&mut self, peer: usize) {
        let link = &mut self.peers[peer];
        let ordering = link
            .resync
            .copies
            .iter()
            .filter(|copy| copy.phase == CopyPhase::Ordering)
            .map(|copy| copy.id);
        let queued = link.queue.iter().filter_map(|entry| match entry {
            Entry::Copy(copy, _) => Some(*copy),
            Entry::Mutation(..) | Entry::Barrier | Entry::Fence => None,
        });
        let unsent: Vec<CopyId> = ordering.chain(queued).collect();
        link.queue.retain(|entry| !matches!(entry, Entry::Copy(..)));
        for copy in unsent {
            self.forget_copy(peer, copy);
        }
    }

    fn close_copy(&mut self, peer: usize, request: CopyRequest) {
        if matches!(request.kind, CopyKind::Look | CopyKind::Compare) {
            self.compare_again(peer, request.range);
        }
        self.perhaps_changed_here(peer, &request);
        let key = COPY_ID | request.id.0 as u32;
        match request.phase {
            _ if request.kind == CopyKind::Look => {}
            CopyPhase::Ordering => self.leave_order(key, request.range),
            CopyPhase::Queued | CopyPhase::InFlight => self.release_range(request.range),
        }
    }
}
