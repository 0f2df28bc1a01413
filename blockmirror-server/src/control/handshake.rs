//! The server's end of the NBD handshake over a tokio stream.

use std::io;
use std::time::Duration;

use nbd_proto::PeerMisbehaved;
use nbd_proto::server::{Exports, Handshake, Mask, Negotiated, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes received at a time; what a client sends early beyond the handshake is at most this.
const READ_BYTES: usize = 4096;

/// Why a client does not get to the transmission phase.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeEnd {
    #[error("the client ended the handshake")]
    Aborted,
    #[error("the client closed the connection during the handshake")]
    Closed,
    #[error("the client did not finish the handshake within {0:?}")]
    TooSlow(Duration),
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

/// Greet the client and negotiate, all within `deadline`. Returns what was agreed and the bytes that came behind it.
pub(super) async fn negotiate<S>(
    stream: &mut S,
    exports: &(dyn Exports + Sync),
    mask: Mask,
    deadline: Duration,
) -> Result<(Granted, Vec<u8>), HandshakeEnd>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::time::timeout(deadline, converse(stream, exports, mask))
        .await
        .unwrap_or(Err(HandshakeEnd::TooSlow(deadline)))
}

async fn converse<S>(
    stream: &mut S,
    exports: &(dyn Exports + Sync),
    mask: Mask,
) -> Result<(Granted, Vec<u8>), HandshakeEnd>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = Handshake::default().masked(mask);
    stream.write_all(&handshake.greeting()).await?;
    let mut input = vec![0; READ_BYTES];
    let mut output = Vec::new();
    loop {
        let received = stream.read(&mut input).await?;
        if received == 0 {
            return Err(HandshakeEnd::Closed);
        }
        let mut rest = &input[..received];
        while !rest.is_empty() {
            let (consumed, step) = handshake.handle(rest, exports, &mut output);
            rest = rest.get(consumed..).unwrap_or_default();
            if !output.is_empty() {
                stream.write_all(&output).await?;
                output.clear();
            }
            match step {
                Step::NeedMore => {}
                Step::Ready(negotiated) => return Ok((Granted::Export(negotiated), rest.to_vec())),
                Step::Upgraded { .. } => return Ok((Granted::Stream, rest.to_vec())),
                Step::StartTls => return Err(io::Error::other("TLS was agreed on where it is off").into()),
                Step::Aborted => return Err(HandshakeEnd::Aborted),
                Step::Failed(fault) => return Err(fault.into()),
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
