//! The TLS handshake over an asynchronous stream, up to a [`Session`].

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::TlsFault;
use super::machine::Machine;
use super::session::Session;

/// Bytes received at once: also of data, when it comes behind the end of the handshake.
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
    let may_leave = config.enable_secret_extraction;
    run(stream, Session::new(Machine::server(config)?, may_leave)).await
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
    let may_leave = config.enable_secret_extraction;
    run(stream, Session::new(Machine::client(config, name)?, may_leave)).await
}

async fn run<S>(stream: &mut S, mut session: Session) -> Result<Secured, TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(fault) = converse(stream, &mut session).await {
        // The alert that says why. Nothing depends on its arrival.
        let _ = send(stream, &mut session).await;
        return Err(fault);
    }
    let certificate = session.certificate().cloned();
    Ok(Secured { session, certificate })
}

async fn converse<S>(stream: &mut S, session: &mut Session) -> Result<(), TlsFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received_in_all = 0;
    let mut piece = vec![0; READ_BYTES];
    session.shake_hands(&mut [])?;
    loop {
        send(stream, session).await?;
        if !session.is_handshaking() {
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
        session.shake_hands(&mut piece[..received])?;
    }
}

/// Send what rustls has to say.
async fn send<S>(stream: &mut S, session: &mut Session) -> Result<(), TlsFault>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(&session.outgoing()).await?;
    Ok(stream.flush().await?)
}
