//! Reaching peers: backoff, dialling, negotiating, and the check that the peer fits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use blockmirror_client::connect::connect;
use blockmirror_client::uri::Address;
use tokio::task::AbortHandle;

use super::backoff;
use super::exports::Place;
use super::fit::{self, Leg};
use crate::data::{DataSender, PeerHandover, ToData};

/// Where one peer of one volume is.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its name, for the log.
    pub(super) name: String,
    pub(super) address: Address,
    /// The export to open there.
    pub(super) export: String,
    pub(super) leg: Leg,
}

/// A peer of a volume.
pub(super) type PeerKey = (Place, usize);

/// Dials peers when a data thread asks; at most one attempt per peer at a time.
pub(super) struct Dialer {
    targets: HashMap<PeerKey, Arc<Target>>,
    threads: Vec<DataSender>,
    deadline: Duration,
    attempts: HashMap<PeerKey, AbortHandle>,
}

impl Dialer {
    pub(super) fn new(targets: HashMap<PeerKey, Target>, threads: Vec<DataSender>, deadline: Duration) -> Self {
        Self {
            targets: targets
                .into_iter()
                .map(|(key, target)| (key, Arc::new(target)))
                .collect(),
            threads,
            deadline,
            attempts: HashMap::new(),
        }
    }

    /// Wait out the backoff of this attempt, dial, and tell the data thread what came of it.
    pub(super) fn connect(&mut self, place: Place, peer: usize, attempt: u32) {
        let key = (place, peer);
        let (Some(target), Some(thread)) = (self.targets.get(&key), self.threads.get(place.thread)) else {
            tracing::error!(?place, peer, "a data thread asked for a peer that is not configured");
            return;
        };
        let (target, thread) = (Arc::clone(target), thread.clone());
        let deadline = self.deadline;
        let task = tokio::spawn(async move {
            tokio::time::sleep(backoff::wait(attempt, backoff::random())).await;
            let answer = match dial(&target, deadline).await {
                Ok((socket, negotiated, unread)) => {
                    let volume = place.volume;
                    ToData::PeerReady(PeerHandover {
                        volume,
                        peer,
                        socket,
                        negotiated,
                        unread,
                    })
                }
                Err(error) => {
                    let (name, export) = (&target.name, &target.leg.export);
                    tracing::debug!(peer = %name, %export, attempt, %error, "an attempt to reach the peer failed");
                    ToData::PeerFailed {
                        volume: place.volume,
                        peer,
                        error,
                    }
                }
            };
            // A thread that is gone has told so itself.
            thread.send(answer);
        });
        if let Some(earlier) = self.attempts.insert(key, task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Stop trying.
    pub(super) fn cancel(&mut self, place: Place, peer: usize) {
        if let Some(attempt) = self.attempts.remove(&(place, peer)) {
            attempt.abort();
        }
    }

    /// Stop trying everywhere.
    pub(super) fn cancel_all(&mut self) {
        for (_, attempt) in self.attempts.drain() {
            attempt.abort();
        }
    }
}

type Dialled = (std::os::fd::OwnedFd, nbd_proto::client::Negotiated, Vec<u8>);

async fn dial(target: &Target, deadline: Duration) -> Result<Dialled, String> {
    let connected = connect(&target.address, &target.export, deadline)
        .await
        .map_err(|error| error.to_string())?;
    fit::check(&target.leg, &connected.negotiated)?;
    Ok((connected.socket, connected.negotiated, connected.unread))
}
