#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buffers;
mod files;
mod lifetime;
mod sent_files;
mod sockets;

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

/// No test takes this long: a completion that is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test with each engine.
fn with_each_engine(test: impl Fn(Box<dyn Driver>)) {
    for choice in [EngineChoice::Uring, EngineChoice::Threads] {
        let driver = open_driver(choice).unwrap();
        eprintln!("{}", driver.describe());
        test(driver);
    }
}

/// Runs a test with each engine, also where nothing is finished within `submit`.
fn with_each_way(test: impl Fn(Box<dyn Driver>)) {
    with_each_engine(&test);
    for choice in [EngineChoice::Uring, EngineChoice::Threads] {
        test(open_driver_with(choice, InlinePolicy::Never).unwrap());
    }
}

/// Waits until `count` completions are there.
fn collect(driver: &mut dyn Driver, count: usize) -> Vec<Completion> {
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while out.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} completions, then none",
            out.len()
        );
        driver.wait(Some(Duration::from_millis(500)), &mut out).unwrap();
    }
    assert_eq!(out.len(), count);
    out
}

/// Executes one operation to its end.
fn execute(driver: &mut dyn Driver, token: u64, op: Op) -> Completion {
    let completion = match driver.submit(token, op) {
        Some(completion) => completion,
        None => collect(driver, 1).remove(0),
    };
    assert_eq!(completion.token, token);
    completion
}

fn socket_pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Socket::new(ours.into()).unwrap(), theirs)
}

fn file_of(bytes: &[u8]) -> (FileHandle, File) {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    (FileHandle::new(file.try_clone().unwrap()).unwrap(), file)
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed)
        .collect()
}
