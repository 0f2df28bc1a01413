//! `blockmirror attach EXPORT /dev/nbdN` and `detach /dev/nbdN`: an export as a device of the kernel.
//!
//! The device works without us once it is attached; what brings it new connections when it loses some is a process that
//! stays: this one with `--foreground`, another one in the background else.

use std::fs::OpenOptions;
use std::time::Duration;

use blockmirror_client::uri::UriList;
use raid1_glue::attach::{self, AttachError, End, Event, Kept, Wanted};
use raid1_glue::nbd::sysfs::NbdIndex;
use raid1_glue::nbd::{Nbd, NbdError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent;
use crate::args::device::DeviceArgs;
use crate::failure::{Failure, print};
use crate::human::{bytes, duration};

/// Attaches `uris`, and keeps the device, or has it kept.
pub async fn attach(uris: &UriList, index: NbdIndex, args: &DeviceArgs, json: bool) -> Result<(), Failure> {
    if !args.foreground && !args.once {
        let size = agent::start(index, std::env::args_os().skip(1))?;
        return say_attached(index, size, json);
    }
    let wanted = Wanted {
        uris: uris.clone(),
        index,
        connections: args.connections,
        block_size: args.block_size,
        timeout: (args.answer_timeout > 0).then(|| Duration::from_secs(args.answer_timeout)),
        dead_timeout: Duration::from_secs(args.dead_timeout),
        read_only: args.read_only,
    };
    let kept = attach::attach(&wanted).await?;
    let _held = (!args.once).then(|| agent::hold(index));
    if args.agent {
        agent::ready(kept.size())?;
    } else {
        say_attached(index, kept.size(), json)?;
    }
    if args.once {
        return Ok(());
    }
    keep(kept, index).await
}

/// Lets a device go. What it has to write is written before; one that is used is kept unless it is forced.
pub async fn detach(index: NbdIndex, force: bool, json: bool) -> Result<(), Failure> {
    let nbd = Nbd::open().map_err(refusal)?;
    if !nbd.is_connected(index.0).map_err(refusal)? {
        return Err(Failure::Failed(format!("{index} is not attached")));
    }
    let users = index.users();
    if !users.is_empty() && !force {
        return Err(Failure::Failed(format!(
            "{index} is used: {}; let it go first, or lose what is under way with --force",
            users.join(", ")
        )));
    }
    if !force {
        let written = OpenOptions::new()
            .write(true)
            .open(index.to_string())
            .and_then(|device| device.sync_all());
        // A read-only device has nothing to write.
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::PermissionDenied
            && error.kind() != std::io::ErrorKind::ReadOnlyFilesystem
        {
            return Err(Failure::Failed(format!(
                "{index} cannot be written out: {error}; --force lets it go all the same"
            )));
        }
    }
    nbd.disconnect(index.0).map_err(refusal)?;
    if json {
        return print(&format!("{}\n", json!({ "done": true })));
    }
    print(&format!("{index} is detached\n"))
}

fn say_attached(index: NbdIndex, size: u64, json: bool) -> Result<(), Failure> {
    if json {
        return print(&format!(
            "{}\n",
            json!({ "done": true, "device": index.to_string(), "size_bytes": size })
        ));
    }
    print(&format!("{index} is attached: {}\n", bytes(size)))
}

/// Until it is detached, or this process is told to end. The device stays then.
async fn keep(mut kept: Kept, index: NbdIndex) -> Result<(), Failure> {
    let stop = |error| Failure::Failed(format!("signals cannot be caught: {error}"));
    let mut terminated = signal(SignalKind::terminate()).map_err(stop)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(stop)?;
    let told = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    match kept.keep(told, |event| tell(index, &event)).await? {
        End::Detached => eprintln!("{index} has been detached"),
        End::Told => eprintln!("{index} stays attached, and nobody connects it again"),
    }
    Ok(())
}

fn tell(index: NbdIndex, event: &Event<'_>) {
    match event {
        Event::Lost => eprintln!("{index} has lost connections"),
        Event::Waiting(error) => eprintln!("{index} waits: {error}"),
        Event::Back(uri, after) => eprintln!(
            "{index} is connected to {uri} again, after {}",
            duration(after.as_secs_f64())
        ),
        Event::Resized(size) => eprintln!("{index} has {} now", bytes(*size)),
    }
}

fn refusal(error: NbdError) -> Failure {
    Failure::Failed(error.to_string())
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Connect(_) | AttachError::NoPrimary(_) => Self::Unreachable(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}
