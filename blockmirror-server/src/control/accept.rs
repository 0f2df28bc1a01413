//! Accepting clients: limits first, then the handshake, then the handover to the data thread.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blockmirror_client::stream::{PlainStream, Stream, Wire};
use blockmirror_client::tls::{self, TlsFault, TlsStream};
use nbd_proto::server::{Mask, Negotiated};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::admission::{Admission, ClientPlace};
use super::client::ClientIdentity;
use super::clients::{self, Clients};
use super::door::Door;
use super::handshake::{Agreed, Conversation, Granted, HandshakeEnd, within};
use super::listener::Listener;
use super::roster::{Place, Roster};
use super::security::Security;
use super::shutdown::Shutdown;
use super::stream::Accepted;
use crate::config::Limits;
use crate::data::{ClientHandover, DataSender, StreamHandover, ToData};

/// Rest after accept() failed for want of files or memory: it would fail again at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Refusals told in the log are this far apart.
const REFUSED_TELL_REST: Duration = Duration::from_secs(10);

/// What every accepting task shares.
pub(super) struct Acceptor {
    roster: Roster,
    threads: Vec<DataSender>,
    /// Connections the daemon may still have.
    slots: Arc<Semaphore>,
    admission: Admission,
    clients: Clients,
    handshake_timeout: Duration,
    /// Features kept from clients.
    mask: Mask,
    /// When a refusal was last told in the log.
    refused_told: Mutex<Option<Instant>>,
    /// A descriptor in reserve.
    spare: Mutex<Option<File>>,
}

/// A connection's place in the daemon; dropped when it ends.
struct Slot {
    place: ClientPlace,
    /// How long the handshake has to wait.
    wait: Duration,
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

fn spare_file() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl Acceptor {
    pub(super) fn new(roster: Roster, threads: Vec<DataSender>, limits: &Limits, mask: Mask) -> Self {
        Self {
            roster,
            threads,
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            admission: Admission::new(limits),
            clients: Clients::default(),
            handshake_timeout: limits.handshake_timeout,
            mask,
            refused_told: Mutex::new(None),
            spare: Mutex::new(spare_file()),
        }
    }

    /// Those that are served.
    pub(super) fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// Serve the only client there is.
    pub(super) async fn run_only(self: Arc<Self>, stream: PlainStream, left: Box<dyn Send>, mut shutdown: Shutdown) {
        let client = ClientIdentity::nobody(&"standard input".into());
        let Some(mut slot) = self.slot(&client) else { return };
        slot._left = Some(left);
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
                        let security = listener.security().clone();
                        handshakes.spawn(Arc::clone(&self).serve(stream, security, client, slot));
                    }
                }
                Err(error) => {
                    if is_out_of_files(&error) {
                        self.tell_refused(&ClientIdentity::nobody(listener.name()), &error.to_string());
                        self.turn_away(&listener).await;
                        continue;
                    }
                    tracing::warn!(listener = %listener.name(), %error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn slot(&self, client: &ClientIdentity) -> Option<Slot> {
        match self.try_slot(client) {
            Ok(slot) => Some(slot),
            Err(reason) => {
                self.tell_refused(client, reason);
                None
            }
        }
    }

    fn tell_refused(&self, client: &ClientIdentity, reason: &str) {
        let mut told = self.refused_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > REFUSED_TELL_REST) {
            *told = Some(Instant::now());
            tracing::warn!(%client, reason, "a client is refused; for a while, others that are will not be told");
        }
    }

    /// No descriptor is left. A client is let in with the one in reserve and shown out, rather than left waiting.
    async fn turn_away(&self, listener: &Listener) {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(spare);
        // Whatever comes of it, there is nothing more to be done.
        let _ = tokio::time::timeout(ACCEPT_REST, listener.accept()).await;
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = spare_file();
    }

    fn try_slot(&self, client: &ClientIdentity) -> Result<Slot, &'static str> {
        let (place, wait) = self.admission.admit(client, Instant::now())?;
        let daemon = Arc::clone(&self.slots).try_acquire_owned();
        Ok(Slot {
            place,
            wait,
            _daemon: daemon.map_err(|_| "the daemon has max_connections clients already")?,
            _left: None,
        })
    }

    async fn serve(
        self: Arc<Self>,
        stream: PlainStream,
        security: Security,
        mut client: ClientIdentity,
        mut slot: Slot,
    ) {
        if !slot.wait.is_zero() {
            tracing::debug!(%client, wait = ?slot.wait, "the client comes too fast");
            tokio::time::sleep(slot.wait).await;
        }
        let talk = self.negotiate(stream, &security, &mut client);
        let outcome = within(self.handshake_timeout, talk).await;
        slot.place.negotiated();
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
        let mut stream = Stream::Tls(Box::new(TlsStream::new(stream, secured.session)));
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
        let presence = self.clients.enter(&export, clients::describe(client, &socket));
        let handover = ClientHandover {
            volume: place.volume,
            socket,
            negotiated,
            unread,
            address: client.to_string(),
            permit: Box::new((slot, export_slot, presence)),
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
