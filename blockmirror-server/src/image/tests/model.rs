//! Random requests, many at once, against a vector of bytes.

use proptest::prelude::*;

use super::*;

const SIZE: usize = 96 << 10;

#[derive(Clone, Debug)]
enum Action {
    Read {
        at: usize,
        length: usize,
    },
    Write {
        at: usize,
        length: usize,
        seed: u8,
        durable: bool,
    },
    Zero {
        at: usize,
        length: usize,
        no_hole: bool,
        durable: bool,
    },
    Trim {
        at: usize,
        length: usize,
    },
    Flush,
    Cache {
        at: usize,
        length: usize,
    },
}

/// Ranges, half of them of whole 512 byte sectors.
fn range() -> impl Strategy<Value = (usize, usize)> {
    let bytes = (0..SIZE, prop_oneof![1usize..700, 1usize..20_000]);
    (bytes, any::<bool>()).prop_map(|((at, length), whole)| {
        let (at, length) = if whole {
            (at & !511, length.next_multiple_of(512))
        } else {
            (at, length)
        };
        (at, length.min(SIZE - at))
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => range().prop_map(|(at, length)| Action::Read { at, length }),
        6 => (range(), any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|((at, length), seed, durable)| Action::Write { at, length, seed, durable }),
        2 => (range(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|((at, length), no_hole, durable)| Action::Zero { at, length, no_hole, durable }),
        1 => range().prop_map(|(at, length)| Action::Trim { at, length }),
        1 => Just(Action::Flush),
        1 => range().prop_map(|(at, length)| Action::Cache { at, length }),
    ]
}

impl Action {
    fn range(&self) -> (usize, usize) {
        match *self {
            Action::Read { at, length }
            | Action::Write { at, length, .. }
            | Action::Zero { at, length, .. }
            | Action::Trim { at, length }
            | Action::Cache { at, length } => (at, length),
            Action::Flush => (0, 0),
        }
    }

    fn meets(&self, other: &Action) -> bool {
        let ((at, length), (start, count)) = (self.range(), other.range());
        at < start + count && start < at + length
    }

    fn is_change(&self) -> bool {
        matches!(self, Action::Write { .. } | Action::Zero { .. } | Action::Trim { .. })
    }

    fn request(&self, bench: &Bench) -> ImageRequest {
        let (at, length) = self.range();
        let offset = at as u64;
        match *self {
            Action::Read { .. } => ImageRequest::Read {
                buffer: bench.buffer(length),
                offset,
            },
            Action::Write { seed, durable, .. } => ImageRequest::Write {
                payload: bench.payload(&pattern(length, seed)),
                offset,
                durable,
            },
            Action::Zero { no_hole, durable, .. } => ImageRequest::Zero {
                offset,
                length: length as u64,
                no_hole,
                durable,
            },
            Action::Trim { .. } => trim(offset, length as u64),
            Action::Flush => ImageRequest::Flush,
            Action::Cache { .. } => ImageRequest::Cache {
                offset,
                length: length as u64,
            },
        }
    }

    fn apply(&self, model: &mut [u8]) {
        let (at, length) = self.range();
        match *self {
            Action::Write { seed, .. } => model[at..at + length].copy_from_slice(&pattern(length, seed)),
            Action::Zero { .. } | Action::Trim { .. } => model[at..at + length].fill(0),
            Action::Read { .. } | Action::Flush | Action::Cache { .. } => {}
        }
    }
}

/// Groups of actions in flight together: no change overlaps another action of its group (I2 and the export see to that
/// for changes, and what a read beside a change sees is anybody's guess).
fn groups(actions: Vec<Action>) -> Vec<Vec<Action>> {
    let mut groups: Vec<Vec<Action>> = vec![Vec::new()];
    for action in actions {
        let clash = |other: &Action| action.meets(other) && (action.is_change() || other.is_change());
        match groups.last_mut() {
            Some(group) if group.len() < 24 && !group.iter().any(clash) => group.push(action),
            _ => groups.push(vec![action]),
        }
    }
    groups
}

fn check(mut bench: Bench, actions: Vec<Action>) {
    let mut model = vec![0; SIZE];
    for group in groups(actions) {
        let mut done = Vec::new();
        for (id, action) in group.iter().enumerate() {
            let request = action.request(&bench);
            done.extend(bench.start(id as u64, request));
        }
        done.extend(bench.collect(group.len() - done.len()));
        group.iter().for_each(|action| action.apply(&mut model));
        for ImageDone { id, result, buffer } in done {
            result.unwrap();
            if let Action::Read { at, length } = group[id as usize] {
                assert!(
                    buffer.unwrap().as_slice() == &model[at..at + length],
                    "read at {at} differs"
                );
            }
        }
        assert_eq!(bench.image.in_flight(), 0);
    }
    assert!(bench.read(0, SIZE) == model, "the image differs");
    if bench.path.is_some() {
        assert!(bench.plain() == model, "the file differs");
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(action(), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buffered_on_the_ring(actions in actions()) {
        check(Bench::with_engine(SIZE as u64, IoMode::Buffered, EngineChoice::Uring), actions);
    }

    #[test]
    fn buffered_by_threads(actions in actions()) {
        check(Bench::with_engine(SIZE as u64, IoMode::Buffered, EngineChoice::Threads), actions);
    }

    #[test]
    fn buffered_and_never_inline(actions in actions(), threads in any::<bool>()) {
        let engine = if threads { EngineChoice::Threads } else { EngineChoice::Uring };
        check(Bench::with_engine(SIZE as u64, IoMode::Buffered, engine).never_inline(engine), actions);
    }

    #[test]
    fn direct_on_the_ring(actions in actions()) {
        check(Bench::with_engine(SIZE as u64, IoMode::Direct, EngineChoice::Uring), actions);
    }

    #[test]
    fn direct_by_threads(actions in actions()) {
        check(Bench::with_engine(SIZE as u64, IoMode::Direct, EngineChoice::Threads), actions);
    }

    #[test]
    fn memory(actions in actions()) {
        check(Bench::in_memory(SIZE as u64, EngineChoice::Uring), actions);
    }

    #[test]
    fn disturbed(
        actions in actions(),
        direct in any::<bool>(),
        reads in prop::collection::vec(disturbance(), 0..60),
        writes in prop::collection::vec(disturbance(), 0..60),
    ) {
        let io = if direct { IoMode::Direct } else { IoMode::Buffered };
        let bench = Bench::new(SIZE as u64, io);
        bench.plan.add(OpKind::Read, reads);
        bench.plan.add(OpKind::Write, writes);
        bench.plan.add(OpKind::Sync, [Fault::EINTR, Fault::EAGAIN]);
        bench.plan.add(OpKind::Allocate, [Fault::EINTR, Fault::EOPNOTSUPP, Fault::EAGAIN]);
        check(bench, actions);
    }
}

/// What may happen to a transfer without harm. (Direct I/O moves whole blocks of at most 4 KiB.)
fn disturbance() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Pass),
        (1usize..20).prop_map(|blocks| Fault::Short(blocks * 4096)),
        Just(Fault::EINTR),
        Just(Fault::EAGAIN),
        Just(Fault::LateError(nix::libc::EINTR)),
    ]
}
