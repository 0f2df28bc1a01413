//! The process that keeps a device of the kernel attached, one per device: started in the background, and found again by the
//! file it locks.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use raid1_glue::attach::Origin;
use raid1_glue::nbd::sysfs::NbdIndex;
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, print};

/// What the process in the background says when the device is there: this, its size, and how it came to it.
const READY: &str = "ready";
const NEW: &str = "new";
const TAKEN: &str = "taken";
/// Where it writes what happens, and what it locks. Not the daemon's: that goes with it.
const FOLDER: &str = "/run/blockmirror-attach";
/// One that ends, since its device was detached, has done so by then;
const LEAVING: Duration = Duration::from_secs(3);
/// it is looked for so often.
const LEAVING_LOOK: Duration = Duration::from_millis(50);

/// Whether somebody keeps a device.
pub enum Claim {
    /// Nobody else, for as long as this is open.
    Free(File),
    /// This process.
    Held(u32),
}

/// This program again with these arguments, as a process of its own that stays; the size of the device when it is there, and
/// how it came to be kept.
pub fn start(index: NbdIndex, arguments: impl IntoIterator<Item = OsString>) -> Result<(u64, Origin), Failure> {
    let failed = |what: &Path, error: io::Error| Failure::Failed(format!("{}: {error}", what.display()));
    let path = file(index, "log");
    fs::create_dir_all(FOLDER).map_err(|error| failed(Path::new(FOLDER), error))?;
    let log = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
    let log = log.map_err(|error| failed(&path, error))?;
    let program = std::env::current_exe().map_err(|error| failed(Path::new("this program"), error))?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(["--foreground", "--agent"])
        // Whose service starts it is not whose service it is.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(Path::new("the process that keeps the device"), error))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let words: Vec<_> = line.split_whitespace().collect();
    let [READY, size, origin] = words[..] else {
        let _ = child.wait();
        let said = fs::read_to_string(&path).unwrap_or_default();
        let said = said.trim().trim_start_matches("blockmirror: ").to_owned();
        return Err(Failure::Failed(said));
    };
    let origin = if origin == TAKEN { Origin::Taken } else { Origin::New };
    let size = size.parse().unwrap_or_default();
    // Should this process stay, as a watch does, it is not to keep the other one's remains.
    std::thread::spawn(move || child.wait());
    Ok((size, origin))
}

/// The device is there: told to who started us. No terminal is to end us, and nobody reads what is printed from here on.
pub fn ready(size: u64, origin: Origin) -> Result<(), Failure> {
    let _ = rustix::process::setsid();
    let origin = match origin {
        Origin::New => NEW,
        Origin::Taken => TAKEN,
    };
    print(&format!("{READY} {size} {origin}\n"))
}

/// Claims a device for this process. One that is about to be let go is waited for.
pub async fn claim(index: NbdIndex) -> Result<Claim, Failure> {
    let failed = |error| Failure::Failed(format!("{FOLDER}: {error}; only root may"));
    fs::create_dir_all(FOLDER).map_err(failed)?;
    let (path, until) = (file(index, "agent"), Instant::now() + LEAVING);
    loop {
        match claim_at(&path).map_err(failed)? {
            Claim::Held(_) if Instant::now() < until => sleep(LEAVING_LOOK).await,
            claim => return Ok(claim),
        }
    }
}

fn claim_at(path: &Path) -> io::Result<Claim> {
    let mut lock = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Claim::Held(process(path).unwrap_or_default()));
    }
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    Ok(Claim::Free(lock))
}

/// The process that keeps the device; `None`: nobody does.
pub fn of(index: NbdIndex) -> Option<u32> {
    let path = file(index, "agent");
    let lock = File::open(&path).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => process(&path),
    }
}

fn process(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn file(index: NbdIndex, ending: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("nbd{}.{ending}", index.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_process_keeps_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nbd0.agent");
        let Claim::Free(first) = claim_at(&path).unwrap() else {
            panic!("nobody has it");
        };
        let Claim::Held(process) = claim_at(&path).unwrap() else {
            panic!("it is held");
        };
        assert_eq!(process, std::process::id());
        drop(first);
        assert!(matches!(claim_at(&path).unwrap(), Claim::Free(_)));
    }
}
