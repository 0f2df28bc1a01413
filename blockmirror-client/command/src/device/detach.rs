//! Letting a device go.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use raid1_glue::nbd::sysfs::{NbdIndex, Standing, System};
use raid1_glue::nbd::{Nbd, NbdError};
use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Failure, print};

/// Writing out takes as long as it takes; who waits is told why after this.
const PATIENCE: Duration = Duration::from_secs(3);
/// The kernel has let the device go by then, unless somebody has it open;
const GONE: Duration = Duration::from_secs(5);
/// it is looked at so often,
const GONE_LOOK: Duration = Duration::from_millis(20);
/// and let go again so often: a request that was on its way to a connection in that moment stays behind in the kernel, and
/// whoever waits for it does so for ever (seen with Linux 6.1).
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Lets a device go. What it has to write is written before; one that is used is kept unless it is forced.
pub async fn detach(index: NbdIndex, force: bool, json: bool) -> Result<(), Failure> {
    let refused = |error: NbdError| Failure::Failed(format!("{index}: {error}"));
    let (nbd, system) = (Nbd::open().map_err(refused)?, System::here());
    if system.standing(index) == Standing::Free {
        return Err(Failure::Failed(format!("{index} is not attached")));
    }
    let locked = if force {
        None
    } else {
        may_go(index, &system.users(index))?;
        Some(write_out(index).await?)
    };
    nbd.disconnect(index.0).map_err(refused)?;
    drop(locked);
    let is_open = !is_gone(&nbd, &system, index).await;
    if json {
        return print(&format!("{}\n", json!({ "done": true, "is_open": is_open })));
    }
    let rest = if is_open {
        "; somebody has it open still, and gets errors: it is free when that has ended"
    } else {
        ""
    };
    print(&format!("{index} is detached{rest}\n"))
}

/// Nobody needs it.
fn may_go(index: NbdIndex, users: &[String]) -> Result<(), Failure> {
    if users.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{index} is used: {}; end that first (umount, swapoff, mdadm --fail --remove), or lose what is under way with --force",
        users.join(", ")
    )))
}

/// What is in memory goes to the node, and there to its disk. As long as what is returned is open udev leaves the device
/// alone, and does not read what is about to go.
async fn write_out(index: NbdIndex) -> Result<File, Failure> {
    let mut written = tokio::task::spawn_blocking(move || written_out(index));
    let result = match timeout(PATIENCE, &mut written).await {
        Ok(result) => result,
        Err(_) => {
            eprintln!(
                "{index} is being written out; where its node is away that waits for it. (Ctrl-C and `blockmirror detach \
                 --force {index}` lets it go at once, and loses what is not written)"
            );
            written.await
        }
    };
    let failed = |error: io::Error| {
        Failure::Failed(format!(
            "{index} cannot be written out: {error}; --force lets it go all the same"
        ))
    };
    result
        .map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(failed)
}

fn written_out(index: NbdIndex) -> io::Result<File> {
    // Opened for reading: udev takes the end of writing for a reason to look at the device again. For nobody else: what is
    // mounted in another namespace is used as well, and nobody mounts it from now on.
    let device = File::options()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(index.to_string())
        .map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => io::Error::other("somebody uses it, maybe in a container of their own"),
            _ => error,
        })?;
    // It holds this lock, shared, while it looks, and does not look while somebody else has it (systemd's
    // BLOCK_DEVICE_LOCKING). An end of writing just before, such as of umount, may have made it look.
    flock(&device, FlockOperation::LockExclusive)?;
    device.sync_all()?;
    Ok(device)
}

/// Whether the kernel has let it go.
async fn is_gone(nbd: &Nbd, system: &System, index: NbdIndex) -> bool {
    let until = Instant::now() + GONE;
    let mut again = Instant::now() + STRAGGLERS;
    while !system.is_gone(index) {
        let now = Instant::now();
        if now >= until {
            return false;
        }
        // Nobody can have attached it anew: for that it has to be closed, and who waits has it open.
        let waits = system.progress(index).is_some_and(|progress| progress.under_way > 0);
        if now >= again && waits {
            let _ = nbd.disconnect(index.0);
            again = now + STRAGGLERS;
        }
        sleep(GONE_LOOK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_used_is_named_with_the_way_out() {
        may_go(NbdIndex(0), &[]).unwrap();
        let users = [
            "/dev/nbd0 is mounted on /data".to_owned(),
            "/dev/nbd0p1 is swapped to".to_owned(),
        ];
        let Failure::Failed(text) = may_go(NbdIndex(0), &users).unwrap_err() else {
            panic!("refused");
        };
        for word in ["mounted on /data", "swapped to", "swapoff", "--force"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
