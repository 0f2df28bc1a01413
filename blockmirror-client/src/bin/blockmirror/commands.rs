//! What each command does.

use std::time::Duration;

use blockmirror_client::admin::{AdminClient, PeerCommand, StatusReport};

use crate::args::{Args, Command, PeerArgs, WaitArgs};
use crate::failure::{Failure, print};
use crate::terminal::{self, Style};
use crate::{compare, human, render, socket, wait};

/// Between two reports of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the command to its end.
pub fn start(args: Args) -> Result<(), Failure> {
    // Two threads: `compare` receives from two servers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(run(args));
    // A name look-up under way would be waited for.
    runtime.shutdown_background();
    result
}

async fn run(args: Args) -> Result<(), Failure> {
    if let Command::Compare { left, right } = &args.command {
        return compare::run(left, right).await;
    }
    let admin = AdminClient::new(socket::find(&args)?);
    match &args.command {
        Command::Status { json, watch: false } => print(&shown(&admin.status().await?, *json)?),
        Command::Status { json, watch: true } => watch(&admin, *json).await,
        Command::Connect { peer, wait } => connect(&admin, peer, wait).await,
        Command::Disconnect { peer } => disconnect(&admin, peer).await,
        Command::Resync { peer, full, wait } => resync(&admin, peer, *full, wait).await,
        // Has returned above: it needs no daemon.
        Command::Compare { .. } => Ok(()),
    }
}

fn shown(report: &StatusReport, json: bool) -> Result<String, Failure> {
    if !json {
        return Ok(render::status(report, Style::of_stdout()));
    }
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n")
        .map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))
}

/// Until interrupted: redrawn for a person, one after the other for anything else (JSON: one line each).
async fn watch(admin: &AdminClient, json: bool) -> Result<(), Failure> {
    let mut first = true;
    loop {
        let report = admin.status().await?;
        let text = if json {
            let line = serde_json::to_string(&report);
            line.map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))? + "\n"
        } else {
            let before = if terminal::is_terminal() {
                terminal::CLEAR
            } else if first {
                ""
            } else {
                "\n"
            };
            format!("{before}{}", shown(&report, false)?)
        };
        print(&text)?;
        first = false;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn connect(admin: &AdminClient, peer: &PeerArgs, wait: &WaitArgs) -> Result<(), Failure> {
    let before = wait::look(admin, peer).await?;
    admin.command(&peer.volume, &peer.peer, PeerCommand::Connect).await?;
    if !wait.wait {
        return print(&format!("peer {} of volume {} may connect\n", peer.peer, peer.volume));
    }
    let resync = wait::until_established(admin, peer, &before, Duration::from_secs(wait.timeout)).await?;
    let resync = resync
        .map(|resync| format!("; resync: {}", render::resync_done(&resync)))
        .unwrap_or_default();
    print(&format!(
        "peer {} of volume {} is Established{resync}\n",
        peer.peer, peer.volume
    ))
}

async fn disconnect(admin: &AdminClient, peer: &PeerArgs) -> Result<(), Failure> {
    admin.command(&peer.volume, &peer.peer, PeerCommand::Disconnect).await?;
    print(&format!(
        "peer {} of volume {} is StandAlone until `blockmirror connect`\n",
        peer.peer, peer.volume
    ))
}

async fn resync(admin: &AdminClient, peer: &PeerArgs, full: bool, wait: &WaitArgs) -> Result<(), Failure> {
    let before = wait::look(admin, peer).await?;
    admin
        .command(&peer.volume, &peer.peer, PeerCommand::Resync { full })
        .await?;
    if !wait.wait {
        let now = wait::look(admin, peer).await?;
        let dirty = human::bytes(now.dirty_bytes);
        return print(&format!(
            "resync of peer {} of volume {}: {dirty} dirty; `blockmirror status` shows how far it is\n",
            peer.peer, peer.volume
        ));
    }
    match wait::until_established(admin, peer, &before, Duration::from_secs(wait.timeout)).await? {
        Some(resync) => print(&format!(
            "resync of peer {} of volume {}: {}\n",
            peer.peer,
            peer.volume,
            render::resync_done(&resync)
        )),
        None => print(&format!(
            "peer {} of volume {} is Established: nothing was dirty\n",
            peer.peer, peer.volume
        )),
    }
}
