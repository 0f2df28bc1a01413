//! Reaching peers: backoff, dialling, negotiating, and the check that the peer fits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use blockmirror_client::connect::{ConnectError, Server, Wishes, connect, upgrade};
use blockmirror_client::stream::Wire;
use blockmirror_client::tls::ClientTls;
use blockmirror_client::uri::Address;
use nbd_proto::client::HandshakeError;
use nbd_proto::{OptionError, PeerMisbehaved};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::backoff;
use super::fit::{self, Leg};
use super::roster::{Place, ResourcePlace, Roster};
use super::security::Keyring;
use super::stream::Question;
use crate::config::Protocol;
use crate::data::{DataSender, PeerHandover, StreamHandover, StreamHello, ToData};

/// Whom an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// One volume's leg on a plain server.
    Leg(Place, usize),
    /// The stream of a resource to a partner.
    Stream(ResourcePlace, usize),
}

/// Dials peers when a data thread asks; at most one attempt per peer at a time.
pub(super) struct Dialer {
    roster: Roster,
    threads: Vec<DataSender>,
    keyring: Arc<Keyring>,
    deadline: Duration,
    attempts: HashMap<Key, Attempt>,
}

struct Attempt {
    task: AbortHandle,
    /// Ends it while it waits for its time.
    rest: Option<oneshot::Sender<()>>,
}

/// Where one peer of one volume is.
struct Target {
    name: String,
    address: Address,
    tls: Option<ClientTls>,
    /// The export to open there.
    export: String,
    leg: Leg,
}

/// Where a partner is, and what is said to it.
struct Partner {
    name: String,
    address: Address,
    tls: Option<ClientTls>,
    protocol: Protocol,
    question: Question,
}

/// What an attempt to have a stream came to.
enum Answered {
    Stream(Wire, Vec<u8>, StreamHello),
    /// It knows nothing of streams.
    Plain,
}

impl Dialer {
    pub(super) fn new(roster: Roster, threads: Vec<DataSender>, keyring: Arc<Keyring>, deadline: Duration) -> Self {
        Self {
            roster,
            threads,
            keyring,
            deadline,
            attempts: HashMap::new(),
        }
    }

    /// Wait out the backoff of this attempt, dial a leg, and tell the data thread what came of it.
    pub(super) fn connect(&mut self, place: Place, peer: usize, attempt: u32) {
        tracing::debug!(?place, peer, attempt, "a leg is to be reached");
        let (Some(target), Some(thread)) = (self.target(place, peer), self.threads.get(place.thread)) else {
            tracing::debug!(
                ?place,
                peer,
                "a data thread asked for a peer that is not configured any more"
            );
            return;
        };
        let (thread, deadline, volume) = (thread.clone(), self.deadline, place.volume);
        let keyring = Arc::clone(&self.keyring);
        let task = tokio::spawn(async move {
            tokio::time::sleep(backoff::wait(attempt, backoff::random())).await;
            let answer = match dial(&target, &keyring, deadline).await {
                Ok((socket, negotiated, unread)) => ToData::PeerReady(PeerHandover {
                    volume,
                    peer,
                    socket,
                    negotiated,
                    unread,
                }),
                Err(error) => {
                    let (name, export) = (&target.name, &target.leg.export);
                    tracing::debug!(peer = %name, %export, attempt, %error, "an attempt to reach the peer failed");
                    ToData::PeerFailed { volume, peer, error }
                }
            };
            // A thread that is gone has told so itself.
            thread.send(answer);
        });
        let task = task.abort_handle();
        self.keep(Key::Leg(place, peer), Attempt { task, rest: None });
    }

    /// Wait out the backoff of this attempt, ask a partner for a stream, and tell the data thread what came of it.
    pub(super) fn stream(&mut self, place: ResourcePlace, peer: usize, attempt: u32) {
        let Some(thread) = self.threads.get(place.thread) else {
            return;
        };
        let (thread, deadline, resource) = (thread.clone(), self.deadline, place.resource);
        let (roster, keyring) = (self.roster.clone(), Arc::clone(&self.keyring));
        let (rest, rested) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(backoff::wait_for_partner(attempt, backoff::random())) => {}
                Ok(()) = rested => {
                    thread.send(ToData::StreamRested { resource, peer });
                    return;
                }
            }
            // Not before its time has come: volumes may have been added or removed while it waited.
            let Some(partner) = partner(&roster, place, peer) else {
                tracing::debug!(
                    ?place,
                    peer,
                    "a data thread asked for a partner that is not configured any more"
                );
                return;
            };
            let answer = match ask(&partner, &keyring, deadline).await {
                Ok(Answered::Stream(socket, unread, hello)) => ToData::StreamReady(StreamHandover {
                    resource,
                    peer,
                    socket,
                    unread,
                    hello,
                    named: partner.question.named(),
                    dialled_by_us: true,
                }),
                Ok(Answered::Plain) => ToData::StreamPlain { resource, peer },
                Err(error) => {
                    let (name, of) = (&partner.name, partner.question.resource());
                    tracing::debug!(peer = %name, resource = %of, attempt, %error, "an attempt to reach the peer failed");
                    ToData::StreamFailed { resource, peer, error }
                }
            };
            thread.send(answer);
        });
        let (task, rest) = (task.abort_handle(), Some(rest));
        self.keep(Key::Stream(place, peer), Attempt { task, rest });
    }

    /// Stop trying to reach a leg.
    pub(super) fn cancel(&mut self, place: Place, peer: usize) {
        self.forget(Key::Leg(place, peer));
    }

    /// Stop trying to reach a partner.
    pub(super) fn cancel_stream(&mut self, place: ResourcePlace, peer: usize) {
        self.forget(Key::Stream(place, peer));
    }

    /// Do not begin an attempt to reach a partner that still waits for its time.
    pub(super) fn rest_stream(&mut self, place: ResourcePlace, peer: usize) {
        let attempt = self.attempts.get_mut(&Key::Stream(place, peer));
        if let Some(rest) = attempt.and_then(|attempt| attempt.rest.take()) {
            // One that is on its way does not listen any more.
            let _ = rest.send(());
        }
    }

    /// Stop trying everywhere.
    pub(super) fn cancel_all(&mut self) {
        for (_, attempt) in self.attempts.drain() {
            attempt.task.abort();
        }
    }

    fn keep(&mut self, key: Key, attempt: Attempt) {
        if let Some(earlier) = self.attempts.insert(key, attempt) {
            earlier.task.abort();
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(attempt) = self.attempts.remove(&key) {
            attempt.task.abort();
        }
    }

    fn target(&self, place: Place, peer: usize) -> Option<Target> {
        let present = self.roster.look();
        let view = present.volume_at(place)?;
        let peer = view.resource.peer_number(peer)?.config;
        Some(Target {
            name: peer.name.clone(),
            address: peer.uri.address.clone(),
            tls: peer.tls.clone(),
            export: peer.export_for(&view.config.export).to_owned(),
            leg: Leg {
                export: view.config.export.clone(),
                size: view.size()?,
                minimum_block: view.config.minimum_block,
            },
        })
    }
}

fn partner(roster: &Roster, place: ResourcePlace, peer: usize) -> Option<Partner> {
    let present = roster.look();
    let served = present.at(place)?;
    let peer = served.peer_number(peer)?.config;
    Some(Partner {
        name: peer.name.clone(),
        address: peer.uri.address.clone(),
        tls: peer.tls.clone(),
        protocol: peer.protocol,
        question: Question::new(served, &peer.name, backoff::random()),
    })
}

type Dialled = (Wire, nbd_proto::client::Negotiated, Vec<u8>);

/// As it is reached with the certificates of now.
fn server(address: &Address, tls: Option<&ClientTls>, keyring: &Keyring) -> Result<Server, String> {
    let tls = tls.map(|settings| keyring.client(settings)).transpose();
    Ok(Server {
        address: address.clone(),
        tls: tls.map_err(|problem| problem.to_string())?,
    })
}

async fn dial(target: &Target, keyring: &Keyring, deadline: Duration) -> Result<Dialled, String> {
    let server = server(&target.address, target.tls.as_ref(), keyring)?;
    let connected = connect(&server, &target.export, &Wishes::default(), deadline)
        .await
        .map_err(|error| error.to_string())?;
    fit::check(&target.leg, &connected.negotiated)?;
    Ok((connected.socket, connected.negotiated, connected.unread))
}

async fn ask(partner: &Partner, keyring: &Keyring, deadline: Duration) -> Result<Answered, String> {
    let server = server(&partner.address, partner.tls.as_ref(), keyring)?;
    match upgrade(&server, &partner.question.encode(), deadline).await {
        Ok(upgraded) => {
            let hello = partner.question.check(&upgraded.reply)?;
            Ok(Answered::Stream(upgraded.socket, upgraded.unread, hello))
        }
        Err(error) if knows_no_streams(&error) => match partner.protocol {
            Protocol::Blockmirror => Err(format!(
                "the server at {} offers no replication stream: it is no blockmirror, or has mirror = false or no peer \
                 for resource \"{}\"; with protocol = \"auto\" it would be used as a plain NBD server",
                partner.address,
                partner.question.resource()
            )),
            Protocol::Auto | Protocol::Nbd => Ok(Answered::Plain),
        },
        Err(ConnectError::Handshake {
            source:
                HandshakeError::Refused {
                    error: OptionError::Policy,
                    message,
                    ..
                },
            ..
        }) => Err(format!("the peer refuses: {message}")),
        // A partner that dies at this moment may look the same: only who says so in order is no blockmirror.
        Err(error @ ConnectError::Handshake { .. }) if partner.protocol == Protocol::Auto => Err(format!(
            "{error}; if no blockmirror is there, set protocol = \"nbd\" for peer \"{}\"",
            partner.name
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn knows_no_streams(error: &ConnectError) -> bool {
    let ConnectError::Handshake { source, .. } = error else {
        return false;
    };
    matches!(
        source,
        HandshakeError::Refused {
            error: OptionError::Unsupported,
            ..
        } | HandshakeError::Misbehaved(PeerMisbehaved::NotFixedNewstyle(_))
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::exports::tests::roster_with;
    use super::*;

    const PLACE: ResourcePlace = ResourcePlace { thread: 0, resource: 0 };
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Nobody listens at its address.
    const NOWHERE: &str = "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd+unix://?socket=/nowhere/at/all\"";

    #[tokio::test]
    async fn an_attempt_that_waits_is_not_begun_when_it_is_not_needed_any_more() {
        let (sender, answers) = DataSender::to_nobody();
        let mut dialer = Dialer::new(
            roster_with(&["db"], "", NOWHERE),
            vec![sender],
            Arc::default(),
            DEADLINE,
        );
        dialer.stream(PLACE, 0, u32::MAX);
        dialer.rest_stream(PLACE, 0);
        dialer.rest_stream(PLACE, 0);
        let answer = wait(&answers).await;
        assert!(matches!(answer, ToData::StreamRested { resource: 0, peer: 0 }));
        // One that has been answered is not there to be rested; the next one is begun.
        dialer.rest_stream(PLACE, 0);
        dialer.stream(PLACE, 0, 0);
        let answer = wait(&answers).await;
        assert!(matches!(
            answer,
            ToData::StreamFailed {
                resource: 0,
                peer: 0,
                ..
            }
        ));
    }

    /// What becomes of a peer that says nothing but this when it is asked for a stream.
    async fn asked(answer: &'static [u8]) -> ToData {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"NBDMAGICIHAVEOPT\0\x01").await.unwrap();
            let mut option = [0; 20];
            stream.read_exact(&mut option).await.unwrap();
            assert_eq!(&option[4..16], b"IHAVEOPTbmrs");
            let length = u32::from_be_bytes([option[16], option[17], option[18], option[19]]);
            let mut hello = vec![0; length as usize];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let peer = format!(
            "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd+unix://?socket={}\"",
            path.display()
        );
        let (sender, answers) = DataSender::to_nobody();
        let mut dialer = Dialer::new(roster_with(&["db"], "", &peer), vec![sender], Arc::default(), DEADLINE);
        dialer.stream(PLACE, 0, 0);
        wait(&answers).await
    }

    #[tokio::test]
    async fn only_a_server_that_says_so_in_order_is_taken_for_a_plain_one() {
        // NBD_REP_ERR_UNSUP, to `bmrs`.
        let unsupported = b"\0\x03\xe8\x89\x04\x55\x65\xa9bmrs\x80\0\0\x01\0\0\0\0";
        assert!(matches!(asked(unsupported).await, ToData::StreamPlain { .. }));
        // NBD_REP_ERR_INVALID, and nothing at all: a partner of another release, or one that is killed.
        let invalid = b"\0\x03\xe8\x89\x04\x55\x65\xa9bmrs\x80\0\0\x03\0\0\0\0";
        for answer in [&invalid[..], b""] {
            let ToData::StreamFailed { error, .. } = asked(answer).await else {
                panic!("it is not known what is there");
            };
            assert!(error.contains("set protocol = \"nbd\" for peer \"bravo\""), "{error}");
        }
    }

    async fn wait(answers: &std::sync::mpsc::Receiver<ToData>) -> ToData {
        let polling = async {
            loop {
                if let Ok(answer) = answers.try_recv() {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, polling).await.unwrap()
    }
}
