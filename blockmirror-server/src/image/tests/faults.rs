//! Each error number, at each place it can come from.

use nix::libc;

use super::*;

fn bench() -> Bench {
    Bench::new(256 * KIB, IoMode::Buffered)
}

fn durable(bench: &Bench, bytes: &[u8]) -> ImageRequest {
    ImageRequest::Write {
        payload: bench.payload(bytes),
        offset: 0,
        durable: true,
    }
}

#[test]
fn interruptions_and_short_transfers_do_not_show() {
    for io in [IoMode::Buffered, IoMode::Direct] {
        let mut bench = Bench::new(256 * KIB, io);
        let faults = [
            Fault::EINTR,
            Fault::Short(4096),
            Fault::EAGAIN,
            Fault::Short(8192),
            Fault::LateError(libc::EINTR),
        ];
        bench.plan.add(OpKind::Write, faults);
        bench.plan.add(OpKind::Read, faults);
        let bytes = pattern(100_000, 7);
        assert_eq!(bench.result(bench.write(4096, &bytes)), Ok(()));
        assert!(bench.read(4096, 100_000) == bytes, "{io:?}");
        assert_eq!(bench.plan.left(), 0);
    }
}

#[test]
fn a_transfer_of_single_bytes_gets_there_too() {
    let mut bench = bench();
    bench.plan.add(OpKind::Write, [Fault::Short(1); 50]);
    bench.plan.add(OpKind::Read, [Fault::Short(1); 50]);
    assert_eq!(bench.result(bench.write(3, &pattern(60, 1))), Ok(()));
    assert_eq!(bench.read(3, 60), pattern(60, 1));
    assert_eq!(bench.plan.left(), 0);
}

#[test]
fn an_interruption_that_never_ends_is_an_error() {
    let mut bench = bench();
    bench.plan.add(OpKind::Write, [Fault::EAGAIN; 200]);
    assert!(matches!(
        bench.result(bench.write(5, b"x")),
        Err(ImageError::Io {
            operation: "write",
            offset: 5,
            ..
        })
    ));
    assert!(bench.plan.left() > 0, "it was given up");
}

#[test]
fn reading_fails_with_eio_and_gives_the_buffer_back() {
    let mut bench = bench();
    bench.plan.add(OpKind::Read, [Fault::Short(100), Fault::EIO]);
    let buffer = bench.buffer(1000);
    let done = bench.run(ImageRequest::Read { buffer, offset: 50 });
    assert!(
        matches!(
            done.result,
            Err(ImageError::Io {
                operation: "read",
                offset: 150,
                ..
            })
        ),
        "{:?}",
        done.result
    );
    assert_eq!(done.buffer.unwrap().len(), 1000);
    assert_eq!(bench.read(50, 1000), [0; 1000]);
}

#[test]
fn writing_fails_with_eio_and_enospc() {
    for io in [IoMode::Buffered, IoMode::Direct] {
        let mut bench = Bench::new(256 * KIB, io);
        bench.plan.add(
            OpKind::Write,
            [Fault::EIO, Fault::ENOSPC, Fault::LateError(libc::ENOSPC)],
        );
        let at_fault = if io == IoMode::Direct { 0 } else { 7 };
        match bench.result(bench.write(7, b"x")) {
            Err(ImageError::Io {
                operation: "write",
                offset,
                ..
            }) => assert_eq!(offset, at_fault),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.result(bench.write(7, b"x")), Err(ImageError::NoSpace));
        assert_eq!(bench.result(bench.write(7, b"x")), Err(ImageError::NoSpace));
        assert_eq!(bench.result(bench.write(7, b"x")), Ok(()));
        assert_eq!(bench.read(7, 1), b"x");
        assert!(bench.image.failure().is_none());
    }
}

#[test]
fn a_failed_flush_is_final() {
    for error in [libc::EIO, libc::ENOSPC] {
        let mut bench = bench();
        bench.plan.add(OpKind::Sync, [Fault::EINTR, Fault::Error(error)]);
        let failed = bench.result(ImageRequest::Flush).unwrap_err();
        assert!(matches!(failed, ImageError::FlushFailed { .. }), "{failed}");
        // The kernel would say yes now: it reports an error once. The image does not ask it.
        let syncs = bench.plan.seen(OpKind::Sync);
        assert_eq!(bench.result(ImageRequest::Flush), Err(failed.clone()));
        assert_eq!(bench.result(durable(&bench, b"x")), Err(failed.clone()));
        let zero = ImageRequest::Zero {
            offset: 0,
            length: 5,
            no_hole: false,
            durable: true,
        };
        assert_eq!(bench.result(zero), Err(failed.clone()));
        assert_eq!(bench.plan.seen(OpKind::Sync), syncs);
        assert_eq!(bench.image.failure(), Some(&failed));
        assert_eq!(bench.read(0, 2), b"\0\0");
    }
}

#[test]
fn a_durable_write_tells_a_failed_write_from_a_failed_flush() {
    // The write itself fails, with and without durability.
    let mut bench = Bench::new(256 * KIB, IoMode::Buffered);
    bench.plan.add(OpKind::Write, [Fault::ENOSPC, Fault::ENOSPC]);
    assert_eq!(bench.result(durable(&bench, b"abc")), Err(ImageError::NoSpace));
    assert!(bench.image.failure().is_none());

    // Without durability it goes through: it was the flush.
    bench.plan.add(OpKind::Write, [Fault::EIO]);
    let failed = bench.result(durable(&bench, b"abc")).unwrap_err();
    assert!(matches!(failed, ImageError::FlushFailed { .. }), "{failed}");
    assert_eq!(bench.image.failure(), Some(&failed));
}

#[test]
fn durability_without_kernel_support_is_a_write_and_a_flush() {
    let mut bench = bench();
    bench.plan.add(OpKind::Write, [Fault::EOPNOTSUPP]);
    assert_eq!(bench.result(durable(&bench, b"abc")), Ok(()));
    assert_eq!((bench.plan.seen(OpKind::Write), bench.plan.seen(OpKind::Sync)), (2, 1));
    // It is learned.
    assert_eq!(bench.result(durable(&bench, b"def")), Ok(()));
    assert_eq!((bench.plan.seen(OpKind::Write), bench.plan.seen(OpKind::Sync)), (3, 2));
    // And its flush is as final as any.
    bench.plan.add(OpKind::Sync, [Fault::EIO]);
    assert!(matches!(
        bench.result(durable(&bench, b"ghi")),
        Err(ImageError::FlushFailed { .. })
    ));
}

#[test]
fn durable_writes_are_durable_writes() {
    let mut bench = bench();
    assert_eq!(bench.result(durable(&bench, b"abc")), Ok(()));
    assert_eq!((bench.plan.seen(OpKind::Write), bench.plan.seen(OpKind::Sync)), (1, 0));
    assert_eq!(bench.read(0, 3), b"abc");
}

#[test]
fn zeroing_fails_with_eio_and_enospc() {
    let mut bench = bench();
    bench
        .plan
        .add(OpKind::Allocate, [Fault::EINTR, Fault::EIO, Fault::ENOSPC]);
    assert!(matches!(
        bench.result(zero(0, 5000)),
        Err(ImageError::Io {
            operation: "zero",
            offset: 0,
            ..
        })
    ));
    assert_eq!(bench.result(trim(0, 5000)), Err(ImageError::NoSpace));
    assert_eq!(bench.result(trim(0, 5000)), Ok(()));
}

#[test]
fn a_truncated_image_is_an_error_and_no_garbage() {
    for io in [IoMode::Buffered, IoMode::Direct] {
        let mut bench = Bench::new(64 * KIB, io);
        assert_eq!(bench.result(bench.write(0, &pattern(65_536, 1))), Ok(()));
        File::options()
            .write(true)
            .open(bench.path.as_ref().unwrap())
            .unwrap()
            .set_len(10_000)
            .unwrap();
        assert!(bench.read(0, 8192) == pattern(65_536, 1)[..8192]);
        for (offset, length) in [(8192, 8192), (40_960, 4096), (20_000, 10)] {
            let buffer = bench.buffer(length);
            let done = bench.run(ImageRequest::Read { buffer, offset });
            assert!(
                matches!(done.result, Err(ImageError::Truncated { .. })),
                "{io:?} {offset}: {:?}",
                done.result
            );
        }
    }
}

#[test]
fn prefetching_is_advice() {
    let mut bench = bench();
    bench.plan.add(OpKind::Prefetch, [Fault::EIO]);
    assert_eq!(bench.result(ImageRequest::Cache { offset: 0, length: 5 }), Ok(()));
}
