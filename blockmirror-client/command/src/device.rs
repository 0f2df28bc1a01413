//! `blockmirror attach EXPORT /dev/nbdN` and `detach /dev/nbdN`: an export as a device of the kernel.
//!
//! The device works without us once it is attached; what brings it new connections when it loses some is a process that
//! stays: this one with `--foreground`, another one in the background else.

mod detach;
mod keeper;
mod same_machine;
mod service;

use std::path::Path;
use std::time::Duration;

use blockmirror_client::uri::UriList;
use raid1_glue::attach::{self, AttachError, Kept, Origin, Wanted};
use raid1_glue::nbd::sysfs::{NbdIndex, Standing, System};
use serde_json::json;

use crate::agent::{self, Claim};
use crate::args::device::DeviceArgs;
use crate::failure::{Failure, print};
use crate::human::bytes;

pub use detach::detach;
use same_machine::Danger;
use service::Service;

/// Between attempts of a service to attach a device for the first time.
const AGAIN: Duration = Duration::from_secs(1);

/// Attaches `uris`, and keeps the device, or has it kept. `admin` is the socket of a daemon that may be its server.
pub async fn attach(
    uris: &UriList,
    index: NbdIndex,
    args: &DeviceArgs,
    admin: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    if !args.foreground && !args.once {
        if let Claim::Held(process) = agent::claim(index).await? {
            return kept_already(uris, index, process, json);
        }
        let (size, origin) = agent::start(index, std::env::args_os().skip(1))?;
        return say_attached(index, size, origin, json);
    }
    let caution = Caution {
        // What is attached has been judged, and needs somebody who keeps it.
        is_off: args.allow_loop || is_attached_to(uris, index),
        admin,
    };
    let wanted = Wanted {
        uris: uris.clone(),
        index,
        connections: args.connections,
        block_size: args.block_size,
        timeout: (args.answer_timeout > 0).then(|| Duration::from_secs(args.answer_timeout)),
        dead_timeout: Duration::from_secs(args.dead_timeout),
        read_only: args.read_only,
    };
    if args.once {
        caution.check(uris).await?;
        let (kept, origin) = attach::attach(&wanted).await?;
        return say_attached(index, kept.size(), origin, json);
    }
    let _claim = match agent::claim(index).await? {
        Claim::Free(claim) => claim,
        Claim::Held(process) => {
            return Err(Failure::Failed(format!("{index} is kept by process {process} already")));
        }
    };
    // Memory may be written out through this process (TLS). Without the right to say so it is merely less safe.
    let _ = rustix::process::configure_io_flusher_behavior(true);
    let service = Service::new(index);
    let stop = keeper::told_to_stop()?;
    let mut stop = std::pin::pin!(stop);
    let attached = async {
        if args.agent {
            caution.check(uris).await?;
            attach::attach(&wanted).await.map_err(Failure::from)
        } else {
            first(&wanted, &caution, &service).await
        }
    };
    let (kept, origin) = tokio::select! {
        attached = attached => attached?,
        () = &mut stop => return Ok(()),
    };
    if args.agent {
        agent::ready(kept.size(), origin)?;
    } else {
        say_attached(index, kept.size(), origin, json)?;
    }
    service.ready(uris, kept.size());
    keeper::keep(kept, stop, &service).await;
    Ok(())
}

/// Looks out for devices that may come to wait for themselves.
struct Caution<'a> {
    is_off: bool,
    /// The socket of a daemon that may be its server.
    admin: Option<&'a Path>,
}

impl Caution<'_> {
    async fn check(&self, uris: &UriList) -> Result<(), Danger> {
        if self.is_off {
            return Ok(());
        }
        same_machine::check(uris, self.admin).await
    }
}

fn is_attached_to(uris: &UriList, index: NbdIndex) -> bool {
    System::here().standing(index) == Standing::Attached(Some(uris.to_string()))
}

/// For the first time. A service is started before its nodes, and waits for them.
async fn first(wanted: &Wanted, caution: &Caution<'_>, service: &Service) -> Result<(Kept, Origin), Failure> {
    loop {
        match caution.check(&wanted.uris).await {
            Ok(()) => match attach::attach(wanted).await {
                Ok(attached) => return Ok(attached),
                Err(error @ (AttachError::Connect(_) | AttachError::NoPrimary(_))) => service.waits(&error.to_string()),
                Err(error) => return Err(error.into()),
            },
            Err(Danger::Unknown(text)) => service.waits(&text),
            Err(danger) => return Err(danger.into()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Somebody keeps the device: what was asked for is there, or something else is.
fn kept_already(uris: &UriList, index: NbdIndex, process: u32, json: bool) -> Result<(), Failure> {
    let system = System::here();
    match system.standing(index) {
        _ if is_attached_to(uris, index) => say_attached(index, system.size(index), Origin::Taken, json),
        Standing::Attached(backend) => Err(AttachError::Taken { index, backend }.into()),
        Standing::Free => Err(Failure::Failed(format!(
            "process {process} is about to attach {index}, and waits for its nodes"
        ))),
    }
}

fn say_attached(index: NbdIndex, size: u64, origin: Origin, json: bool) -> Result<(), Failure> {
    if json {
        return print(&format!(
            "{}\n",
            json!({ "done": true, "device": index.to_string(), "size_bytes": size, "was_attached": origin == Origin::Taken })
        ));
    }
    for device in System::here().swaps(index) {
        eprintln!(
            "{device} is swapped to: memory that has to be written out in order to write it out can stop the machine"
        );
    }
    let how = match origin {
        Origin::New => "is attached",
        Origin::Taken => "is attached already, and kept",
    };
    print(&format!("{index} {how}: {}\n", bytes(size)))
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Connect(_) | AttachError::NoPrimary(_) => Self::Unreachable(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}
