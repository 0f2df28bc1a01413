//! `blockmirror verify`: comparing with peers, and waiting for the end of it.

use std::time::Duration;

use blockmirror_client::admin::{AdminClient, Order, PeerStatus, StatusReport, VerifyStatus};

use crate::args::VerifyArgs;
use crate::failure::{Failure, print};
use crate::human::{bytes, clean};
use crate::progress::Progress;
use crate::{orders, render};

/// Between two questions.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Looks that may find neither a comparison under way nor its end, before it is taken to have been stopped.
const EMPTY_LOOKS: u32 = 8;

/// A comparison that is waited for: the volume, the peer, and the comparison that had ended before.
struct Awaited {
    volume: String,
    peer: String,
    before: Option<VerifyStatus>,
}

pub async fn run(admin: &AdminClient, args: &VerifyArgs, json: bool) -> Result<(), Failure> {
    let name = clean(&args.name);
    if args.stop {
        let order = Order::VerifyStop {
            name: args.name.clone(),
            peer: args.peer.clone(),
        };
        return orders::give(admin, &order, json, &format!("verify of {name} is stopped")).await;
    }
    let awaited = if args.wait {
        awaited(&admin.status().await?, args)
    } else {
        Vec::new()
    };
    let order = Order::Verify {
        name: args.name.clone(),
        peer: args.peer.clone(),
        repair: args.repair,
        resume: args.resume,
    };
    if !args.wait {
        let done = format!("verify of {name} has begun; `blockmirror status` shows how far it is");
        return orders::give(admin, &order, json, &done).await;
    }
    if let Err(error) = admin.order(&order).await {
        return Err(orders::refused(error, &order, json));
    }
    let (mut differing, mut unread, mut unfinished) = (0, 0, false);
    for one in &awaited {
        let ended = until_ended(admin, one).await?;
        differing += if ended.repair { 0 } else { ended.differing_bytes };
        unread += ended.unread_bytes;
        unfinished |= !ended.finished;
        let text = if json {
            let report = serde_json::json!({ "volume": one.volume, "peer": one.peer, "verify": ended });
            format!("{report}\n")
        } else {
            format!(
                "verify of volume {} with peer {}: {}\n",
                clean(&one.volume),
                clean(&one.peer),
                render::verify_done(&ended)
            )
        };
        print(&text)?;
    }
    if unfinished {
        return Err(Failure::Failed(format!(
            "stopped before its end: go on with `blockmirror verify --resume {name}`"
        )));
    }
    if unread > 0 {
        return Err(Failure::Failed(format!(
            "{} cannot be read: see the daemon's log",
            bytes(unread)
        )));
    }
    if differing > 0 {
        return Err(Failure::Failed(format!(
            "{} differ and are marked: `blockmirror resync {name} PEER` copies them, and so do a new connection and `blockmirror \
             verify --repair {name}`; until then the peer goes on with every write, and cannot take over in order",
            bytes(differing)
        )));
    }
    Ok(())
}

fn awaited(report: &StatusReport, args: &VerifyArgs) -> Vec<Awaited> {
    let named = |peer: &PeerStatus| args.peer.as_ref().is_none_or(|name| *name == peer.name);
    let volume_named = report
        .resources
        .iter()
        .flat_map(|resource| &resource.volumes)
        .any(|volume| volume.export == args.name);
    let mut awaited = Vec::new();
    for resource in &report.resources {
        for volume in &resource.volumes {
            // The name of a volume goes before that of a resource, here as in the daemon.
            let meant = if volume_named {
                volume.export == args.name
            } else {
                resource.name == args.name
            };
            if !meant {
                continue;
            }
            awaited.extend(volume.peers.iter().filter(|peer| named(peer)).map(|peer| Awaited {
                volume: volume.export.clone(),
                peer: peer.name.clone(),
                before: peer.last_verify,
            }));
        }
    }
    awaited
}

async fn until_ended(admin: &AdminClient, one: &Awaited) -> Result<VerifyStatus, Failure> {
    let mut progress = Progress::new(&format!("{} {}", one.volume, one.peer));
    let mut empty = 0;
    loop {
        let report = admin.status().await?;
        let Some(peer) = report.peer(&one.volume, &one.peer) else {
            progress.end(true);
            return Err(Failure::Failed(format!(
                "volume \"{}\" has no peer \"{}\" any more",
                one.volume, one.peer
            )));
        };
        match (&peer.verify, &peer.last_verify) {
            (Some(under_way), _) => progress.verify(under_way),
            (None, Some(last)) if one.before.as_ref() != Some(last) => {
                progress.end(false);
                return Ok(*last);
            }
            (None, _) if empty < EMPTY_LOOKS => empty += 1,
            (None, _) => {
                progress.end(true);
                return Err(Failure::Failed(format!(
                    "verify of volume \"{0}\" with peer \"{1}\" did not come to its end: {2}; go on with \
                     `blockmirror verify --resume {0} {1}`",
                    one.volume,
                    one.peer,
                    peer.last_error
                        .as_deref()
                        .unwrap_or("it was stopped, or the peer is gone")
                )));
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
