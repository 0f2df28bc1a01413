use std::os::unix::fs::FileExt;

use rustix::fs::MemfdFlags;

use super::*;

fn read(file: &FileHandle, buffer: Buffer, filled: usize, offset: u64) -> Op {
    Op::Read {
        file: file.clone(),
        buffer,
        filled,
        offset,
    }
}

/// The bytes of a read that moved `count`.
fn bytes_of(completion: Completion, count: usize) -> Vec<u8> {
    assert_eq!(completion.result.unwrap(), count);
    let Op::Read { buffer, filled, .. } = completion.op else {
        panic!("another operation came back")
    };
    buffer.as_slice()[filled..filled + count].to_vec()
}

#[test]
fn reads_what_is_there_and_no_more() {
    with_each_way(|mut driver| {
        let (file, _) = file_of(&pattern(10_000, 2));
        let buffer = driver.pool().take(5000);
        let completion = execute(&mut *driver, 1, read(&file, buffer, 1000, 3000));
        assert_eq!(bytes_of(completion, 4000), &pattern(10_000, 2)[3000..7000]);
        let buffer = driver.pool().take(5000);
        let completion = execute(&mut *driver, 2, read(&file, buffer, 0, 9000));
        assert_eq!(bytes_of(completion, 1000), &pattern(10_000, 2)[9000..]);
        let buffer = driver.pool().take(5000);
        let completion = execute(&mut *driver, 3, read(&file, buffer, 0, 20_000));
        assert_eq!(bytes_of(completion, 0), b"");
    });
}

#[test]
fn reads_that_are_not_in_the_page_cache_arrive() {
    with_each_way(|mut driver| {
        let (file, plain) = file_of(&pattern(1 << 20, 5));
        plain.sync_all().unwrap();
        rustix::fs::fadvise(&plain, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut seen = 0;
        while seen < 1 << 20 {
            let buffer = driver.pool().take(100_000.min((1 << 20) - seen));
            let completion = execute(&mut *driver, 7, read(&file, buffer, 0, seen as u64));
            let count = *completion.result.as_ref().unwrap();
            assert_eq!(bytes_of(completion, count), &pattern(1 << 20, 5)[seen..seen + count]);
            seen += count;
        }
    });
}

#[test]
fn writes_small_large_and_durable_ones() {
    with_each_way(|mut driver| {
        let (file, plain) = file_of(&[]);
        for (length, offset, durable) in [(10, 3, false), (3 << 20, 1000, false), (4096, 77, true)] {
            let payload = driver.pool().payload_of(&pattern(length, 9));
            let op = Op::Write {
                file: file.clone(),
                payload,
                offset,
                durable,
            };
            assert_eq!(execute(&mut *driver, 1, op).result.unwrap(), length);
            let mut found = vec![0; length];
            plain.read_exact_at(&mut found, offset).unwrap();
            assert!(found == pattern(length, 9), "{length} bytes at {offset} differ");
            let sync = Op::Sync { file: file.clone() };
            assert_eq!(execute(&mut *driver, 2, sync).result.unwrap(), 0);
        }
    });
}

#[test]
fn punches_holes_and_prefetches() {
    with_each_way(|mut driver| {
        let (file, plain) = file_of(&pattern(65_536, 9));
        let op = Op::Allocate {
            file: file.clone(),
            mode: AllocateMode::PunchHole,
            offset: 100,
            length: 60_000,
        };
        assert_eq!(execute(&mut *driver, 1, op).result.unwrap(), 0);
        let mut found = vec![1; 65_536];
        plain.read_exact_at(&mut found, 0).unwrap();
        let mut wanted = pattern(65_536, 9);
        wanted[100..60_100].fill(0);
        assert!(found == wanted);
        let op = Op::Prefetch {
            file,
            offset: 0,
            length: 65_536,
        };
        assert_eq!(execute(&mut *driver, 1, op).result.unwrap(), 0);
    });
}

#[test]
fn a_device_is_not_memory_though_its_node_lies_there() {
    let device = File::open("/dev/null").unwrap();
    assert!(!FileHandle::new(device).unwrap().is_memory_backed());
}

#[test]
fn files_in_memory_are_served_within_submit() {
    with_each_engine(|mut driver| {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let file = FileHandle::new(fd).unwrap();
        assert!(file.is_memory_backed());
        let payload = driver.pool().payload_of(b"hello");
        let write = Op::Write {
            file: file.clone(),
            payload,
            offset: 0,
            durable: true,
        };
        assert_eq!(driver.submit(1, write).unwrap().result.unwrap(), 5);
        let sync = Op::Sync { file: file.clone() };
        assert_eq!(driver.submit(2, sync).unwrap().result.unwrap(), 0);
        let buffer = driver.pool().take(5);
        assert_eq!(
            bytes_of(driver.submit(3, read(&file, buffer, 0, 0)).unwrap(), 5),
            b"hello"
        );
        assert_eq!(driver.in_flight(), 0);
    });
}

#[test]
fn one_turn_copies_a_bounded_amount_and_the_rest_by_workers() {
    with_each_engine(|mut driver| {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let file = FileHandle::new(fd).unwrap();
        let payload = driver.pool().take_zeroed(300 << 10).into_payload();
        let mut inline = 0;
        for token in 0..8 {
            let offset = token * (300 << 10);
            let write = Op::Write {
                file: file.clone(),
                payload: payload.clone(),
                offset,
                durable: false,
            };
            inline += usize::from(driver.submit(token, write).is_some());
        }
        assert!((1..8).contains(&inline), "{inline} of 8 inline");
        for completion in collect(&mut *driver, 8 - inline) {
            assert_eq!(completion.result.unwrap(), 300 << 10);
        }
    });
}

#[test]
fn errors_give_the_operation_back() {
    with_each_way(|mut driver| {
        let path = tempfile::NamedTempFile::new().unwrap();
        let read_only = FileHandle::new(File::open(path.path()).unwrap()).unwrap();
        let payload = driver.pool().payload_of(b"kept");
        let write = Op::Write {
            file: read_only,
            payload,
            offset: 0,
            durable: false,
        };
        let completion = execute(&mut *driver, 1, write);
        assert_eq!(completion.result.unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
        let Op::Write { payload, .. } = completion.op else {
            panic!("another operation came back")
        };
        assert_eq!(payload.as_slice(), b"kept");
    });
}

#[test]
fn more_operations_than_the_queues_hold() {
    with_each_way(|mut driver| {
        let (file, plain) = file_of(&[]);
        for number in 0..600u64 {
            let payload = driver.pool().payload_of(&number.to_le_bytes());
            let op = Op::Write {
                file: file.clone(),
                payload,
                offset: number * 8,
                durable: true,
            };
            assert!(driver.submit(number, op).is_none());
        }
        assert_eq!(driver.in_flight(), 600);
        let mut tokens: Vec<_> = collect(&mut *driver, 600)
            .into_iter()
            .inspect(|completion| assert_eq!(*completion.result.as_ref().unwrap(), 8))
            .map(|completion| completion.token)
            .collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..600));
        let mut found = vec![0; 4800];
        plain.read_exact_at(&mut found, 0).unwrap();
        assert!(
            found
                .chunks(8)
                .enumerate()
                .all(|(number, bytes)| bytes == (number as u64).to_le_bytes())
        );
    });
}

#[test]
fn more_completions_than_the_queue_holds() {
    let (file, _) = file_of(&[7; 100]);
    let mut driver = open_driver_with(EngineChoice::Uring, InlinePolicy::Never).unwrap();
    const COUNT: usize = 20_000;
    for token in 0..COUNT as u64 {
        let read = Op::Read {
            file: file.clone(),
            buffer: driver.pool().take(1),
            filled: 0,
            offset: token % 100,
        };
        assert!(driver.submit(token, read).is_none());
    }
    let mut seen = vec![false; COUNT];
    for completion in collect(&mut *driver, COUNT) {
        assert_eq!(completion.result.unwrap(), 1);
        assert!(!std::mem::replace(&mut seen[completion.token as usize], true));
    }
    assert_eq!(driver.in_flight(), 0);
}
