//! Connected stream sockets, with TLS on them or not, inside tokio ([`Stream`]) and outside of it ([`Wire`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{AddressFamily, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{Parts, Session, TlsClient, TlsFault, TlsStream};

/// A nonblocking connected socket out of tokio's hands.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    pub socket: OwnedFd,
    /// TLS on it.
    pub tls: Option<Box<Session>>,
}

impl From<OwnedFd> for Wire {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, tls: None }
    }
}

impl From<StdUnixStream> for Wire {
    fn from(socket: StdUnixStream) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<std::net::TcpStream> for Wire {
    fn from(socket: std::net::TcpStream) -> Self {
        OwnedFd::from(socket).into()
    }
}

/// A socket of either family.
#[derive(Debug)]
pub enum PlainStream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix; also any other stream socket.
    Unix(UnixStream),
}

/// A socket, with TLS on it or not.
#[derive(Debug)]
pub enum Stream {
    /// Without.
    Plain(PlainStream),
    /// With.
    Tls(Box<TlsStream<PlainStream>>),
}

/// One direction of a stream.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The other.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl PlainStream {
    /// The tokio stream of a connected, nonblocking socket.
    ///
    /// # Errors
    /// Of the system.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        let family = sockopt::socket_domain(&socket)?;
        if family == AddressFamily::INET || family == AddressFamily::INET6 {
            Ok(Self::Tcp(TcpStream::from_std(socket.into())?))
        } else {
            Ok(Self::Unix(UnixStream::from_std(socket.into())?))
        }
    }

    /// The nonblocking socket, free of tokio.
    ///
    /// # Errors
    /// Of the system.
    pub fn into_socket(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

impl Stream {
    /// Begin TLS as the client.
    pub(crate) async fn secure(self, tls: &TlsClient) -> Result<Self, TlsFault> {
        match self {
            Self::Plain(stream) => Ok(Self::Tls(Box::new(tls.secure(stream).await?))),
            // Within TLS nobody begins it.
            Self::Tls(_) => Err(TlsFault::NotTls),
        }
    }

    /// Back from outside of tokio.
    ///
    /// # Errors
    /// Of the system.
    pub fn from_wire(wire: Wire) -> io::Result<Self> {
        let inner = PlainStream::from_socket(wire.socket)?;
        Ok(match wire.tls {
            None => Self::Plain(inner),
            Some(session) => Self::Tls(Box::new(TlsStream::new(inner, *session))),
        })
    }

    /// Out of tokio's hands, with the data that was received and not read.
    ///
    /// # Errors
    /// Of the system; or what was received is damaged.
    pub fn into_wire(self) -> io::Result<(Wire, Vec<u8>)> {
        match self {
            Self::Plain(stream) => Ok((stream.into_socket()?.into(), Vec::new())),
            Self::Tls(stream) => {
                let Parts { inner, session, unread } = stream.into_parts()?;
                let wire = Wire {
                    socket: inner.into_socket()?,
                    tls: Some(Box::new(session)),
                };
                Ok((wire, unread))
            }
        }
    }

    /// Both directions, to be used by two tasks.
    pub(crate) fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(PlainStream::Tcp(stream)) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            Self::Plain(PlainStream::Unix(stream)) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (Box::new(read), Box::new(write))
            }
        }
    }
}

impl AsFd for PlainStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Reads and writes go to whichever of the two it is.
macro_rules! delegate {
    ($stream:ty, $one:path, $other:path) => {
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $one(stream) => Pin::new(stream).poll_read(context, into),
                    $other(stream) => Pin::new(stream).poll_read(context, into),
                }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $one(stream) => Pin::new(stream).poll_write(context, bytes),
                    $other(stream) => Pin::new(stream).poll_write(context, bytes),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $one(stream) => Pin::new(stream).poll_flush(context),
                    $other(stream) => Pin::new(stream).poll_flush(context),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $one(stream) => Pin::new(stream).poll_shutdown(context),
                    $other(stream) => Pin::new(stream).poll_shutdown(context),
                }
            }
        }
    };
}

delegate!(PlainStream, PlainStream::Tcp, PlainStream::Unix);
delegate!(Stream, Stream::Plain, Stream::Tls);
