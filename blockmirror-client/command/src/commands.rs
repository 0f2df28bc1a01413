//! What each command does.

use std::time::Duration;

use blockmirror_client::admin::{AdminClient, Order, PeerCommand, StatusReport};

use blockmirror_client::uri::{NbdUri, UriError, UriList};
use raid1_glue::nbd::sysfs::NotNbd;
use serde_json::json;

use crate::args::device::{AttachArgs, DetachArgs};
use crate::args::{Args, Command, PeerArgs, WaitArgs};
use crate::failure::{Failure, print};
use crate::terminal::{self, Style};
use crate::wait::Goal;
use crate::{branches, compare, copy, device, human, info, map, orders, raid, render, socket, verify, wait, why};

/// Between two reports of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the command to its end.
pub fn start(args: Args) -> Result<(), Failure> {
    // Two threads: `compare` and `copy` talk to two servers.
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
    let json = args.json;
    let outcome = match &args.command {
        Command::Compare { left, right, tls } => {
            compare::run(&tls.applied_to(left), &tls.applied_to(right), json).await
        }
        Command::Copy { from, to, tls } => copy::run(&tls.applied_to(from), &tls.applied_to(to), json).await,
        Command::Info { uri, tls } => info::run(&tls.applied_to_one(uri), json).await,
        Command::Map { uri, context, tls } => map::run(&tls.applied_to_one(uri), context, json).await,
        Command::Raid(raid) => raid::run(raid, &args).await,
        Command::Attach(AttachArgs {
            what,
            device: Some(index),
            kernel,
            tls,
            ..
        }) => {
            let uris = tls.applied_to(&export(what, &args).await?);
            device::attach(&uris, *index, kernel, socket::find(&args).ok().as_deref(), json).await
        }
        Command::Detach(DetachArgs { what, force }) if what.starts_with("/dev/") => {
            let index = what
                .parse()
                .map_err(|error: NotNbd| Failure::Usage(error.to_string()))?;
            device::detach(index, *force, json).await
        }
        _ => ask(&AdminClient::new(socket::find(&args)?), &args.command, json).await,
    };
    if let (true, Err(Failure::Refused { status, message })) = (json, &outcome) {
        let body = json!({ "done": false, "status": status, "error": message, "needs_accept": null });
        print(&format!("{body}\n"))?;
    }
    outcome
}

/// What is to be attached: URIs, or a volume of the daemon, by a socket of it.
pub async fn export(what: &str, args: &Args) -> Result<UriList, Failure> {
    if what.contains("://") {
        return what
            .parse()
            .map_err(|error: UriError| Failure::Usage(error.to_string()));
    }
    let report = AdminClient::new(socket::find(args)?).status().await?;
    let is_there = report
        .resources
        .iter()
        .any(|resource| resource.volumes.iter().any(|volume| volume.export == what));
    if !is_there {
        return Err(Failure::Failed(format!(
            "the daemon has no volume {}",
            human::clean(what)
        )));
    }
    let uri = report.uris.iter().find_map(|uri| uri.parse::<NbdUri>().ok());
    let server = uri.ok_or_else(|| Failure::Failed("the daemon listens nowhere".to_owned()))?;
    Ok(UriList::from(NbdUri {
        export: Some(what.to_owned()),
        ..server
    }))
}

/// The commands that a daemon answers.
async fn ask(admin: &AdminClient, command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Status { watch: false } => print(&shown(&admin.status().await?, json)?),
        Command::Status { watch: true } | Command::Watch => watch(admin, json).await,
        Command::Why { resource } => why::run(admin, resource.as_deref(), json).await,
        Command::Connect {
            peer,
            discard_my_data,
            wait,
        } => connect(admin, peer, *discard_my_data, wait, json).await,
        Command::Disconnect { peer } => disconnect(admin, peer, json).await,
        Command::Resync { peer, full, wait } => resync(admin, peer, *full, wait, json).await,
        Command::Verify(args) => verify::run(admin, args, json).await,
        Command::Branch(command) => branches::run(admin, command, json).await,
        Command::Reload => orders::reload(admin, json).await,
        // Have returned above: they need no daemon.
        Command::Compare { .. }
        | Command::Copy { .. }
        | Command::Info { .. }
        | Command::Map { .. }
        | Command::Raid(_) => Ok(()),
        _ => order(admin, command, json).await,
    }
}

/// The commands that are one order and one answer.
async fn order(admin: &AdminClient, command: &Command, json: bool) -> Result<(), Failure> {
    let Some((order, done)) = order_of(command) else {
        return Ok(());
    };
    let (name, goal, wait) = match command {
        Command::Promote { resource, wait, .. } => (resource, Goal::Everywhere, wait),
        Command::Invalidate { resource, wait, .. } => (resource, Goal::Here, wait),
        Command::Attach(args) => (&args.what, Goal::Here, &args.wait),
        _ => return orders::give(admin, &order, json, &done).await,
    };
    if !wait.wait {
        return orders::give(admin, &order, json, &done).await;
    }
    if let Err(error) = admin.order(&order).await {
        return Err(orders::refused(error, &order, json));
    }
    wait::until_complete(admin, name, goal, Duration::from_secs(wait.timeout)).await?;
    if json {
        return print(&format!("{}\n", json!({ "done": true })));
    }
    print(&format!("{done}\n{} has everything\n", human::clean(name)))
}

/// What is asked of the daemon, and what is said when it is done. `None`: the command is not an order.
fn order_of(command: &Command) -> Option<(Order, String)> {
    let name = |name: &str| human::clean(name).into_owned();
    let found = match command.clone() {
        Command::Promote {
            resource,
            force,
            accept,
            ..
        } => {
            let done = format!("{} is Primary here", name(&resource));
            (
                Order::Promote {
                    resource,
                    force,
                    accept,
                },
                done,
            )
        }
        Command::Demote { resource } => {
            let done = format!("{} is Secondary here", name(&resource));
            (Order::Demote { resource }, done)
        }
        Command::Invalidate { resource, peer, .. } => {
            let from = peer.as_deref().unwrap_or("its peer");
            let done = format!(
                "the data of {} here is given up; it comes from {}",
                name(&resource),
                name(from)
            );
            (Order::Invalidate { resource, peer }, done)
        }
        Command::Resize {
            volume,
            size,
            assume_clean,
            force,
        } => {
            let done = format!("volume {} has {} on every node", name(&volume), human::bytes(size));
            let order = Order::Resize {
                volume,
                size,
                assume_clean,
                force,
            };
            (order, done)
        }
        Command::Attach(AttachArgs {
            what: volume, replaced, ..
        }) => {
            let done = format!("the image of {} is attached", name(&volume));
            (Order::Attach { volume, replaced }, done)
        }
        Command::Detach(DetachArgs { what: volume, .. }) => {
            let done = format!("the image of {} is detached", name(&volume));
            (Order::Detach { volume }, done)
        }
        // No other command comes here.
        _ => return None,
    };
    Some(found)
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

async fn connect(
    admin: &AdminClient,
    peer: &PeerArgs,
    discard_my_data: bool,
    wait: &WaitArgs,
    json: bool,
) -> Result<(), Failure> {
    let before = wait::look(admin, peer).await?;
    let order = Order::Connect {
        name: peer.volume.clone(),
        peer: peer.peer.clone(),
        discard_my_data,
    };
    if !wait.wait {
        let done = format!("peer {} of {} may connect", peer.peer, peer.volume);
        return orders::give(admin, &order, json, &done).await;
    }
    if let Err(error) = admin.order(&order).await {
        return Err(orders::refused(error, &order, json));
    }
    let resync = wait::until_established(admin, peer, &before, Duration::from_secs(wait.timeout)).await?;
    if json {
        return print(&format!("{}\n", json!({ "done": true, "resync": resync })));
    }
    let resync = resync
        .map(|resync| format!("; resync: {}", render::resync_done(&resync)))
        .unwrap_or_default();
    print(&format!(
        "peer {} of {} is Established{resync}\n",
        peer.peer, peer.volume
    ))
}

async fn disconnect(admin: &AdminClient, peer: &PeerArgs, json: bool) -> Result<(), Failure> {
    let order = Order::Disconnect {
        name: peer.volume.clone(),
        peer: peer.peer.clone(),
    };
    let done = format!(
        "peer {1} of {0} is StandAlone until `blockmirror connect {0} {1}`",
        peer.volume, peer.peer
    );
    orders::give(admin, &order, json, &done).await
}

async fn resync(admin: &AdminClient, peer: &PeerArgs, full: bool, wait: &WaitArgs, json: bool) -> Result<(), Failure> {
    let before = wait::look(admin, peer).await?;
    admin
        .command(&peer.volume, &peer.peer, PeerCommand::Resync { full })
        .await?;
    let what = format!("peer {} of {}", peer.peer, peer.volume);
    if !wait.wait {
        let now = wait::look(admin, peer).await?;
        if json {
            return print(&format!(
                "{}\n",
                json!({ "done": true, "dirty_bytes": now.dirty_bytes })
            ));
        }
        if before.dirty_bytes == 0 && wait::has_everything(&now) {
            return print(&format!(
                "{what} is Established: nothing is marked, nothing is copied\n"
            ));
        }
        let dirty = human::bytes(now.dirty_bytes);
        return print(&format!(
            "resync of {what}: {dirty} dirty; `blockmirror status` shows how far it is\n"
        ));
    }
    let resync = wait::until_established(admin, peer, &before, Duration::from_secs(wait.timeout)).await?;
    match resync {
        _ if json => print(&format!("{}\n", json!({ "done": true, "resync": resync }))),
        Some(resync) => print(&format!("resync of {what}: {}\n", render::resync_done(&resync))),
        None => print(&format!("{what} is Established: nothing was dirty\n")),
    }
}
