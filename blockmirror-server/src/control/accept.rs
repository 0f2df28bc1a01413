//! Accepting clients: limits first, then the handshake, then the handover to the data thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockmirror_client::stream::{PlainStream, Stream, Wire};
use blockmirror_client::tls::{self, TlsFault, TlsStream};
use nbd_proto::server::{Mask, Negotiated};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::client::{ClientAddress, ClientIdentity};
use super::door::Door;
use super::handshake::{Agreed, Conversation, Granted, HandshakeEnd, within};
use super::listener::Listener;
use super::roster::{Place, Roster};
use super::security::Security;
use super::shutdown::Shutdown;
use super::stream::Accepted;
use crate::data::{ClientHandover, DataSender, StreamHandover, ToData};

/// Rest after accept() failed for want of files or memory: it would fail again at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What every accepting task shares.
pub(super) struct Acceptor {
    roster: Roster,
    threads: Vec<DataSender>,
    /// Connections the daemon may still have.
    slots: Arc<Semaphore>,
    handshake_timeout: Duration,
    /// Features kept from clients.
    mask: Mask,
    /// The limit has been told in the log; not again until it was left.
    full_told: AtomicBool,
}

/// A connection's place in the daemon; dropped when it ends.
struct Slot {
    _daemon: OwnedSemaphorePermit,
    /// Of the only client: who waits for its end.
    _left: Option<Box<dyn Send>>,
}

/// What a client gets, and where.
struct Agreement {
    granted: Granted,
    /// With [`Granted::Stream`].
    accepted: Option<Accepted>,
    wire: Wire,
    unread: Vec<u8>,
}

impl Agreement {
    fn new(stream: Stream, door: Door<'_>, granted: Granted, mut unread: Vec<u8>) -> Result<Self, HandshakeEnd> {
        let (wire, more) = stream.into_wire()?;
        unread.extend(more);
        Ok(Self {
            granted,
            accepted: door.into_accepted(),
            wire,
            unread,
        })
    }
}

impl Acceptor {
    pub(super) fn new(
        roster: Roster,
        threads: Vec<DataSender>,
        max_connections: usize,
        handshake_timeout: Duration,
        mask: Mask,
    ) -> Self {
        Self {
            roster,
            threads,
            slots: Arc::new(Semaphore::new(max_connections)),
            handshake_timeout,
            mask,
            full_told: AtomicBool::new(false),
        }
    }

    /// Serve the only client there is.
    pub(super) async fn run_only(self: Arc<Self>, stream: PlainStream, left: Box<dyn Send>, mut shutdown: Shutdown) {
        let client = ClientIdentity {
            listener: "standard input".into(),
            address: ClientAddress::Given,
            certificate: None,
        };
        let Some(slot) = self.slot(&client) else { return };
        let slot = Slot {
            _daemon: slot,
            _left: Some(left),
        };
        tokio::select! {
            () = Arc::clone(&self).serve(stream, Security::off(), client, slot) => {}
            () = shutdown.graceful() => {}
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
                Ok(stream) => {
                    let client = ClientIdentity::of(&stream, listener.name());
                    if let Some(slot) = self.slot(&client) {
                        let slot = Slot {
                            _daemon: slot,
                            _left: None,
                        };
                        let security = listener.security().clone();
                        handshakes.spawn(Arc::clone(&self).serve(stream, security, client, slot));
                    }
                }
                Err(error) => {
                    tracing::warn!(listener = %listener.name(), %error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn slot(&self, client: &ClientIdentity) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.full_told.store(false, Ordering::Relaxed);
            return Some(slot);
        }
        if !self.full_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%client, "refused: the daemon has max_connections clients already");
        }
        None
    }

    async fn serve(self: Arc<Self>, stream: PlainStream, security: Security, mut client: ClientIdentity, slot: Slot) {
        let talk = self.negotiate(stream, &security, &mut client);
        let outcome = within(self.handshake_timeout, talk).await;
        match outcome {
            Ok(Agreement {
                granted: Granted::Export(negotiated),
                wire,
                unread,
                ..
            }) => {
                if let Err(error) = self.hand_over(wire, &client, slot, negotiated, unread) {
                    tracing::warn!(%client, %error, "a client could not be served");
                }
            }
            // A partner does not take the place of a client.
            Ok(Agreement {
                accepted, wire, unread, ..
            }) => {
                if let Err(error) = self.hand_over_stream(wire, accepted, unread) {
                    tracing::warn!(%client, %error, "a replication stream could not be taken over");
                }
            }
            Err(HandshakeEnd::Aborted | HandshakeEnd::Closed) => {
                tracing::debug!(%client, "the client left during the handshake");
            }
            Err(reason) => tracing::info!(%client, %reason, "the handshake failed"),
        }
    }

    /// Everything before the transmission phase. Who the client is may turn out within it.
    async fn negotiate(
        &self,
        mut stream: PlainStream,
        security: &Security,
        client: &mut ClientIdentity,
    ) -> Result<Agreement, HandshakeEnd> {
        let mut conversation = Conversation::new(security.mode(), self.mask);
        conversation.greet(&mut stream).await?;
        let door = Door::new(&self.roster, client);
        if let Agreed::Granted(granted, unread) = conversation.go_on(&mut stream, &door).await? {
            return Agreement::new(Stream::Plain(stream), door, granted, unread);
        }
        drop(door);
        self.negotiate_inside(stream, security, client, conversation).await
    }

    async fn negotiate_inside(
        &self,
        mut stream: PlainStream,
        security: &Security,
        client: &mut ClientIdentity,
        mut conversation: Conversation,
    ) -> Result<Agreement, HandshakeEnd> {
        let config = security.present().ok_or(TlsFault::NotTls)?;
        let config = config.map_err(|problem| io::Error::other(problem.to_string()))?;
        let secured = tls::accept(&mut stream, config).await?;
        client.certificate = secured.certificate.as_ref().map(|certificate| tls::names(certificate));
        tracing::debug!(%client, tls = secured.session.describe(), "the client is inside TLS");
        let mut stream = Stream::Tls(Box::new(TlsStream::new(stream, secured)));
        conversation.secured();
        let door = Door::new(&self.roster, client);
        match conversation.go_on(&mut stream, &door).await? {
            Agreed::Granted(granted, unread) => Agreement::new(stream, door, granted, unread),
            // nbd-proto answers a second STARTTLS itself.
            Agreed::StartTls => Err(TlsFault::NotTls.into()),
        }
    }

    fn hand_over(
        &self,
        socket: Wire,
        client: &ClientIdentity,
        slot: Slot,
        negotiated: Negotiated,
        unread: Vec<u8>,
    ) -> io::Result<()> {
        let export = negotiated.export.name.clone();
        let gone = || io::Error::other(format!("export \"{export}\" is not served any more"));
        let served = self.served(&export).ok_or_else(gone)?;
        let (place, slots) = served;
        let Ok(export_slot) = slots.try_acquire_owned() else {
            let text = format!("export \"{export}\" has max_connections_per_export clients already");
            return Err(io::Error::other(text));
        };
        let handover = ClientHandover {
            volume: place.volume,
            socket,
            negotiated,
            unread,
            address: client.to_string(),
            permit: Box::new((slot, export_slot)),
        };
        let thread = self.threads.get(place.thread).ok_or_else(gone)?;
        if thread.send(ToData::Client(handover)) {
            Ok(())
        } else {
            Err(gone())
        }
    }
    /// Where a volume or a branch is, and the connections it may still have.
    fn served(&self, export: &str) -> Option<(Place, Arc<Semaphore>)> {
        let present = self.roster.look();
        if let Some(view) = present.volume(export) {
            return Some((view.served.place, Arc::clone(&view.served.slots)));
        }
        let branch = present.branch(export)?;
        Some((branch.place, Arc::clone(&branch.slots)))
    }

    fn hand_over_stream(&self, socket: Wire, accepted: Option<Accepted>, unread: Vec<u8>) -> io::Result<()> {
        let accepted = accepted.ok_or_else(|| io::Error::other("nobody knows whose it is"))?;
        let handover = StreamHandover {
            resource: accepted.place.resource,
            peer: accepted.peer,
            socket,
            unread,
            hello: accepted.hello,
            named: accepted.named,
            dialled_by_us: false,
        };
        let thread = self.threads.get(accepted.place.thread);
        if thread.is_some_and(|thread| thread.send(ToData::StreamReady(handover))) {
            return Ok(());
        }
        Err(io::Error::other("its data thread is gone"))
    }
}
