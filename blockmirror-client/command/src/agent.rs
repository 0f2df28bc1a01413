//! The process that keeps a device of the kernel attached: started in the background, and found again by the file it locks.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use raid1_glue::nbd::sysfs::NbdIndex;
use rustix::fs::{FlockOperation, flock};

use crate::failure::{Failure, print};

/// What the process in the background says when the device is there.
const READY: &str = "ready";
/// Where it writes what happens, and what it locks. Not the daemon's: that goes with it.
const FOLDER: &str = "/run/blockmirror-attach";

/// This program again with these arguments, as a process of its own that stays; the size of the device when it is there.
pub fn start(index: NbdIndex, arguments: impl IntoIterator<Item = OsString>) -> Result<u64, Failure> {
    let failed = |what: &str, error: io::Error| Failure::Failed(format!("{what}: {error}"));
    std::fs::create_dir_all(FOLDER).map_err(|error| failed(FOLDER, error))?;
    let path = file(index, "log");
    let log = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
    let log = log.map_err(|error| failed(&path.display().to_string(), error))?;
    let program = std::env::current_exe().map_err(|error| failed("this program", error))?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(["--foreground", "--agent"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed("the process that keeps the device", error))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let Some(size) = line.trim_end().strip_prefix(READY) else {
        let _ = child.wait();
        let said = std::fs::read_to_string(&path).unwrap_or_default();
        let said = said.trim().trim_start_matches("blockmirror: ").to_owned();
        return Err(Failure::Failed(said));
    };
    // Should this process stay, as a watch does, it is not to keep the other one's remains.
    std::thread::spawn(move || child.wait());
    Ok(size.trim().parse().unwrap_or_default())
}

/// The device is there: told to who started us. No terminal is to end us, and nobody reads what is printed from here on.
pub fn ready(size: u64) -> Result<(), Failure> {
    let _ = rustix::process::setsid();
    print(&format!("{READY} {size}\n"))
}

/// Says that this process keeps the device, for as long as what is returned lives; `None`: nobody can be told.
pub fn hold(index: NbdIndex) -> Option<File> {
    std::fs::create_dir_all(FOLDER).ok()?;
    let path = file(index, "agent");
    let mut lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    lock.set_len(0).ok()?;
    write!(lock, "{}", std::process::id()).ok()?;
    Some(lock)
}

/// The process that keeps the device; `None`: nobody does.
pub fn of(index: NbdIndex) -> Option<u32> {
    let path = file(index, "agent");
    let lock = File::open(&path).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => std::fs::read_to_string(path).ok()?.trim().parse().ok(),
    }
}

fn file(index: NbdIndex, ending: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("nbd{}.{ending}", index.0))
}
