use super::*;

const PIECE: u64 = 64 * KIB;

#[test]
fn data_in_memory_is_sent_where_it_lies_and_zeroes_are_not() {
    let image = Image::open(&ImageOptions {
        place: ImagePlace::Memory,
        ..options(Path::new("unused"), 16 * PIECE, IoMode::Buffered)
    })
    .unwrap();
    let write = |at: u64, bytes: &[u8]| rustix::io::pwrite(&image.leg.file, bytes, at).unwrap();
    write(0, &vec![7; 4 * PIECE as usize]);
    let range = image.send_range(PIECE, 2 * PIECE, Some(PIECE)).unwrap();
    assert_eq!((range.offset, range.length as u64), (PIECE, 2 * PIECE));
    assert!(
        image.send_range(3 * PIECE, 2 * PIECE, Some(PIECE)).is_none(),
        "a hole in it"
    );
    assert!(
        image.send_range(3 * PIECE, 2 * PIECE, None).is_some(),
        "nobody asked for holes"
    );
    write(PIECE, &[0; 64]);
    assert!(
        image.send_range(0, 2 * PIECE, Some(PIECE)).is_none(),
        "it may be a hole"
    );
    assert!(
        image.send_range(PIECE + 64, PIECE, Some(PIECE)).is_some(),
        "pieces count from the first byte"
    );
    assert!(
        image.send_range(15 * PIECE, 2 * PIECE, None).is_none(),
        "beyond the end"
    );
    assert!(image.send_range(u64::MAX, 2, None).is_none());
    assert!(image.send_range(0, 0, None).is_none());
    rustix::fs::ftruncate(&image.leg.file, 4 * PIECE - 1).unwrap();
    assert!(
        image.send_range(2 * PIECE, 2 * PIECE, None).is_none(),
        "it has been truncated"
    );
    assert!(image.send_range(2 * PIECE, 2 * PIECE - 1, None).is_some());
}

#[test]
fn what_a_disk_has_not_brought_yet_is_not_sent() {
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    std::fs::write(path.path(), vec![7; 16 * PIECE as usize]).unwrap();
    let image = Image::open(&options(path.path(), 16 * PIECE, IoMode::Buffered)).unwrap();
    if image.leg.file.is_memory_backed() {
        return;
    }
    assert!(
        image.send_range(10, 10 * PIECE, Some(PIECE)).is_some(),
        "it has just been written"
    );
    rustix::fs::fsync(&image.leg.file).unwrap();
    rustix::fs::fadvise(&image.leg.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(image.send_range(10, 10 * PIECE, Some(PIECE)).is_none());
    // What is on its way is in the page cache, too.
    for at in (0..16).map(|at| at * PIECE) {
        let length = std::num::NonZeroU64::new(PIECE);
        rustix::fs::fadvise(&image.leg.file, at, length, rustix::fs::Advice::WillNeed).unwrap();
        if image.send_range(at, PIECE, Some(PIECE)).is_some() {
            let mut bytes = vec![0; PIECE as usize];
            let into = &mut [std::io::IoSliceMut::new(&mut bytes)];
            let read = rustix::io::preadv2(&image.leg.file, into, at, rustix::io::ReadWriteFlags::NOWAIT);
            assert_eq!(read, Ok(PIECE as usize), "at {at} the disk would be waited for");
        }
    }
}

#[test]
fn past_the_page_cache_nothing_is_sent_from_it() {
    let directory = directory();
    let path = directory.path().join("image");
    let image = Image::open(&options(&path, 1 << 20, IoMode::Direct)).unwrap();
    assert!(image.send_range(0, 1 << 16, None).is_none());
}
