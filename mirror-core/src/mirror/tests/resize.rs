//! Growing a volume: whatever moment it is cut off at, no dirty block is forgotten.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::*;
use crate::bitmap::PAGE_BLOCKS;
use crate::config::{AckMode, OnIoError, PeerConfig, PeerKind, ResyncRate};
use crate::event::{LinkKind, MetadataWrite, Mutation, MutationKind, Order, OrderRefusal, Ticket, Transaction};
use crate::metadata::{HEADER_BYTES, ImageIdentity, PeerSlotConfig, SECTOR_BYTES};
use crate::range::{ByteRange, EXTENT_BYTES};

const OLD: u64 = 100 << 20;
const NEW: u64 = 180 << 20;
const SMALL: u64 = 40 << 20;
const NAMES: [&str; 2] = ["bravo", "charlie"];
const TICKET: Ticket = Ticket(1);

const _: () = assert!(OLD < PAGE_BLOCKS * BLOCK_BYTES && NEW > PAGE_BLOCKS * BLOCK_BYTES);

fn image(size: u64) -> ImageIdentity {
    ImageIdentity {
        size,
        device: 1,
        inode: 2,
        born_ns: 3,
    }
}

/// With two peers the pages of one stand, in the larger file, where those of the other stood.
fn slots() -> Vec<PeerSlotConfig> {
    let slot = |name: &&str| PeerSlotConfig {
        name: name.to_string(),
        skip_initial_sync: true,
        kind: Some(LinkKind::Nbd),
    };
    NAMES.iter().map(slot).collect()
}

/// A metadata file, and the mirror that writes it. Its peers are not there.
struct World {
    file: Vec<u8>,
    mirror: Mirror,
    waiting: Option<Transaction>,
    done: Option<Result<(), OrderRefusal>>,
    /// The image does not answer.
    deaf: bool,
}

impl World {
    fn new() -> Self {
        Self::with(Role::Primary)
    }

    fn with(role: Role) -> Self {
        let mut file = vec![0; HEADER_BYTES];
        let (restored, writes) = Restored::create(image(OLD), &slots(), 7).unwrap();
        apply(&mut file, &writes);
        let peer = |name: &&str| PeerConfig {
            name: name.to_string(),
            mode: AckMode::Sync,
            on_disconnect: OnDisconnect::Continue,
            queue_bytes: 1 << 20,
            queue_requests: 8,
            kind: PeerKind::Plain,
        };
        let config = MirrorConfig {
            size: OLD,
            hot_extents: 3,
            peers: NAMES.iter().map(peer).collect(),
            entropy: 9,
            role,
            on_io_error: OnIoError::Pass,
            resync: ResyncRate::default(),
        };
        let mut world = Self {
            file,
            mirror: Mirror::new(config, restored),
            waiting: None,
            done: None,
            deaf: false,
        };
        world.drain();
        world
    }

    fn feed(&mut self, input: Input) {
        self.mirror.handle(Duration::ZERO, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.mirror.poll_output() {
            match output {
                Output::Persist(transaction) => self.waiting = Some(transaction),
                Output::Local { .. } if self.deaf => {}
                Output::Local { id, .. } => self
                    .mirror
                    .handle(Duration::ZERO, Input::LocalDone { id, outcome: Ok(()) }),
                Output::LocalFlush => self.mirror.handle(Duration::ZERO, Input::LocalFlushDone(Ok(()))),
                Output::OrderDone { ticket, outcome } => {
                    assert_eq!((ticket, self.done), (TICKET, None), "done once");
                    self.done = Some(outcome);
                }
                _ => {}
            }
        }
    }

    fn write(&mut self, id: u32, offset: u64) {
        let mutation = Mutation {
            range: ByteRange::new(offset, 512),
            kind: MutationKind::Write,
            fua: false,
        };
        let id = RequestId(id);
        self.feed(Input::Host {
            id,
            op: HostOp::Mutate(mutation),
        });
    }

    /// The transaction in flight becomes durable; false: there is none.
    fn save(&mut self) -> bool {
        let Some(transaction) = self.waiting.take() else {
            return false;
        };
        apply(&mut self.file, &transaction.first);
        apply(&mut self.file, &transaction.then);
        let id = transaction.id;
        self.feed(Input::Persisted { id, outcome: Ok(()) });
        true
    }

    /// What a crash at this moment may find: any part of the transaction in flight, in its order.
    fn judge_crashes(&self) {
        let mut found = vec![self.file.clone()];
        if let Some(Transaction { first, then, .. }) = &self.waiting {
            for mask in 0..1u32 << first.len().min(6) {
                let some = |(at, _): &(usize, &MetadataWrite)| mask >> (at % 6) & 1 == 1;
                let part: Vec<MetadataWrite> = first
                    .iter()
                    .enumerate()
                    .filter(some)
                    .map(|(_, write)| write.clone())
                    .collect();
                let mut file = self.file.clone();
                apply(&mut file, &part);
                found.push(file);
            }
            let mut file = self.file.clone();
            apply(&mut file, first);
            apply(&mut file, then);
            found.push(file);
        }
        for file in &found {
            self.judge(file);
        }
    }

    /// Every block that is dirty now is dirty for whoever reads this file, with the image as large as it is.
    fn judge(&self, file: &[u8]) {
        let mut restored = Restored::open(&file[..HEADER_BYTES], &image(OLD), false)
            .or_else(|_| Restored::open(&file[..HEADER_BYTES], &image(NEW), false))
            .unwrap();
        for at in (HEADER_BYTES..file.len()).step_by(SECTOR_BYTES) {
            let sector = file[at..at + SECTOR_BYTES].try_into().unwrap();
            restored.load_page(at as u64, &sector).unwrap();
        }
        let (restored, _) = restored.finish(&slots(), 5).unwrap();
        let known = restored.superblock.image.size.div_ceil(BLOCK_BYTES);
        for (found, link) in restored.peers.iter().zip(&self.mirror.peers) {
            let mut from = 0;
            while let Some(run) = link.dirty.next_run(from, u64::MAX) {
                from = run.end;
                // What has not been answered, or lies beyond the size that is known, does not count.
                let mut at = run.start.min(known);
                while at < run.end.min(known) {
                    let next = found.dirty.next_run(at, u64::MAX);
                    let kept = next.clone().is_some_and(|next| next.start == at);
                    assert!(kept || self.is_unanswered(at), "I9: block {at} of {known} is forgotten");
                    at = next.filter(|_| kept).map_or(at + 1, |next| next.end);
                }
            }
        }
    }

    fn is_unanswered(&self, block: u64) -> bool {
        let touches = |request: &&Request| request.mutation.range.blocks().contains(&block) && !request.replied;
        self.mirror.requests.iter().flatten().any(|request| touches(&request))
    }
}

fn apply(file: &mut Vec<u8>, writes: &[MetadataWrite]) {
    for write in writes {
        let at = write.offset as usize;
        if file.len() < at + write.bytes.len() {
            file.resize(at + write.bytes.len(), 0);
        }
        file[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
}

/// Writes to so many cold extents that pages are written all the time; the order comes after `before` of them.
fn story(before: u32, assume_clean: bool, mut world: World) {
    for at in 0..40 {
        world.judge_crashes();
        if at == before {
            let order = Order::Resize {
                size: NEW,
                assume_clean,
            };
            world.feed(Input::Order { ticket: TICKET, order });
            world.judge_crashes();
        }
        let room = if world.done.is_some() { NEW } else { OLD };
        world.write(at, u64::from(at * 7) * EXTENT_BYTES % room + 8192);
        if at % 3 > 0 {
            world.judge_crashes();
            world.save();
        }
    }
    while world.save() {
        world.judge_crashes();
    }
    assert_eq!(world.done, Some(Ok(())));
    let clean = world.mirror.peers[0].dirty.count();
    if assume_clean {
        assert!(clean <= 41, "{clean}");
    } else {
        assert!(clean >= (NEW - OLD) / BLOCK_BYTES, "the new part is dirty");
    }
    // Nothing but what has to be dirty is, once it is over and everything is durable.
    let (restored, _) = Restored::open(&world.file[..HEADER_BYTES], &image(NEW), false)
        .map(|mut restored| {
            for at in (HEADER_BYTES..world.file.len()).step_by(SECTOR_BYTES) {
                let sector = world.file[at..at + SECTOR_BYTES].try_into().unwrap();
                restored.load_page(at as u64, &sector).unwrap();
            }
            restored.finish(&slots(), 5).unwrap()
        })
        .unwrap();
    assert!(restored.peers[0].dirty.count() <= clean + 4 * EXTENT_BYTES / BLOCK_BYTES);
}

#[test]
fn a_crash_at_any_moment_of_a_resize_forgets_no_block() {
    for before in 0..12 {
        story(before, before % 2 == 0, World::new());
    }
}

#[cfg(feature = "sabotage")]
#[test]
#[should_panic(expected = "I9")]
fn pages_that_move_before_the_superblock_says_so_are_noticed() {
    for before in 0..12 {
        let mut world = World::new();
        world.mirror.set_sabotage(Some(Sabotage::ResizeOrder));
        story(before, false, world);
    }
}

fn shrink(world: &mut World) {
    let order = Order::Resize {
        size: SMALL,
        assume_clean: false,
    };
    world.feed(Input::Order { ticket: TICKET, order });
}

#[test]
fn a_volume_is_not_made_smaller_while_it_is_used() {
    let mut world = World::new();
    shrink(&mut world);
    assert_eq!(world.done, Some(Err(OrderRefusal::WrongState)));
    // The stream brings it a write that has not ended.
    let mut world = World::with(Role::Secondary);
    while world.save() {}
    world.deaf = true;
    world.write(1, 0);
    shrink(&mut world);
    assert_eq!(world.done, Some(Err(OrderRefusal::WrongState)));
}

#[test]
fn a_crash_at_any_moment_finds_the_old_size_or_the_new_one() {
    let mut world = World::with(Role::Secondary);
    while world.save() {}
    shrink(&mut world);
    let mut seen = Vec::new();
    loop {
        // A file that is longer than the volume is taken as larger: nothing is lost by it.
        let size = Restored::open(&world.file[..HEADER_BYTES], &image(OLD), false).unwrap();
        let small = Restored::open(&world.file[..HEADER_BYTES], &image(SMALL), false);
        seen.push(small.is_ok());
        assert_eq!(size.superblock.image.size, OLD);
        if !world.save() {
            break;
        }
    }
    assert_eq!((seen.first(), seen.last()), (Some(&false), Some(&true)));
    assert_eq!(world.done, Some(Ok(())));
    let (restored, _) = Restored::open(&world.file[..HEADER_BYTES], &image(SMALL), false)
        .unwrap()
        .finish(&slots(), 5)
        .unwrap();
    assert!(
        restored.peers.iter().all(|peer| peer.dirty.is_empty()),
        "in step as before"
    );
    world.write(2, SMALL - 4096);
    while world.save() {}
}
