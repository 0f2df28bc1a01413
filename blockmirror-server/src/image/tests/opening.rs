//! Creating, sizes, locks, and what is refused.

use std::os::unix::fs::MetadataExt;

use super::*;

fn refusal(options: &ImageOptions) -> String {
    Image::open(options)
        .map(|image| image.describe())
        .expect_err("it is to be refused")
        .to_string()
}

#[test]
fn a_missing_image_is_created_sparse_or_allocated() {
    let directory = directory();
    let sparse = options(&directory.path().join("sparse"), 1 << 40, IoMode::Buffered);
    let image = Image::open(&sparse).unwrap();
    assert!(image.was_created());
    assert_eq!(image.size(), 1 << 40);
    let metadata = std::fs::metadata(directory.path().join("sparse")).unwrap();
    assert_eq!(metadata.len(), 1 << 40);
    assert!(metadata.blocks() < 100);
    assert_eq!(metadata.mode() & 0o777, 0o600);

    let path = directory.path().join("full");
    let full = ImageOptions {
        preallocate: true,
        ..options(&path, 1 << 20, IoMode::Buffered)
    };
    Image::open(&full).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        names.iter().all(|name| !name.to_string_lossy().contains("creating")),
        "{names:?}"
    );
}

#[test]
fn what_a_crash_left_of_creating_is_used_again() {
    let directory = directory();
    std::fs::write(directory.path().join(".image.creating"), [7; 9000]).unwrap();
    let image = Image::open(&options(&directory.path().join("image"), 8192, IoMode::Buffered)).unwrap();
    assert_eq!(image.size(), 8192);
    assert_eq!(std::fs::read(directory.path().join("image")).unwrap(), [0; 8192]);
}

#[test]
fn an_existing_image_keeps_its_content_and_has_the_size_it_has() {
    let directory = directory();
    let path = directory.path().join("image");
    std::fs::write(&path, pattern(5000, 1)).unwrap();
    let image = Image::open(&ImageOptions {
        size: None,
        ..options(&path, 0, IoMode::Buffered)
    })
    .unwrap();
    assert_eq!(image.size(), 5000);
    assert!(!image.was_created());
    assert_eq!(std::fs::read(&path).unwrap(), pattern(5000, 1));
}

#[test]
fn sizes_that_do_not_fit_are_named_with_a_remedy() {
    let directory = directory();
    let path = directory.path().join("image");
    std::fs::write(&path, [0; 5000]).unwrap();
    let small = refusal(&options(&path, 6000, IoMode::Buffered));
    assert!(
        small.contains("has 5000 bytes") && small.contains("says 6000") && small.contains("truncate -s 6000"),
        "{small}"
    );
    let large = refusal(&options(&path, 4000, IoMode::Buffered));
    assert!(
        large.contains("has 5000 bytes") && large.contains("says 4000") && large.contains("to 5000"),
        "{large}"
    );
    let uneven = refusal(&ImageOptions {
        size: None,
        ..options(&path, 0, IoMode::Direct)
    });
    assert!(
        uneven.contains("5000 bytes") && uneven.contains("io = \"buffered\""),
        "{uneven}"
    );
    std::fs::write(&path, []).unwrap();
    let empty = refusal(&ImageOptions {
        size: None,
        ..options(&path, 0, IoMode::Buffered)
    });
    assert!(empty.contains("is empty"), "{empty}");
    let missing = directory.path().join("missing");
    let missing = refusal(&ImageOptions {
        size: None,
        ..options(&missing, 0, IoMode::Buffered)
    });
    assert!(
        missing.contains("does not exist") && missing.contains("`size`"),
        "{missing}"
    );
    let memory = ImageOptions {
        place: ImagePlace::Memory,
        size: None,
        ..options(&path, 0, IoMode::Buffered)
    };
    assert!(refusal(&memory).contains("needs a `size`"));
    let huge = refusal(&options(&directory.path().join("huge"), u64::MAX, IoMode::Buffered));
    assert!(huge.contains("more than an image can have"), "{huge}");
}

#[test]
fn too_large_to_allocate_leaves_nothing_behind() {
    let directory = directory();
    let path = directory.path().join("image");
    let wanted = ImageOptions {
        preallocate: true,
        ..options(&path, 1 << 43, IoMode::Buffered)
    };
    let text = refusal(&wanted);
    assert!(text.contains("does not fit"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn one_writer_or_many_readers() {
    let directory = directory();
    let path = directory.path().join("image");
    let writing = options(&path, 8192, IoMode::Buffered);
    let reading = ImageOptions {
        read_only: true,
        ..writing.clone()
    };
    let first = Image::open(&writing).unwrap();
    assert!(refusal(&writing).contains("in use"));
    assert!(refusal(&reading).contains("in use"));
    drop(first);
    let _one = Image::open(&reading).unwrap();
    let _two = Image::open(&reading).unwrap();
    assert!(refusal(&writing).contains("in use"));
}

#[test]
fn a_lock_that_is_given_up_in_time_is_waited_for() {
    let directory = directory();
    let options = options(&directory.path().join("image"), 8192, IoMode::Buffered);
    let first = Image::open(&options).unwrap();
    let second = std::thread::spawn(move || Image::open(&options).map(|image| image.size()));
    std::thread::sleep(Duration::from_millis(20));
    drop(first);
    assert_eq!(second.join().unwrap().unwrap(), 8192);
}

#[test]
fn an_image_can_be_handed_to_its_thread() {
    fn can_be_sent<T: Send>() {}
    can_be_sent::<Image>();
}

#[test]
fn only_files_and_block_devices_are_images() {
    let directory = directory();
    let text = refusal(&options(directory.path(), 8192, IoMode::Buffered));
    assert!(text.contains("is a directory"), "{text}");
    let text = refusal(&options(Path::new("/dev/null"), 8192, IoMode::Buffered));
    assert!(text.contains("is a character device"), "{text}");
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let text = refusal(&options(&pipe, 8192, IoMode::Buffered));
    assert!(text.contains("is a pipe"), "{text}");
    let text = refusal(&options(&directory.path().join("no/image"), 8192, IoMode::Buffered));
    assert!(text.contains("cannot open") && text.contains("No such file"), "{text}");
}

#[test]
fn a_read_only_image_refuses_changes_and_takes_the_rest() {
    let directory = directory();
    let path = directory.path().join("image");
    std::fs::write(&path, pattern(8192, 1)).unwrap();
    let reading = ImageOptions {
        read_only: true,
        ..options(&path, 8192, IoMode::Buffered)
    };
    let mut bench = Bench::open(&reading, EngineChoice::Uring, directory);
    assert_eq!(bench.result(bench.write(0, b"x")), Err(ImageError::ReadOnly));
    assert_eq!(bench.result(zero(0, 1)), Err(ImageError::ReadOnly));
    assert_eq!(bench.result(trim(0, 1)), Err(ImageError::ReadOnly));
    assert_eq!(bench.result(ImageRequest::Flush), Ok(()));
    assert_eq!(bench.read(0, 8192), pattern(8192, 1));
    assert!(bench.image.describe().read_only);
}

#[test]
fn requests_outside_the_image_are_refused() {
    let mut bench = Bench::new(8 * KIB, IoMode::Buffered);
    let buffer = bench.buffer(10);
    let done = bench.run(ImageRequest::Read {
        buffer,
        offset: 8 * KIB - 9,
    });
    assert_eq!(
        done.result,
        Err(ImageError::OutOfRange {
            offset: 8 * KIB - 9,
            length: 10,
            size: 8 * KIB
        })
    );
    assert!(done.buffer.is_some());
    assert!(matches!(
        bench.result(zero(u64::MAX, 2)),
        Err(ImageError::OutOfRange { .. })
    ));
    assert_eq!(bench.result(zero(8 * KIB, 0)), Ok(()));
}
