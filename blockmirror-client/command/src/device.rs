//! `blockmirror attach EXPORT /dev/nbdN` and `detach /dev/nbdN`: an export as a device of the kernel.
//!
//! The device works without us once it is attached; what brings it new connections when it loses some is a process that
//! stays: this one with `--foreground`, another one in the background else.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use blockmirror_client::uri::UriList;
use raid1_glue::attach::{self, AttachError, End, Event, Kept, Wanted};
use raid1_glue::nbd::sysfs::NbdIndex;
use raid1_glue::nbd::{Nbd, NbdError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::device::DeviceArgs;
use crate::failure::{Failure, print};
use crate::human::{bytes, duration};

/// What the process in the background says when the device is there.
const READY: &str = "ready";
/// Where it writes what happens.
const LOGS: &str = "/run/blockmirror";

/// Attaches `uris`, and keeps the device, or has it kept.
pub async fn attach(uris: &UriList, index: NbdIndex, args: &DeviceArgs, json: bool) -> Result<(), Failure> {
    if !args.foreground && !args.once {
        return in_background(index, json);
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
    if args.agent {
        // No terminal is to end it, and nobody reads what it prints from here on.
        let _ = rustix::process::setsid();
        print(&format!("{READY} {}\n", kept.size()))?;
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

/// The same command again, as a process of its own that stays; returns when the device is there.
fn in_background(index: NbdIndex, json: bool) -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Failed(format!("{what}: {error}"));
    std::fs::create_dir_all(LOGS).map_err(|error| failed(LOGS, error))?;
    let path = PathBuf::from(LOGS).join(format!("nbd{}.log", index.0));
    let log = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
    let log = log.map_err(|error| failed(&path.display().to_string(), error))?;
    let program = std::env::current_exe().map_err(|error| failed("this program", error))?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
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
    say_attached(index, size.trim().parse().unwrap_or_default(), json)
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
