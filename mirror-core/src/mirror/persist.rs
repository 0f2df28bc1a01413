//! Metadata transactions: one at a time, each with everything that wants to be durable by then.

use alloc::vec::Vec;

use super::Mirror;
use super::orders::Then;
use super::peer::Peer;
use crate::bitmap::PAGE_BLOCKS;
use crate::config::PROGRESS_PAGES_MAX;
use crate::event::{Failure, MetadataWrite, Output, RequestId, Transaction, TransactionId};
use crate::identity::Role;
use crate::metadata::{PageKey, encode_log, encode_page};
use crate::range::EXTENT_BLOCKS;
use crate::sabotage::Sabotage;
use crate::state::Fatal;

/// The transaction in flight, and what the next one has to hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Persisting {
    last: u64,
    in_flight: Option<TransactionId>,
    /// The log of an earlier life lists extents that are dirty by now: write down that none is hot.
    pub(super) log_wanted: bool,
    /// The superblock changed.
    pub(super) superblock_wanted: bool,
    superblock_in_flight: bool,
    /// Bitmap pages are to be written though nothing depends on them.
    pub(super) progress_wanted: bool,
    log_in_flight: bool,
    /// Mutations whose extents the transaction in flight makes hot.
    pub(super) reserved: Vec<RequestId>,
    /// What follows once the superblock as it is now is durable.
    pub(super) unsaved: Vec<Then>,
    /// What follows once the superblock in flight is durable.
    saving: Vec<Then>,
    /// The local flush before which the superblock may not say what the data here is called.
    pub(super) covered_by: Option<u64>,
}

impl Persisting {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && !self.superblock_wanted && !self.progress_wanted
    }

    /// A transaction is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// A superblock is on its way.
    pub(super) fn is_saving_superblock(&self) -> bool {
        self.superblock_in_flight
    }

    /// Everything that waits for a superblock.
    pub(super) fn take_waiting(&mut self) -> Vec<Then> {
        let mut all = core::mem::take(&mut self.saving);
        all.append(&mut self.unsaved);
        all
    }
}

impl Mirror {
    /// Put out the next transaction, if there is a reason for one and none is in flight.
    pub(super) fn persist(&mut self) {
        if self.persisting.in_flight.is_some() || self.has_failed() {
            return;
        }
        let (mut first, mut then) = (Vec::new(), Vec::new());
        self.start_what_is_hot();
        let evicted = self.reserve_extents();
        if self.keeps(Sabotage::I4) {
            self.evicted_pages(evicted.as_deref().unwrap_or_default(), &mut first);
        }
        if core::mem::take(&mut self.persisting.log_wanted) || evicted.is_some() {
            then.push(self.log_write());
            self.persisting.log_in_flight = true;
        }
        if core::mem::take(&mut self.persisting.progress_wanted) {
            self.progress_pages(&mut first);
        }
        if self.is_data_covered() && core::mem::take(&mut self.persisting.superblock_wanted) {
            // Before the log: an instance that makes every block dirty is what covers the extents that go cold with it.
            first.push(self.superblock_write());
        }
        self.put_out(first, then);
    }

    /// The data here gets a name that another node gave it: everything applied so far is durable before the name is, so
    /// that who has a later name has all that was known under the earlier ones. (A Primary's log knows what is not.)
    pub(super) fn cover_data(&mut self) {
        if self.role == Role::Secondary && self.keeps(Sabotage::NameCoversData) {
            self.persisting.covered_by = Some(self.local.request());
            self.issue_flushes();
        }
    }

    fn is_data_covered(&mut self) -> bool {
        let covered = self.persisting.covered_by.is_none_or(|flush| self.local.reached(flush));
        if covered {
            self.persisting.covered_by = None;
        }
        covered
    }

    /// The last transaction of a life or of a time as Primary: no extent is hot, nothing is in flight.
    pub(super) fn persist_clean(&mut self) {
        if let Some(log) = &mut self.log {
            log.clear();
        }
        let then = alloc::vec![self.log_write(), self.superblock_write()];
        self.put_out(Vec::new(), then);
    }

    fn put_out(&mut self, first: Vec<MetadataWrite>, then: Vec<MetadataWrite>) {
        if first.is_empty() && then.is_empty() {
            return;
        }
        self.persisting.last += 1;
        let id = TransactionId(self.persisting.last);
        self.persisting.in_flight = Some(id);
        if self.leg.metadata_dead {
            // It goes on without: the peers that have everything know all that matters.
            return self.persisted(id, Ok(()));
        }
        self.emit(Output::Persist(Transaction { id, first, then }));
        if !self.keeps(Sabotage::I1) {
            if let Some(log) = &mut self.log {
                log.pretend_durable();
            }
            self.start_reserved();
        }
    }

    pub(super) fn persisted(&mut self, id: TransactionId, outcome: Result<(), Failure>) {
        assert_eq!(self.persisting.in_flight, Some(id), "one transaction at a time");
        self.persisting.in_flight = None;
        if outcome.is_err() && !self.survives_metadata_failure() {
            return self.fail_volume(Fatal::Metadata);
        }
        if core::mem::take(&mut self.persisting.log_in_flight)
            && let Some(log) = &mut self.log
        {
            log.became_durable();
        }
        self.start_reserved();
        if core::mem::take(&mut self.persisting.superblock_in_flight) {
            for link in &mut self.peers {
                link.met = link.saving_met;
            }
            for then in core::mem::take(&mut self.persisting.saving) {
                self.after_durable(then);
            }
            self.generation_durable();
            for peer in 0..self.peers.len() {
                self.go_on_with(peer);
            }
        }
        for peer in 0..self.peers.len() {
            // Its end waits for what it has found.
            self.verify(peer);
        }
        self.resize_pages_written();
    }

    fn start_reserved(&mut self) {
        for id in core::mem::take(&mut self.persisting.reserved) {
            self.now_hot(id);
        }
    }

    /// Queued mutations whose extents have become hot meanwhile need no transaction.
    fn start_what_is_hot(&mut self) {
        while let Some(log) = &mut self.log {
            let Some(&id) = log.queue.front() else {
                log.starving = false;
                return;
            };
            let Some(range) = self.requests[id.0 as usize]
                .as_ref()
                .map(|request| request.mutation.range)
            else {
                log.queue.pop_front();
                continue;
            };
            if !log.is_hot(range) {
                return;
            }
            log.queue.pop_front();
            log.pin(range);
            self.now_hot(id);
        }
    }

    /// Give queued mutations slots, in order. The extents that go cold for them; nothing when the log stays as it is.
    fn reserve_extents(&mut self) -> Option<Vec<u32>> {
        let log = self.log.as_mut()?;
        if log.queue.is_empty() {
            return None;
        }
        let (local, peers) = (&self.local, &self.peers);
        let durable = |stamps: &crate::activity_log::LegStamps| {
            // A peer that is not connected has its dirty bits instead.
            let settled = |(at, peer): (usize, &Peer)| !peer.state.is_connected() || peer.flush.covers(stamps[at + 1]);
            local.covers(stamps[0]) && peers.iter().enumerate().all(settled)
        };
        let mut available = log.available(durable);
        let mut evicted = Vec::new();
        while let Some(&id) = log.queue.front() {
            let Some(request) = &self.requests[id.0 as usize] else {
                break;
            };
            if !log.reserve(request.mutation.range, &mut available, &mut evicted) {
                log.starving = true;
                break;
            }
            log.queue.pop_front();
            self.persisting.reserved.push(id);
        }
        if log.starving {
            self.flush_for_slots();
        }
        (!self.persisting.reserved.is_empty()).then_some(evicted)
    }

    /// Extents without requests under way that wait only for a flush: flush the legs they wait for.
    fn flush_for_slots(&mut self) {
        let Some(log) = &self.log else { return };
        if !self.local.is_busy() && log.is_unsettled(|stamps| self.local.covers(stamps[0])) {
            self.local.request();
        }
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let busy = !peer.state.is_connected() || peer.flush.is_busy();
            if !busy && log.is_unsettled(|stamps| peer.flush.covers(stamps[at + 1])) {
                peer.flush.request();
            }
        }
        self.issue_flushes();
    }

    /// Pages with changes in extents that go cold: durable before the log says so (I4, I9).
    fn evicted_pages(&mut self, evicted: &[u32], writes: &mut Vec<MetadataWrite>) {
        for peer in 0..self.peers.len() {
            let mut pages = Vec::new();
            for &extent in evicted {
                let start = u64::from(extent) * EXTENT_BLOCKS;
                let last = (start + EXTENT_BLOCKS - 1) / PAGE_BLOCKS;
                let changed = self.peers[peer].dirty.changed();
                pages.extend(changed.range((start / PAGE_BLOCKS) as u32..=last as u32));
            }
            pages.sort_unstable();
            pages.dedup();
            for page in pages {
                writes.push(self.page_write(peer, page));
            }
        }
    }

    fn progress_pages(&mut self, writes: &mut Vec<MetadataWrite>) {
        for peer in 0..self.peers.len() {
            let changed = self.peers[peer].dirty.changed();
            let pages: Vec<u32> = changed.iter().copied().take(PROGRESS_PAGES_MAX).collect();
            self.persisting.progress_wanted |= pages.len() < changed.len();
            for page in pages {
                writes.push(self.page_write(peer, page));
            }
        }
    }

    fn page_write(&mut self, peer: usize, page: u32) -> MetadataWrite {
        let volume = self.superblock.volume;
        let link = &mut self.peers[peer];
        let sequence = link.sequences[page as usize] + 1;
        link.sequences[page as usize] = sequence;
        link.dirty.written(page);
        let key = PageKey {
            volume,
            slot: link.slot,
            instance: link.record.instance,
            page,
            sequence,
        };
        let bytes = encode_page(key, &link.dirty.words(page));
        MetadataWrite {
            offset: self.volume.geometry.page_offset(link.slot, page, sequence),
            bytes,
        }
    }

    fn log_write(&mut self) -> MetadataWrite {
        self.volume.log_sequence += 1;
        let extents = self.log.as_ref().map(|log| log.extents()).unwrap_or_default();
        encode_log(self.superblock.volume, self.volume.log_sequence, &extents)
    }

    fn superblock_write(&mut self) -> MetadataWrite {
        self.superblock.sequence += 1;
        for peer in self.peers.iter_mut().filter(|peer| !peer.removed) {
            self.superblock.peers[peer.slot as usize] = Some(peer.record.clone());
            peer.saving_met = peer.record.met;
        }
        self.saving_generation();
        self.persisting.superblock_in_flight = true;
        let mut unsaved = core::mem::take(&mut self.persisting.unsaved);
        self.persisting.saving.append(&mut unsaved);
        let bytes = match &self.resizing {
            None => self.superblock.encode(),
            Some(resizing) => {
                let mut superblock = self.superblock.clone();
                resizing.disguise(&mut superblock, &self.peers);
                superblock.encode()
            }
        };
        MetadataWrite {
            offset: self.superblock.offset(),
            bytes,
        }
    }
}
