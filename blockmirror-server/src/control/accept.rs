//! Accepting clients: limits first, then the handshake, then the handover to the data thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nbd_proto::server::Negotiated;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::exports::ExportTable;
use super::handshake::{HandshakeEnd, negotiate};
use super::listener::{Listener, Stream};
use super::shutdown::Shutdown;
use crate::data::{ClientHandover, DataSender, ToData};

/// Rest after accept() failed for want of files or memory: it would fail again at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What every accepting task shares.
pub(super) struct Acceptor {
    exports: ExportTable,
    threads: Vec<DataSender>,
    /// Connections the daemon may still have.
    slots: Arc<Semaphore>,
    handshake_timeout: Duration,
    /// The limit has been told in the log; not again until it was left.
    full_told: AtomicBool,
}

/// A connection's places under the limits; dropped when it ends.
struct Permit {
    _daemon: OwnedSemaphorePermit,
    _export: OwnedSemaphorePermit,
}

impl Acceptor {
    pub(super) fn new(
        exports: ExportTable,
        threads: Vec<DataSender>,
        max_connections: usize,
        handshake_timeout: Duration,
    ) -> Self {
        Self {
            exports,
            threads,
            slots: Arc::new(Semaphore::new(max_connections)),
            handshake_timeout,
            full_told: AtomicBool::new(false),
        }
    }

    /// Accept clients of `listener` until the daemon stops; handshakes under way are then dropped.
    pub(super) async fn run(self: Arc<Self>, listener: Listener, mut shutdown: Shutdown) {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = handshakes.join_next() => continue,
                () = shutdown.graceful() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    if let Some(slot) = self.slot(&address) {
                        handshakes.spawn(Arc::clone(&self).serve(stream, address, slot));
                    }
                }
                Err(error) => {
                    tracing::warn!(listener = %listener.address(), %error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn slot(&self, address: &str) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.full_told.store(false, Ordering::Relaxed);
            return Some(slot);
        }
        if !self.full_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(client = %address, "refused: the daemon has max_connections clients already");
        }
        None
    }

    async fn serve(self: Arc<Self>, stream: Stream, address: String, slot: OwnedSemaphorePermit) {
        let exports = &self.exports;
        let (stream, outcome) = match stream {
            Stream::Tcp(mut stream) => {
                let outcome = negotiate(&mut stream, exports, self.handshake_timeout).await;
                (Stream::Tcp(stream), outcome)
            }
            Stream::Unix(mut stream) => {
                let outcome = negotiate(&mut stream, exports, self.handshake_timeout).await;
                (Stream::Unix(stream), outcome)
            }
        };
        match outcome {
            Ok((negotiated, unread)) => {
                if let Err(error) = self.hand_over(stream, &address, slot, negotiated, unread) {
                    tracing::warn!(client = %address, %error, "a client could not be served");
                }
            }
            Err(HandshakeEnd::Aborted | HandshakeEnd::Closed) => {
                tracing::debug!(client = %address, "the client left during the handshake");
            }
            Err(reason) => tracing::info!(client = %address, %reason, "the handshake failed"),
        }
    }

    fn hand_over(
        &self,
        stream: Stream,
        address: &str,
        daemon: OwnedSemaphorePermit,
        negotiated: Negotiated,
        unread: Vec<u8>,
    ) -> io::Result<()> {
        let export = negotiated.export.name.clone();
        let gone = || io::Error::other(format!("export \"{export}\" is not served any more"));
        let entry = self.exports.entry(&export).ok_or_else(gone)?;
        let Ok(slot) = Arc::clone(&entry.slots).try_acquire_owned() else {
            let text = format!("export \"{export}\" has max_connections_per_export clients already");
            return Err(io::Error::other(text));
        };
        let handover = ClientHandover {
            volume: entry.place.volume,
            socket: stream.into_socket()?,
            negotiated,
            unread,
            address: address.to_owned(),
            permit: Box::new(Permit {
                _daemon: daemon,
                _export: slot,
            }),
        };
        let thread = self.threads.get(entry.place.thread).ok_or_else(gone)?;
        if thread.send(ToData::Client(handover)) {
            Ok(())
        } else {
            Err(gone())
        }
    }
}
