//! Growing the volume while it is used, or making it smaller while it is not.
//!
//! Bitmap pages stand elsewhere in the metadata of a volume of another size, so there is no moment at which both forms are
//! whole. Between them the superblock says that every block of every peer is dirty:
//!
//! ```text
//!  1. superblock: old size, every peer all dirty, under instances that no page has
//!  2. pages, in their new places, under instances that no superblock has
//!  3. superblock: new size, those instances
//! ```
//! A crash before 3 finds everything dirty, a crash after it finds every bit (I9). The activity log goes on all the
//! time; it numbers extents, which stay where they are.

use alloc::vec::Vec;
use core::ops::Range;

use super::Mirror;
use super::orders::Then;
use super::peer::Peer;
use crate::bitmap::Bitmap;
use crate::config::VOLUME_BYTES_MAX;
use crate::event::{OrderRefusal, Ticket};
use crate::identity::Role;
use crate::metadata::{Geometry, HEADER_BYTES, Superblock, make_all_dirty};
use crate::range::BLOCK_BYTES;
use crate::sabotage::Sabotage;
use crate::state::{LocalDisk, PeerState};

/// How far a resize has come.
#[derive(Clone, Debug)]
pub(super) struct Resizing {
    ticket: Ticket,
    step: Step,
    size: u64,
    old_size: u64,
    assume_clean: bool,
    /// By peer: the instance that no page has.
    nobody: Vec<u32>,
}

/// What is on its way to stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The superblock that says that everything is dirty.
    Doubting,
    /// Pages in their new places.
    Pages,
    /// The superblock of the new size.
    Naming,
}

impl Resizing {
    /// What the superblock has to say while the pages are on their way.
    pub(super) fn disguise(&self, superblock: &mut Superblock, peers: &[Peer]) {
        if self.step == Step::Naming {
            return;
        }
        superblock.image.size = self.old_size;
        for (link, &instance) in peers.iter().zip(&self.nobody) {
            if let Some(record) = &mut superblock.peers[link.slot as usize]
                && !link.removed
            {
                make_all_dirty(record, instance);
            }
        }
    }
}

impl Mirror {
    /// Every part of the metadata file that may be written to once the volume has `size` bytes, the header first: what
    /// [`Restored::space`](crate::metadata::Restored::space) tells at the start.
    pub fn space(&self, size: u64) -> Vec<Range<u64>> {
        let geometry = Geometry::new(size);
        let mut space = alloc::vec![0..HEADER_BYTES as u64];
        let peers = self.peers.iter().filter(|peer| !peer.removed);
        space.extend(peers.map(|peer| geometry.slot_space(peer.slot)));
        space
    }

    pub(super) fn order_resize(&mut self, ticket: Ticket, size: u64, assume_clean: bool) {
        let old_size = self.config.size;
        if size == old_size && self.resizing.is_none() {
            return self.order_done(ticket, Ok(()));
        }
        let in_use = size < old_size && !self.is_at_rest();
        if in_use || self.resizing.is_some() || size > VOLUME_BYTES_MAX {
            return self.order_done(ticket, Err(OrderRefusal::WrongState));
        }
        let nobody = (0..self.peers.len()).map(|_| self.rng.identifier() as u32).collect();
        self.resizing = Some(Resizing {
            ticket,
            step: Step::Doubting,
            size,
            old_size,
            assume_clean,
            nobody,
        });
        if !self.keeps(Sabotage::ResizeOrder) {
            self.place_pages();
        }
        self.when_durable(Then::Resize);
    }

    /// Nothing is on its way to any part of the volume, and no peer lacks any.
    fn is_at_rest(&self) -> bool {
        let in_step = |link: &Peer| link.removed || (link.dirty.is_empty() && link.state != PeerState::SyncTarget);
        self.role == Role::Secondary
            && self.disk() == LocalDisk::UpToDate
            && self.requests.iter().all(Option::is_none)
            && self.log.as_ref().is_none_or(|log| log.len() == 0)
            && self.peers.iter().all(in_step)
    }

    /// A superblock is durable that was asked for by this resize.
    pub(super) fn resize_step(&mut self) {
        let Some(resizing) = &self.resizing else { return };
        match resizing.step {
            Step::Doubting => self.place_pages(),
            Step::Pages => {}
            Step::Naming => {
                let ticket = resizing.ticket;
                self.resizing = None;
                self.order_done(ticket, Ok(()));
                for peer in 0..self.peers.len() {
                    let link = &self.peers[peer];
                    let sources = link.state == PeerState::Established && !link.dirty.is_empty();
                    if sources && self.is_primary() {
                        self.start_resync(peer);
                    }
                    self.go_on_with(peer);
                }
            }
        }
    }

    /// From here on everything has the new size, in memory: pages go to their new places, under new instances.
    fn place_pages(&mut self) {
        let Some(resizing) = &mut self.resizing else { return };
        if resizing.step != Step::Doubting {
            return;
        }
        resizing.step = Step::Pages;
        let (size, old_size, assume_clean) = (resizing.size, resizing.old_size, resizing.assume_clean);
        let (blocks, old_blocks) = (size.div_ceil(BLOCK_BYTES), old_size.div_ceil(BLOCK_BYTES));
        self.config.size = size;
        self.superblock.image.size = size;
        self.volume.geometry = Geometry::new(size);
        if let Some(log) = &mut self.log {
            log.resize(size);
        }
        let shrinks = size < old_size;
        for link in &mut self.peers {
            let instance = self.rng.identifier() as u32;
            for bitmap in [&mut link.dirty, &mut link.unstable, &mut link.flushing] {
                if shrinks {
                    // At rest they are empty.
                    *bitmap = Bitmap::new(blocks);
                } else {
                    bitmap.grow(blocks);
                }
            }
            if link.removed {
                continue;
            }
            if shrinks {
                // What is left is in step.
            } else if !assume_clean {
                // The last block may have been a short one: it is another one now.
                link.dirty.set(old_size / BLOCK_BYTES..blocks);
            } else if old_size % BLOCK_BYTES != 0 && link.dirty.contains(old_blocks - 1) {
                link.dirty.set(old_blocks - 1..old_blocks);
            }
            link.sequences.resize(link.dirty.pages() as usize, 0);
            link.record.instance = instance;
            // A page that is not written stands for what most pages are.
            link.record.base_dirty = link.dirty.count() > blocks / 2;
            link.dirty.touch(link.record.base_dirty);
        }
        self.persisting.progress_wanted = true;
        self.resize_pages_written();
    }

    /// Pages were written, or there are none to write: when all are in their places the new size may be named.
    pub(super) fn resize_pages_written(&mut self) {
        let Some(resizing) = &mut self.resizing else { return };
        if resizing.step != Step::Pages {
            return;
        }
        if self.persisting.is_busy() || self.peers.iter().any(|link| !link.dirty.changed().is_empty()) {
            self.persisting.progress_wanted = true;
            return;
        }
        resizing.step = Step::Naming;
        self.when_durable(Then::Resize);
    }
}
