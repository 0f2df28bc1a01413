//! The TLS handshake over an asynchronous stream, up to a [`Session`].

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::TlsFault;
use super::session::Session;

/// Bytes received at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes of one side's part of a handshake, at most: chains of certificates are a few KiB.
const HANDSHAKE_MAX: usize = 256 << 10;

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub session: Session,
    /// Data that came with the end of the handshake.
    pub early: Vec<u8>,
    /// Sealed bytes behind it; the session counts them already.
    pub sealed: Vec<u8>,
    /// The certificate of the other side, verified; `None`: it showed none, or was not asked.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Secured {
    /// A connection that goes on somewhere else, with what was received and not opened.
    pub(crate) fn resumed(session: Session, sealed: Vec<u8>) -> Self {
        Self {
            session,
            early: Vec::new(),
            sealed,
            certificate: None,
        }
    }
}

/// Be the server on `stream`.
///
/// # Errors
/// Why there is no connection; the other side has been told as far as the protocol has words for it.
pub async fn accept<S>(stream: &mut S, config: Arc<ServerConfig>) -> Result<Secured, TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut end = UnbufferedServerConnection::new(config)?;
    let mut talk = Talk::default();
    talk.run(stream, &mut end).await?;
    let certificate = leaf(end.peer_certificates());
    let (secrets, kernel) = end.dangerous_into_kernel_connection()?;
    Ok(talk.secured(Session::server(secrets, kernel)?, certificate))
}

/// Be the client on `stream`, of a server that has to be `name`.
///
/// # Errors
/// As of [`accept`].
pub async fn connect<S>(
    stream: &mut S,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Secured, TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut end = UnbufferedClientConnection::new(config, name)?;
    let mut talk = Talk::default();
    talk.run(stream, &mut end).await?;
    let certificate = leaf(end.peer_certificates());
    let (secrets, kernel) = end.dangerous_into_kernel_connection()?;
    Ok(talk.secured(Session::client(secrets, kernel)?, certificate))
}

fn leaf(chain: Option<&[CertificateDer<'static>]>) -> Option<CertificateDer<'static>> {
    chain?.first().cloned()
}

/// What is on its way.
#[derive(Default)]
struct Talk {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    early: Vec<u8>,
}

/// What the handshake wants next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Again,
    Send,
    Receive,
    Done,
}

/// One end of a handshake.
trait End {
    /// One step with what was received; bytes to be dropped from the front of it, and what comes next.
    fn step(&mut self, talk: &mut Talk) -> (usize, Result<Wish, TlsFault>);
}

macro_rules! end {
    ($connection:ty) => {
        impl End for $connection {
            fn step(&mut self, talk: &mut Talk) -> (usize, Result<Wish, TlsFault>) {
                let UnbufferedStatus { discard, state, .. } = self.process_tls_records(&mut talk.incoming);
                let wish = match state {
                    Ok(ConnectionState::EncodeTlsData(mut data)) => {
                        append(&mut talk.outgoing, |out| data.encode(out)).map(|()| Wish::Again)
                    }
                    Ok(ConnectionState::TransmitTlsData(data)) => {
                        data.done();
                        Ok(Wish::Send)
                    }
                    Ok(ConnectionState::BlockedHandshake) => Ok(Wish::Receive),
                    Ok(ConnectionState::WriteTraffic(_)) => Ok(Wish::Done),
                    Ok(ConnectionState::ReadTraffic(mut data)) => loop {
                        match data.next_record() {
                            Some(Ok(record)) => talk.early.extend_from_slice(record.payload),
                            Some(Err(error)) => break Err(error.into()),
                            None => break Ok(Wish::Again),
                        }
                    },
                    Ok(_) => Err(TlsFault::Cut),
                    Err(error) => Err(error.into()),
                };
                (discard, wish)
            }
        }
    };
}

end!(UnbufferedServerConnection);
end!(UnbufferedClientConnection);

fn append(out: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), TlsFault> {
    let at = out.len();
    let mut room = 0;
    loop {
        out.resize(at + room, 0);
        match encode(&mut out[at..]) {
            Ok(written) => {
                out.truncate(at + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size))
                if room < size.required_size && size.required_size <= HANDSHAKE_MAX =>
            {
                room = size.required_size;
            }
            Err(_) => return Err(TlsFault::LongHandshake),
        }
    }
}

impl Talk {
    async fn run<S, E>(&mut self, stream: &mut S, end: &mut E) -> Result<(), TlsFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        E: End,
    {
        let outcome = self.converse(stream, end).await;
        if outcome.is_err() {
            self.say_why(stream, end).await;
        }
        outcome
    }

    async fn converse<S, E>(&mut self, stream: &mut S, end: &mut E) -> Result<(), TlsFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        E: End,
    {
        let mut received_in_all = 0;
        loop {
            let wish = self.step(end)?;
            if wish != Wish::Again && !self.outgoing.is_empty() {
                stream.write_all(&self.outgoing).await?;
                self.outgoing.clear();
            }
            match wish {
                Wish::Again | Wish::Send => {}
                Wish::Done => return Ok(()),
                Wish::Receive => {
                    self.incoming.reserve(READ_BYTES);
                    let received = stream.read_buf(&mut self.incoming).await?;
                    received_in_all += received;
                    if received == 0 {
                        return Err(TlsFault::Left);
                    }
                    if received_in_all > HANDSHAKE_MAX {
                        return Err(TlsFault::LongHandshake);
                    }
                }
            }
        }
    }

    /// The alert that says why. Nothing depends on its arrival.
    async fn say_why<S, E>(&mut self, stream: &mut S, end: &mut E)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        E: End,
    {
        while let Ok(Wish::Again) = self.step(end) {}
        let _ = stream.write_all(&self.outgoing).await;
        let _ = stream.flush().await;
    }

    fn step<E: End>(&mut self, end: &mut E) -> Result<Wish, TlsFault> {
        let (discard, wish) = end.step(self);
        self.incoming.drain(..discard.min(self.incoming.len()));
        wish
    }

    fn secured(self, mut session: Session, certificate: Option<CertificateDer<'static>>) -> Secured {
        session.received(self.incoming.len());
        Secured {
            session,
            early: self.early,
            sealed: self.incoming,
            certificate,
        }
    }
}
