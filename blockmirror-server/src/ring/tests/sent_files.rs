//! Ranges of files among what is sent.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use super::*;

/// A file in memory or on a disk that holds `bytes`.
fn sent_file(bytes: &[u8], in_memory: bool) -> FileHandle {
    let mut file = if in_memory {
        File::from(rustix::fs::memfd_create("sent", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    } else {
        tempfile::tempfile().unwrap()
    };
    file.write_all(bytes).unwrap();
    FileHandle::new(file).unwrap()
}

fn range(file: &FileHandle, offset: u64, length: usize) -> Segment {
    Segment::File(FileRange {
        file: file.clone(),
        offset,
        length,
    })
}

/// Sends all of it from byte `skip` on, as an outbox does.
fn send_all(driver: &mut dyn Driver, socket: Socket, segments: Vec<Segment>, skip: usize) -> io::Result<()> {
    let total: usize = segments.iter().map(Segment::len).sum();
    let mut op = Op::Send { socket, segments, skip };
    loop {
        let completion = execute(driver, 5, op);
        op = completion.op;
        let Op::Send { skip, .. } = &mut op else {
            panic!("{op:?}")
        };
        *skip += completion.result?;
        if *skip == total {
            return Ok(());
        }
    }
}

#[test]
fn ranges_of_files_go_out_in_their_place() {
    with_each_engine(|mut driver| {
        assert!(driver.sends_files());
        for (in_memory, skip) in [(true, 0), (false, 0), (true, 3), (true, 4321)] {
            let bytes = pattern(3 << 20, 7);
            let file = sent_file(&bytes, in_memory);
            let (socket, mut other) = socket_pair();
            let segments = vec![
                Segment::copy_of(b"head"),
                range(&file, 1000, 2 << 20),
                Segment::Bytes(b"middle".to_vec()),
                range(&file, 0, 0),
                range(&file, 5, 1 << 20),
                Segment::copy_of(b"end"),
            ];
            let wanted = [
                b"head",
                &bytes[1000..1000 + (2 << 20)],
                b"middle",
                &bytes[5..5 + (1 << 20)],
                b"end",
            ]
            .concat();
            // What it does not take yet has to wait: it is slow.
            let reader = thread::spawn(move || {
                let (mut received, mut piece) = (Vec::new(), [0; 70_001]);
                loop {
                    match other.read(&mut piece).unwrap() {
                        0 => return received,
                        count => received.extend_from_slice(&piece[..count]),
                    }
                    thread::sleep(Duration::from_micros(300));
                }
            });
            send_all(&mut *driver, socket, segments, skip).unwrap();
            assert!(reader.join().unwrap() == wanted[skip..]);
        }
    });
}

#[test]
fn a_file_that_ends_too_early_is_an_error() {
    with_each_engine(|mut driver| {
        let file = sent_file(&pattern(5000, 1), true);
        let (socket, mut other) = socket_pair();
        let segments = vec![Segment::copy_of(b"head"), range(&file, 1000, 5000)];
        let result = send_all(&mut *driver, socket, segments, 0);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
        let mut received = Vec::new();
        other.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 4 + 4000);
    });
}

#[test]
fn a_receiver_that_is_gone_is_an_error() {
    with_each_engine(|mut driver| {
        let file = sent_file(&pattern(1 << 20, 1), true);
        let (socket, other) = socket_pair();
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(other);
        });
        let result = send_all(&mut *driver, socket, vec![range(&file, 0, 1 << 20)], 0);
        assert!(result.is_err());
        reader.join().unwrap();
    });
}

#[test]
fn nothing_is_sent_from_a_disk_that_is_not_in_the_page_cache() {
    let bytes = pattern(1 << 20, 3);
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    std::fs::write(path.path(), &bytes).unwrap();
    let file = File::open(path.path()).unwrap();
    file.sync_all().unwrap();
    let handle = FileHandle::new(file.try_clone().unwrap()).unwrap();
    if handle.is_memory_backed() {
        return;
    }
    assert!(handle.sends_at_once(100, 500_000), "it has just been written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(!handle.sends_at_once(100, 500_000), "it has been dropped");
    assert!(!handle.sends_at_once(0, 0));
}
