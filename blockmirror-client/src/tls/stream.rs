//! TLS over a tokio stream: [`TlsStream`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::Secured;
use super::session::{INTAKE_MIN, Read, Session};

/// Bytes of memory for what was received.
const INTAKE_BYTES: usize = 64 << 10;
/// Bytes of data sealed at once.
const SEAL_BYTES: usize = 64 << 10;

const _: () = assert!(INTAKE_BYTES >= INTAKE_MIN, "a record fits");

/// A stream with TLS.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: S,
    session: Session,
    /// Data that came with the handshake, from `early_at`.
    early: Vec<u8>,
    early_at: usize,
    intake: Vec<u8>,
    /// Sealed bytes to be sent, from `sent`.
    outgoing: Vec<u8>,
    sent: usize,
}

/// A TLS stream taken apart.
#[derive(Debug)]
pub struct Parts<S> {
    /// What is below.
    pub inner: S,
    /// The connection.
    pub session: Session,
    /// Data received and not read.
    pub unread: Vec<u8>,
    /// Sealed bytes received behind it.
    pub sealed: Vec<u8>,
}

impl<S> TlsStream<S> {
    /// TLS over `inner`, on which the handshake has been made.
    pub fn new(inner: S, secured: Secured) -> Self {
        let Secured {
            session,
            early,
            sealed: mut intake,
            ..
        } = secured;
        intake.resize(INTAKE_BYTES.max(intake.len()), 0);
        Self {
            inner,
            session,
            early,
            early_at: 0,
            intake,
            outgoing: Vec::new(),
            sent: 0,
        }
    }

    /// Take it apart. Everything written has to have been flushed.
    ///
    /// # Errors
    /// What was received is damaged.
    pub fn into_parts(mut self) -> io::Result<Parts<S>> {
        let mut unread = self.early.split_off(self.early_at);
        let mut piece = [0; 4096];
        while let Read::Bytes(count) = self.session.read(&mut self.intake, &mut piece)? {
            unread.extend_from_slice(&piece[..count]);
        }
        let sealed = self.session.held(&self.intake).to_vec();
        self.session.moved();
        Ok(Parts {
            inner: self.inner,
            session: self.session,
            unread,
            sealed,
        })
    }

    /// The version and the cipher, in words.
    pub fn describe(&self) -> String {
        self.session.describe()
    }
}

impl<S: AsyncWrite + Unpin> TlsStream<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, &self.outgoing[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early_at < this.early.len() {
            let early = &this.early[this.early_at..];
            let count = early.len().min(into.remaining());
            into.put_slice(&early[..count]);
            this.early_at += count;
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.session.read(&mut this.intake, into.initialize_unfilled())? {
                Read::Bytes(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Read::Closed => return Poll::Ready(Ok(())),
                Read::Starved => {}
            }
            let at = this.session.make_room(&mut this.intake);
            let mut room = ReadBuf::new(&mut this.intake[at..]);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut room))?;
            match room.filled().len() {
                0 => return Poll::Ready(this.session.ended().map_err(Into::into)),
                count => this.session.received(count),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        let mut rest = &bytes[..bytes.len().min(SEAL_BYTES)];
        let length = rest.len();
        this.outgoing.resize(this.session.sealed_bytes(length), 0);
        let written = this.session.seal(length, &mut this.outgoing, |piece| {
            let (now, later) = rest.split_at(piece.len());
            piece.copy_from_slice(now);
            rest = later;
        })?;
        this.outgoing.truncate(written);
        // What cannot be sent now is sent before the next bytes, or by a flush.
        if let Poll::Ready(Err(error)) = this.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        this.outgoing.resize(this.session.sealed_bytes(0), 0);
        let written = this.session.seal_close(&mut this.outgoing)?;
        this.outgoing.truncate(written);
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}
