//! The TLS handshake over an asynchronous stream, up to a [`Session`].

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::TlsFault;
use super::session::Session;

/// Bytes received at once: rustls can take them all, also when data comes behind the end of the handshake.
const READ_BYTES: usize = 4 << 10;
/// Bytes of one side's part of a handshake, at most: chains of certificates are a few KiB.
const HANDSHAKE_MAX: usize = 256 << 10;

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub session: Session,
    /// The certificate of the other side, verified; `None`: it showed none, or was not asked.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Be the server on `stream`.
///
/// # Errors
/// Why there is no connection; the other side has been told as far as the protocol has words for it.
pub async fn accept<S>(stream: &mut S, config: Arc<ServerConfig>) -> Result<Secured, TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    run(stream, ServerConnection::new(config)?.into()).await
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
    run(stream, ClientConnection::new(config, name)?.into()).await
}

async fn run<S>(stream: &mut S, mut tls: Connection) -> Result<Secured, TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(fault) = converse(stream, &mut tls).await {
        // The alert that says why. Nothing depends on its arrival.
        let _ = send(stream, &mut tls).await;
        return Err(fault);
    }
    let certificate = tls.peer_certificates().and_then(|chain| chain.first()).cloned();
    Ok(Secured {
        session: Session::new(tls),
        certificate,
    })
}

async fn converse<S>(stream: &mut S, tls: &mut Connection) -> Result<(), TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received_in_all = 0;
    let mut piece = vec![0; READ_BYTES];
    loop {
        send(stream, tls).await?;
        if !tls.is_handshaking() {
            return Ok(());
        }
        let received = stream.read(&mut piece).await?;
        if received == 0 {
            return Err(TlsFault::Left);
        }
        received_in_all += received;
        if received_in_all > HANDSHAKE_MAX {
            return Err(TlsFault::LongHandshake);
        }
        let mut rest = &piece[..received];
        // Behind a close_notify rustls takes nothing.
        while !rest.is_empty() && tls.read_tls(&mut rest)? > 0 {
            tls.process_new_packets()?;
        }
    }
}

/// Send what rustls has to say.
async fn send<S>(stream: &mut S, tls: &mut Connection) -> Result<(), TlsFault>
where
    S: AsyncWrite + Unpin,
{
    let mut outgoing = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut outgoing)?;
    }
    stream.write_all(&outgoing).await?;
    Ok(stream.flush().await?)
}
