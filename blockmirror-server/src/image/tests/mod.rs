#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cached;
mod edges;
mod faults;
mod grow;
mod model;
mod opening;
mod zeroing;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::layers::{Fault, FaultLayer, FaultPlan};
use crate::ring::{
    Buffer, Completion, Driver, EngineChoice, InlinePolicy, OpKind, Payload, open_driver, open_driver_with,
};

/// No test takes this long: an answer that is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(30);

const KIB: u64 = 1024;

/// An image with its driver.
struct Bench {
    image: Image,
    driver: Box<dyn Driver>,
    plan: FaultPlan,
    path: Option<PathBuf>,
    _directory: TempDir,
}

/// A directory whose file system takes direct I/O, as most do.
fn directory() -> TempDir {
    let candidates = [std::env::temp_dir(), std::env::current_dir().unwrap()];
    let works = |parent: &PathBuf| {
        let directory = tempfile::tempdir_in(parent).ok()?;
        let probe = directory.path().join("probe");
        Image::open(&options(&probe, 4096, IoMode::Direct)).ok()?;
        std::fs::remove_file(probe).ok()?;
        Some(directory)
    };
    candidates
        .iter()
        .find_map(works)
        .expect("neither temporary nor current directory takes direct I/O")
}

fn options(path: &Path, size: u64, io: IoMode) -> ImageOptions {
    let place = ImagePlace::Path(path.to_owned());
    ImageOptions {
        place,
        size: Some(size),
        io,
        read_only: false,
        preallocate: false,
    }
}

impl Bench {
    fn new(size: u64, io: IoMode) -> Self {
        Self::with_engine(size, io, EngineChoice::Uring)
    }

    fn with_engine(size: u64, io: IoMode, engine: EngineChoice) -> Self {
        let directory = directory();
        let path = directory.path().join("image");
        Self::open(&options(&path, size, io), engine, directory)
    }

    /// Nothing is finished within `submit`.
    fn never_inline(mut self, engine: EngineChoice) -> Self {
        let driver = open_driver_with(engine, InlinePolicy::Never).unwrap();
        self.driver = Box::new(FaultLayer::new(driver, self.plan.clone()));
        self
    }

    fn in_memory(size: u64, engine: EngineChoice) -> Self {
        let directory = directory();
        let memory = ImageOptions {
            place: ImagePlace::Memory,
            ..options(directory.path(), size, IoMode::Buffered)
        };
        Self::open(&memory, engine, directory)
    }

    fn open(options: &ImageOptions, engine: EngineChoice, directory: TempDir) -> Self {
        let plan = FaultPlan::new();
        let driver = Box::new(FaultLayer::new(open_driver(engine).unwrap(), plan.clone()));
        let mut image = Image::open(options).unwrap();
        image.set_token_base(0x0701_0003_ffff_ffff);
        let path = match &options.place {
            ImagePlace::Path(path) => Some(path.clone()),
            ImagePlace::Memory => None,
        };
        Self {
            image,
            driver,
            plan,
            path,
            _directory: directory,
        }
    }

    /// Submits, without waiting.
    fn start(&mut self, id: u64, request: ImageRequest) -> Option<ImageDone> {
        self.image.submit(&mut *self.driver, id, request)
    }

    /// Waits until `count` answers are there.
    fn collect(&mut self, count: usize) -> Vec<ImageDone> {
        let deadline = Instant::now() + PATIENCE;
        let (mut done, mut completions) = (Vec::new(), Vec::<Completion>::new());
        while done.len() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} answers, then none",
                done.len()
            );
            self.driver
                .wait(Some(Duration::from_millis(500)), &mut completions)
                .unwrap();
            for completion in completions.drain(..) {
                assert_eq!(completion.token >> 32, 0x0701_0003);
                self.image.complete(&mut *self.driver, completion, &mut done);
            }
        }
        assert_eq!(done.len(), count);
        done
    }

    fn run(&mut self, request: ImageRequest) -> ImageDone {
        let done = match self.start(4711, request) {
            Some(done) => done,
            None => self.collect(1).remove(0),
        };
        assert_eq!(done.id, 4711);
        done
    }

    fn result(&mut self, request: ImageRequest) -> Result<(), ImageError> {
        self.run(request).result
    }

    fn buffer(&self, length: usize) -> Buffer {
        self.driver.pool().take(length)
    }

    /// Bytes at an address that is no multiple of anything, as in the middle of a receive buffer.
    fn payload(&self, bytes: &[u8]) -> Payload {
        let mut buffer = self.buffer(bytes.len() + 29);
        buffer.as_mut_slice()[29..].copy_from_slice(bytes);
        buffer.into_payload().slice(29..)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> ImageRequest {
        ImageRequest::Write {
            payload: self.payload(bytes),
            offset,
            durable: false,
        }
    }

    fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let buffer = self.buffer(length);
        let done = self.run(ImageRequest::Read { buffer, offset });
        done.result.unwrap();
        done.buffer.unwrap().as_slice().to_vec()
    }

    /// What is in the file, by plain reading.
    fn plain(&self) -> Vec<u8> {
        let path = self.path.as_ref().expect("an image in a file");
        let mut bytes = vec![0xee; self.image.size() as usize];
        File::open(path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

fn zero(offset: u64, length: u64) -> ImageRequest {
    ImageRequest::Zero {
        offset,
        length,
        no_hole: false,
        durable: false,
    }
}

fn trim(offset: u64, length: u64) -> ImageRequest {
    ImageRequest::Trim {
        offset,
        length,
        durable: false,
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed | 1)
        .collect()
}
