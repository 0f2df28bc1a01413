//! Images that get another size.

use std::os::unix::fs::MetadataExt;

use super::*;

fn open(path: &Path, size: u64, io: IoMode, preallocate: bool) -> Image {
    let options = ImageOptions {
        preallocate,
        ..options(path, size, io)
    };
    Image::open(&options).unwrap()
}

#[test]
fn a_file_becomes_larger_and_never_smaller() {
    let directory = directory();
    let path = directory.path().join("image");
    let mut image = open(&path, 64 * KIB, IoMode::Buffered, false);
    std::fs::write(&path, [1; 64 * 1024]).unwrap();
    image.grow(64 * KIB).unwrap();
    image.grow(100 * KIB).unwrap();
    image.grow(10 * KIB).unwrap();
    assert_eq!(image.size(), 100 * KIB);
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes[..64 * 1024].iter().all(|&byte| byte == 1));
    assert!(bytes[64 * 1024..] == [0; 36 * 1024]);
    // Larger already: an attempt that came to nothing elsewhere.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(300 * KIB)
        .unwrap();
    image.grow(200 * KIB).unwrap();
    assert_eq!((image.size(), bytes_of(&path)), (200 * KIB, 300 * KIB));
}

#[test]
fn a_preallocated_file_has_its_room_before_it_is_larger() {
    let directory = directory();
    let path = directory.path().join("image");
    let mut image = open(&path, 64 * KIB, IoMode::Buffered, true);
    image.grow(4096 * KIB).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 4096 * KIB);
    let refused = image.grow(1 << 60);
    assert!(refused.is_err(), "no file system has room for that");
    assert_eq!(image.size(), 4096 * KIB, "and the volume is as large as it was");
}

#[test]
fn direct_images_grow_by_whole_blocks() {
    let directory = directory();
    let path = directory.path().join("image");
    let mut image = open(&path, 64 * KIB, IoMode::Direct, false);
    let error = image.grow(64 * KIB + 1).unwrap_err().to_string();
    assert!(error.contains("no multiple"), "{error}");
    assert_eq!((image.size(), bytes_of(&path)), (64 * KIB, 64 * KIB));
    image.grow(128 * KIB).unwrap();
    assert_eq!(image.size(), 128 * KIB);
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn what_is_cut_off_was_a_hole() {
    let directory = directory();
    let path = directory.path().join("image");
    let mut image = open(&path, 1024 * KIB, IoMode::Buffered, false);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[1; 100], 512 * KIB)
        .unwrap();
    assert!(!image.is_unused_from(512 * KIB) && !image.is_unused_from(0));
    assert!(image.is_unused_from(516 * KIB));
    assert!(!image.is_unused_from(1024 * KIB), "that is not smaller");
    image.cut(516 * KIB).unwrap();
    assert_eq!((image.size(), bytes_of(&path)), (516 * KIB, 516 * KIB));
    image.grow(1024 * KIB).unwrap();
    assert!(image.is_unused_from(516 * KIB));
}
