//! TLS over a tokio stream: [`TlsStream`].

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::{Read, Sealed, Session};

/// Bytes of memory for what was received.
const INTAKE_BYTES: usize = 64 << 10;
/// Bytes of data sealed at once.
const SEAL_BYTES: usize = 64 << 10;

/// A stream with TLS.
#[derive(Debug)]
pub struct TlsStream<S> {
    inner: S,
    session: Session,
    /// What was received, until the session has taken it.
    intake: Vec<u8>,
    /// Memory to seal in.
    outgoing: Vec<u8>,
    /// What of it has not been sent.
    unsent: Range<usize>,
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
}

impl<S> TlsStream<S> {
    /// TLS over `inner`, on which the handshake has been made.
    pub fn new(inner: S, session: Session) -> Self {
        Self {
            inner,
            session,
            intake: vec![0; INTAKE_BYTES],
            outgoing: Vec::new(),
            unsent: 0..0,
        }
    }

    /// Take it apart. Everything written has to have been flushed.
    ///
    /// # Errors
    /// What was received is damaged.
    pub fn into_parts(mut self) -> io::Result<Parts<S>> {
        let mut unread = Vec::new();
        let mut piece = [0; 4096];
        while let Read::Bytes(count) = self.session.read(&mut self.intake, &mut piece)? {
            unread.extend_from_slice(&piece[..count]);
        }
        Ok(Parts {
            inner: self.inner,
            session: self.session,
            unread,
        })
    }

    /// The version and the cipher, in words.
    pub fn describe(&self) -> String {
        self.session.describe()
    }
}

impl<S: AsyncWrite + Unpin> TlsStream<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let unsent = &self.outgoing[self.unsent.clone()];
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, unsent))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.start += count;
        }
        Poll::Ready(Ok(()))
    }
}

/// Memory to seal `length` bytes in.
fn room(memory: &mut Vec<u8>, length: usize) -> &mut [u8] {
    let room = Session::room(length);
    if memory.len() < room {
        memory.resize(room, 0);
    }
    memory
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.session.read(&mut this.intake, into.initialize_unfilled())? {
                Read::Bytes(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Read::Closed => return Poll::Ready(Ok(())),
                Read::Starved => {}
            }
            let mut room = ReadBuf::new(&mut this.intake);
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
        let piece = &bytes[..bytes.len().min(SEAL_BYTES)];
        let Sealed { data, bytes } = this
            .session
            .seal(&[IoSlice::new(piece)], room(&mut this.outgoing, piece.len()))?;
        this.unsent = 0..bytes;
        // What cannot be sent now is sent before the next bytes, or by a flush.
        if let Poll::Ready(Err(error)) = this.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        let length = this.session.seal_close(room(&mut this.outgoing, 0))?;
        this.unsent = 0..length;
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}
