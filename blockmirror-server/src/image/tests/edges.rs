//! Direct I/O on parts of blocks.

use super::*;

/// Every request writes its own bytes of a block that all of them share: a lost update shows.
#[test]
fn writes_to_one_block_do_not_lose_each_other() {
    for engine in [EngineChoice::Uring, EngineChoice::Threads] {
        let mut bench = Bench::with_engine(64 * KIB, IoMode::Direct, engine);
        for round in 0..8u8 {
            let mut done = 0;
            for piece in 0..64 {
                let request = bench.write(4096 + piece * 64, &[round * 16 + 1 + (piece % 16) as u8; 64]);
                done += usize::from(bench.start(piece, request).is_some());
            }
            assert!(bench.image.in_flight() > 1, "they are to be in flight together");
            for done in bench.collect(64 - done) {
                done.result.unwrap();
            }
            let block = bench.read(4096, 4096);
            for (piece, bytes) in block.chunks(64).enumerate() {
                assert_eq!(bytes, [round * 16 + 1 + (piece % 16) as u8; 64], "piece {piece}");
            }
        }
    }
}

#[test]
fn zeroing_beside_writing_in_one_block() {
    let mut bench = Bench::new(64 * KIB, IoMode::Direct);
    assert_eq!(bench.result(bench.write(0, &pattern(65_536, 4))), Ok(()));
    let requests = [
        bench.write(0, &[9; 100]),
        zero(100, 20_000),
        bench.write(20_100, &[8; 50]),
        trim(20_150, 9),
    ];
    let count = requests.len();
    let done: Vec<_> = requests
        .into_iter()
        .filter_map(|request| bench.start(1, request))
        .collect();
    for done in bench.collect(count - done.len()) {
        done.result.unwrap();
    }
    let mut wanted = pattern(65_536, 4);
    wanted[..100].fill(9);
    wanted[100..20_100].fill(0);
    wanted[20_100..20_150].fill(8);
    wanted[20_150..20_159].fill(0);
    assert!(bench.plain() == wanted);
}

#[test]
fn a_failed_edge_lets_the_next_one_go_on() {
    let mut bench = Bench::new(64 * KIB, IoMode::Direct);
    bench.plan.add(OpKind::Read, [Fault::LateError(nix::libc::EIO)]);
    let first = bench.write(10, &[1; 10]);
    let second = bench.write(20, &[2; 10]);
    let third = bench.write(30, &[3; 10]);
    for (id, request) in [first, second, third].into_iter().enumerate() {
        assert!(bench.start(id as u64, request).is_none());
    }
    let mut done = bench.collect(3);
    done.sort_by_key(|done| done.id);
    assert!(matches!(
        done[0].result,
        Err(ImageError::Io {
            operation: "read",
            offset: 0,
            ..
        })
    ));
    assert_eq!(done[1].result, Ok(()));
    assert_eq!(done[2].result, Ok(()));
    assert_eq!(bench.read(0, 40), [[0; 10], [0; 10], [2; 10], [3; 10]].concat());
}

#[test]
fn the_last_bytes_of_the_image_are_reached_and_nothing_behind_them_is_made() {
    let mut bench = Bench::new(12 * KIB, IoMode::Direct);
    assert_eq!(bench.result(bench.write(12 * KIB - 3, b"end")), Ok(()));
    assert_eq!(bench.read(12 * KIB - 5, 5), b"\0\0end");
    assert_eq!(std::fs::metadata(bench.path.as_ref().unwrap()).unwrap().len(), 12 * KIB);
}
