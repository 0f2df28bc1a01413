//! The server's end of the NBD handshake over a tokio stream.

use std::io;
use std::time::Duration;

use blockmirror_client::tls::TlsFault;
use nbd_proto::PeerMisbehaved;
use nbd_proto::server::{Exports, Handshake, Mask, Negotiated, Step, TlsMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes received at a time; what a client sends early beyond the handshake is at most this.
const READ_BYTES: usize = 4096;
/// Bytes a client says before its first option.
const CLIENT_FLAGS_BYTES: usize = 4;

/// Why a client does not get to the transmission phase.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeEnd {
    #[error("the client ended the handshake")]
    Aborted,
    #[error("the client closed the connection during the handshake")]
    Closed,
    #[error("the client did not finish the handshake within {0:?}")]
    TooSlow(Duration),
    #[error("plaintext: the client did not ask for TLS, which this listener requires")]
    NoTls,
    #[error("the client sent bytes behind STARTTLS before TLS had begun: somebody may have put them there")]
    BytesBehindStartTls,
    #[error("no TLS: {0}")]
    Tls(#[from] TlsFault),
    #[error("{0}")]
    Misbehaved(#[from] PeerMisbehaved),
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] io::Error),
}

/// What a client gets.
#[derive(Debug)]
pub(super) enum Granted {
    /// The transmission phase of an export.
    Export(Negotiated),
    /// A replication stream; the exports know whose.
    Stream,
}

/// All of it within `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    whole: impl Future<Output = Result<T, HandshakeEnd>>,
) -> Result<T, HandshakeEnd> {
    let outcome = tokio::time::timeout(deadline, whole).await;
    outcome.unwrap_or(Err(HandshakeEnd::TooSlow(deadline)))
}

/// The server's side of what is said before the transmission phase.
pub(super) struct Conversation {
    handshake: Handshake,
    tls: TlsMode,
    is_secured: bool,
    /// Bytes of what the client has said.
    heard: usize,
    input: Vec<u8>,
}

/// What a stretch of it came to.
#[derive(Debug)]
pub(super) enum Agreed {
    /// It is over. The bytes that came behind it.
    Granted(Granted, Vec<u8>),
    /// The TLS handshake is next; then it goes on inside.
    StartTls,
}

impl Conversation {
    pub(super) fn new(tls: TlsMode, mask: Mask) -> Self {
        Self {
            handshake: Handshake::new(tls).masked(mask),
            tls,
            is_secured: false,
            heard: 0,
            input: vec![0; READ_BYTES],
        }
    }

    /// The first words.
    pub(super) async fn greet<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Result<(), HandshakeEnd> {
        Ok(stream.write_all(&self.handshake.greeting()).await?)
    }

    /// From here on everything is said inside TLS.
    pub(super) fn secured(&mut self) {
        self.handshake.secured();
        self.is_secured = true;
    }

    /// The client has left: `otherwise`, unless it has asked for things that are given inside TLS only.
    fn left(&self, otherwise: HandshakeEnd) -> HandshakeEnd {
        if self.tls == TlsMode::Require && !self.is_secured && self.heard > CLIENT_FLAGS_BYTES {
            HandshakeEnd::NoTls
        } else {
            otherwise
        }
    }

    /// Answer until something is agreed.
    pub(super) async fn go_on<S>(
        &mut self,
        stream: &mut S,
        exports: &(dyn Exports + Sync),
    ) -> Result<Agreed, HandshakeEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut output = Vec::new();
        loop {
            let received = stream.read(&mut self.input).await?;
            if received == 0 {
                return Err(self.left(HandshakeEnd::Closed));
            }
            self.heard = self.heard.saturating_add(received);
            let mut rest = &self.input[..received];
            while !rest.is_empty() {
                let (consumed, step) = self.handshake.handle(rest, exports, &mut output);
                rest = rest.get(consumed..).unwrap_or_default();
                if !output.is_empty() {
                    stream.write_all(&output).await?;
                    stream.flush().await?;
                    output.clear();
                }
                match step {
                    Step::NeedMore => {}
                    Step::Ready(negotiated) => return Ok(Agreed::Granted(Granted::Export(negotiated), rest.to_vec())),
                    Step::Upgraded { .. } => return Ok(Agreed::Granted(Granted::Stream, rest.to_vec())),
                    // Whoever put them there was not inside TLS: they could be anybody's.
                    Step::StartTls if !rest.is_empty() => return Err(HandshakeEnd::BytesBehindStartTls),
                    Step::StartTls => return Ok(Agreed::StartTls),
                    Step::Aborted => return Err(self.left(HandshakeEnd::Aborted)),
                    Step::Failed(fault) => return Err(fault.into()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::exports::tests::roster;
    use super::*;
    use nbd_proto::client;
    use tokio::io::duplex;

    const LONG: Duration = Duration::from_secs(60);

    async fn negotiate<S>(
        stream: &mut S,
        exports: &(dyn Exports + Sync),
        mask: Mask,
        deadline: Duration,
    ) -> Result<(Granted, Vec<u8>), HandshakeEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let whole = async {
            let mut conversation = Conversation::new(TlsMode::Off, mask);
            conversation.greet(stream).await?;
            match conversation.go_on(stream, exports).await? {
                Agreed::Granted(granted, unread) => Ok((granted, unread)),
                Agreed::StartTls => panic!("TLS is off"),
            }
        };
        within(deadline, whole).await
    }

    /// The client's end of a handshake, then `early` at once.
    async fn connect<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, export: &str, early: &[u8]) -> bool {
        let mut handshake = client::Handshake::new(client::Goal::Go, export, nbd_proto::ReplyStyle::Structured);
        let mut input = Vec::new();
        loop {
            let mut output = Vec::new();
            let mut bytes = [0; 7];
            let received = stream.read(&mut bytes).await.unwrap();
            if received == 0 {
                return false;
            }
            input.extend_from_slice(&bytes[..received]);
            let Ok((consumed, step)) = handshake.handle(&input, &mut output) else {
                return false;
            };
            input.drain(..consumed);
            stream.write_all(&output).await.unwrap();
            if let client::Step::Ready(_) = step {
                stream.write_all(early).await.unwrap();
                return true;
            }
        }
    }

    #[tokio::test]
    async fn a_client_gets_its_export() {
        let (mut ours, mut theirs) = duplex(64);
        let exports = roster(&["db", "log"]);
        let (served, connected) = tokio::join!(
            negotiate(&mut ours, &exports, Mask::empty(), LONG),
            connect(&mut theirs, "log", b"")
        );
        assert!(connected);
        let (Granted::Export(negotiated), unread) = served.unwrap() else {
            panic!("no stream was asked for");
        };
        assert_eq!((negotiated.export.name.as_str(), unread.len()), ("log", 0));
        assert!(negotiated.replies.has_chunks());
    }

    #[tokio::test]
    async fn an_unknown_export_is_refused() {
        let (mut ours, mut theirs) = duplex(4096);
        let exports = roster(&["db"]);
        let client = async {
            let connected = connect(&mut theirs, "nope", b"").await;
            drop(theirs);
            connected
        };
        let (served, connected) = tokio::join!(negotiate(&mut ours, &exports, Mask::empty(), LONG), client);
        assert!(!connected);
        assert!(
            matches!(served, Err(HandshakeEnd::Aborted | HandshakeEnd::Closed)),
            "{served:?}"
        );
    }

    #[tokio::test]
    async fn bytes_behind_the_handshake_are_kept() {
        let (mut ours, mut theirs) = duplex(4096);
        let exports = roster(&["db"]);
        // What connect() sends, and the first request, in one piece.
        let mut sent = Vec::new();
        sent.extend(3_u32.to_be_bytes());
        sent.extend(0x4948_4156_454f_5054_u64.to_be_bytes());
        sent.extend(1_u32.to_be_bytes());
        sent.extend(2_u32.to_be_bytes());
        sent.extend(b"db");
        sent.extend(b"request");
        theirs.write_all(&sent).await.unwrap();
        let (Granted::Export(negotiated), unread) = negotiate(&mut ours, &exports, Mask::empty(), LONG).await.unwrap()
        else {
            panic!("no stream was asked for");
        };
        assert_eq!((negotiated.export.name.as_str(), &unread[..]), ("db", &b"request"[..]));
    }

    #[tokio::test]
    async fn garbage_is_the_clients_fault() {
        let (mut ours, mut theirs) = duplex(4096);
        theirs.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let ended = negotiate(&mut ours, &roster(&["db"]), Mask::empty(), LONG).await;
        assert!(matches!(ended, Err(HandshakeEnd::Misbehaved(_))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_silent_client_is_too_slow() {
        let (mut ours, _theirs) = duplex(4096);
        let ended = negotiate(&mut ours, &roster(&["db"]), Mask::empty(), Duration::from_millis(5)).await;
        assert!(matches!(ended, Err(HandshakeEnd::TooSlow(_))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_noticed() {
        let (mut ours, theirs) = duplex(4096);
        drop(theirs);
        let ended = negotiate(&mut ours, &roster(&["db"]), Mask::empty(), LONG).await;
        assert!(
            matches!(ended, Err(HandshakeEnd::Closed | HandshakeEnd::Io(_))),
            "{ended:?}"
        );
    }
}
