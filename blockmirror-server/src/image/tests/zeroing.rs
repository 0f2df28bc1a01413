//! TRIM and WRITE_ZEROES: what is promised, by which means, and what a file that lacks them gets.

use std::os::unix::fs::MetadataExt;

use super::*;

const SIZE: u64 = 4 << 20;

fn filled(io: IoMode) -> Bench {
    let mut bench = Bench::new(SIZE, io);
    let request = bench.write(0, &pattern(SIZE as usize, 3));
    assert_eq!(bench.result(request), Ok(()));
    assert_eq!(bench.result(ImageRequest::Flush), Ok(()));
    bench
}

fn allocated(bench: &Bench) -> u64 {
    std::fs::metadata(bench.path.as_ref().unwrap()).unwrap().blocks() * 512
}

fn assert_zeroed(bench: &Bench, from: u64, to: u64) {
    let mut wanted = pattern(SIZE as usize, 3);
    wanted[from as usize..to as usize].fill(0);
    assert!(bench.plain() == wanted);
}

#[test]
fn trimming_and_zeroing_give_the_space_back() {
    for io in [IoMode::Buffered, IoMode::Direct] {
        for request in [trim(5000, 2 << 20), zero(5000, 2 << 20)] {
            let mut bench = filled(io);
            assert_eq!(bench.result(request), Ok(()));
            assert_zeroed(&bench, 5000, 5000 + (2 << 20));
            assert!(allocated(&bench) < SIZE - (1 << 20), "{}", allocated(&bench));
        }
    }
}

#[test]
fn no_hole_means_that_the_space_stays() {
    let mut bench = filled(IoMode::Buffered);
    let before = allocated(&bench);
    let request = ImageRequest::Zero {
        offset: 5000,
        length: 2 << 20,
        no_hole: true,
        durable: false,
    };
    assert_eq!(bench.result(request), Ok(()));
    assert_zeroed(&bench, 5000, 5000 + (2 << 20));
    assert_eq!(allocated(&bench), before);
}

#[test]
fn a_preallocated_image_stays_allocated() {
    let directory = directory();
    let wanted = ImageOptions {
        preallocate: true,
        ..options(&directory.path().join("image"), SIZE, IoMode::Buffered)
    };
    let mut bench = Bench::open(&wanted, EngineChoice::Uring, directory);
    let before = allocated(&bench);
    assert_eq!(bench.result(bench.write(0, &pattern(SIZE as usize, 3))), Ok(()));
    assert_eq!(bench.result(trim(4096, 2 << 20)), Ok(()));
    assert_zeroed(&bench, 4096, 4096 + (2 << 20));
    assert!(allocated(&bench) >= before);
}

#[test]
fn a_file_without_fallocate_is_written_with_zeroes() {
    for io in [IoMode::Buffered, IoMode::Direct] {
        let mut bench = filled(io);
        let writes = bench.plan.seen(OpKind::Write);
        bench.plan.add(OpKind::Allocate, [Fault::EOPNOTSUPP, Fault::EOPNOTSUPP]);
        assert_eq!(bench.result(trim(4000, 3 << 20)), Ok(()));
        assert_zeroed(&bench, 4000, 4000 + (3 << 20));
        assert!(bench.plan.seen(OpKind::Write) - writes >= 3);
        // Learned: nothing is asked for twice.
        let asked = bench.plan.seen(OpKind::Allocate);
        assert_eq!(bench.result(zero(0, 4000)), Ok(()));
        assert_eq!((bench.plan.left(), bench.plan.seen(OpKind::Allocate)), (0, asked));
        assert_zeroed(&bench, 0, 4000 + (3 << 20));
    }
}

#[test]
fn durable_zeroing_ends_with_a_flush() {
    let mut bench = filled(IoMode::Buffered);
    let syncs = bench.plan.seen(OpKind::Sync);
    for request in [
        ImageRequest::Zero {
            offset: 0,
            length: 4096,
            no_hole: false,
            durable: true,
        },
        ImageRequest::Trim {
            offset: 0,
            length: 4096,
            durable: true,
        },
    ] {
        assert_eq!(bench.result(request), Ok(()));
    }
    assert_eq!(bench.plan.seen(OpKind::Sync) - syncs, 2);
    bench.plan.add(OpKind::Sync, [Fault::EIO]);
    let request = ImageRequest::Zero {
        offset: 0,
        length: 4096,
        no_hole: false,
        durable: true,
    };
    assert!(matches!(bench.result(request), Err(ImageError::FlushFailed { .. })));
    assert!(bench.image.failure().is_some());
}

#[test]
fn four_gibibytes_go_in_pieces() {
    let mut bench = Bench::new(6 << 30, IoMode::Buffered);
    assert_eq!(bench.result(bench.write(5 << 30, b"behind")), Ok(()));
    assert_eq!(bench.result(bench.write((1 << 30) + 7, b"within")), Ok(()));
    assert_eq!(bench.result(zero(1 << 30, (4 << 30) - 512)), Ok(()));
    assert_eq!(bench.read((1 << 30) + 7, 6), [0; 6]);
    assert_eq!(bench.read(5 << 30, 6), b"behind");
    assert_eq!(bench.plan.seen(OpKind::Allocate), 32);
}

#[test]
fn memory_is_sparse_and_reads_as_zeroes_after_a_trim() {
    let mut bench = Bench::in_memory(1 << 40, EngineChoice::Uring);
    assert_eq!(bench.result(bench.write(1 << 39, &pattern(10_000, 1))), Ok(()));
    assert_eq!(bench.read(1 << 39, 10_000), pattern(10_000, 1));
    assert_eq!(
        bench.image.next_data(0),
        Extent {
            kind: ExtentKind::Hole,
            end: 1 << 39
        }
    );
    assert_eq!(bench.result(trim(1 << 39, 10_000)), Ok(()));
    assert_eq!(bench.read(1 << 39, 10_000), [0; 10_000]);
    let no_hole = ImageRequest::Zero {
        offset: 77,
        length: 3000,
        no_hole: true,
        durable: true,
    };
    assert_eq!(bench.result(no_hole), Ok(()));
    assert_eq!(bench.result(ImageRequest::Flush), Ok(()));
    assert_eq!(bench.image.describe().io, "memory");
}

#[test]
fn extents_tell_data_from_holes() {
    let mut bench = Bench::new(1 << 30, IoMode::Buffered);
    assert_eq!(
        bench.image.next_data(0),
        Extent {
            kind: ExtentKind::Hole,
            end: 1 << 30
        }
    );
    assert_eq!(bench.result(bench.write(64 << 20, &pattern(128 << 10, 1))), Ok(()));
    assert_eq!(
        bench.image.next_data(0),
        Extent {
            kind: ExtentKind::Hole,
            end: 64 << 20
        }
    );
    let data = bench.image.next_data(64 << 20);
    assert_eq!(
        data,
        Extent {
            kind: ExtentKind::Data,
            end: (64 << 20) + (128 << 10)
        }
    );
    assert_eq!(
        bench.image.next_data(data.end),
        Extent {
            kind: ExtentKind::Hole,
            end: 1 << 30
        }
    );
}
