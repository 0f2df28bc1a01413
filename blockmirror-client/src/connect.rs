//! Dialling a server and negotiating with it, under one deadline.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nbd_proto::ReplyStyle;
use nbd_proto::client::{Goal, Handshake, HandshakeError, Negotiated, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::uri::Address;

/// Bytes read at once while negotiating.
const READ_SIZE: usize = 16 << 10;
/// A silent TCP connection is probed after this long,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// then this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and is dead after so many unanswered probes.
const KEEPALIVE_PROBES: u32 = 4;

/// A connection that is ready for the transmission phase.
#[derive(Debug)]
pub struct Connected {
    /// A nonblocking stream socket; for TCP with TCP_NODELAY and keepalive.
    pub socket: OwnedFd,
    /// What was agreed.
    pub negotiated: Negotiated,
    /// Bytes that came behind the handshake: the beginning of the replies (a correct server sends none).
    pub unread: Vec<u8>,
}

/// A connection that is a replication stream between two blockmirrors from here on.
#[derive(Debug)]
pub struct Upgraded {
    /// A nonblocking stream socket; for TCP with TCP_NODELAY and keepalive.
    pub socket: OwnedFd,
    /// What the other said in return.
    pub reply: Vec<u8>,
    /// Bytes that came behind it: the beginning of the stream.
    pub unread: Vec<u8>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server could not be reached.
    #[error("cannot connect to {address}: {source}; is an NBD server listening there?")]
    Dial {
        /// Where.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// Reached, but the connection broke while negotiating.
    #[error("the connection to {address} broke while negotiating: {source}")]
    Broken {
        /// Where.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// Everything together took too long.
    #[error("no connection to {address} within {:.1} s (still {stage}): is the server overloaded, or is it not an NBD server?", after.as_secs_f64())]
    Deadline {
        /// Where.
        address: Address,
        /// The deadline.
        after: Duration,
        /// How far it came: "dialling" or "negotiating".
        stage: &'static str,
    },
    /// The server refused, closed the connection, or what it said is not NBD.
    #[error("cannot open export \"{export}\" at {address}: {source}")]
    Handshake {
        /// Where.
        address: Address,
        /// What was asked for.
        export: String,
        /// Who is at fault, and how.
        source: HandshakeError,
    },
}

/// What is asked of a server beside the export. What it does not have is done without, unless it is demanded.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The best style of requests and replies; what is less is taken too.
    pub replies: ReplyStyle,
    /// Metadata contexts, such as `base:allocation`.
    pub contexts: Vec<String>,
    /// Without every one of these contexts there is no connection.
    pub contexts_demanded: bool,
}

impl Default for Wishes {
    /// The best there is, and no contexts.
    fn default() -> Self {
        Self {
            replies: ReplyStyle::Extended,
            contexts: Vec::new(),
            contexts_demanded: false,
        }
    }
}

/// Dials `address` and opens `export` ("" is the server's default export). Everything together takes at most `deadline`.
pub async fn connect(
    address: &Address,
    export: &str,
    wishes: &Wishes,
    deadline: Duration,
) -> Result<Connected, ConnectError> {
    let handshake =
        Handshake::new(Goal::Go, export, wishes.replies).selecting(&wishes.contexts, wishes.contexts_demanded);
    let (stream, step, unread) = converse(address, handshake, export, deadline).await?;
    let broken = |source| ConnectError::Broken {
        address: address.clone(),
        source,
    };
    match step {
        Step::Ready(negotiated) => Ok(Connected {
            socket: stream.into_socket().map_err(broken)?,
            negotiated,
            unread,
        }),
        _ => Err(unexpected(address)),
    }
}

/// Dials `address` and asks for a replication stream with the words of `hello`. Everything together takes at most
/// `deadline`. A server that knows nothing of it refuses as unsupported.
pub async fn upgrade(address: &Address, hello: &[u8], deadline: Duration) -> Result<Upgraded, ConnectError> {
    let handshake = Handshake::upgrade(hello.to_vec());
    let (stream, step, unread) = converse(address, handshake, "", deadline).await?;
    let broken = |source| ConnectError::Broken {
        address: address.clone(),
        source,
    };
    match step {
        Step::Upgraded(reply) => Ok(Upgraded {
            socket: stream.into_socket().map_err(broken)?,
            reply,
            unread,
        }),
        _ => Err(unexpected(address)),
    }
}

/// What the server says about `export`, without opening it.
pub async fn info(address: &Address, export: &str, deadline: Duration) -> Result<Negotiated, ConnectError> {
    let handshake = Handshake::new(Goal::Info, export, ReplyStyle::Extended);
    match converse(address, handshake, export, deadline).await?.1 {
        Step::Ready(negotiated) => Ok(negotiated),
        _ => Err(unexpected(address)),
    }
}

/// The exports a server tells about: name and description.
pub async fn list(address: &Address, deadline: Duration) -> Result<Vec<(String, String)>, ConnectError> {
    let handshake = Handshake::new(Goal::List, "", ReplyStyle::Simple);
    match converse(address, handshake, "", deadline).await?.1 {
        Step::Listed(exports) => Ok(exports),
        _ => Err(unexpected(address)),
    }
}

/// The names of the metadata contexts a server has for `export`; none when it has no structured replies.
pub async fn contexts(address: &Address, export: &str, deadline: Duration) -> Result<Vec<String>, ConnectError> {
    let handshake = Handshake::new(Goal::Contexts, export, ReplyStyle::Structured);
    match converse(address, handshake, export, deadline).await?.1 {
        Step::Contexts(names) => Ok(names),
        _ => Err(unexpected(address)),
    }
}

fn unexpected(address: &Address) -> ConnectError {
    let source = io::Error::new(
        io::ErrorKind::InvalidData,
        "the handshake ended with something else than was asked",
    );
    ConnectError::Broken {
        address: address.clone(),
        source,
    }
}

/// Dials and runs the handshake to its end; what it came to, and the bytes behind it.
async fn converse(
    address: &Address,
    handshake: Handshake,
    export: &str,
    deadline: Duration,
) -> Result<(Stream, Step, Vec<u8>), ConnectError> {
    let mut stage = "dialling";
    let whole = async {
        let mut stream = Stream::dial(address).await?;
        stage = "negotiating";
        let (step, unread) = negotiate(&mut stream, address, handshake, export).await?;
        Ok((stream, step, unread))
    };
    let result = tokio::time::timeout(deadline, whole).await;
    result.unwrap_or_else(|_| {
        Err(ConnectError::Deadline {
            address: address.clone(),
            after: deadline,
            stage,
        })
    })
}

async fn negotiate(
    stream: &mut Stream,
    address: &Address,
    mut handshake: Handshake,
    export: &str,
) -> Result<(Step, Vec<u8>), ConnectError> {
    let broken = |source| ConnectError::Broken {
        address: address.clone(),
        source,
    };
    let failed = |source| ConnectError::Handshake {
        address: address.clone(),
        export: export.to_owned(),
        source,
    };
    let mut input = Vec::with_capacity(READ_SIZE);
    let mut output = Vec::new();
    loop {
        input.clear();
        if stream.io().read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(failed(handshake.closed()));
        }
        let result = handshake.handle(&input, &mut output);
        // Also after the end or a failure: the last bytes say good-bye properly, but nothing depends on them.
        let sent = stream.io().write_all(&output).await;
        output.clear();
        match result.map_err(failed)? {
            (_, Step::NeedMore) => sent.map_err(broken)?,
            (taken, step) => return Ok((step, input.split_off(taken.min(input.len())))),
        }
    }
}

/// A connected socket, of either family.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Both directions of a stream.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl Stream {
    async fn dial(address: &Address) -> Result<Self, ConnectError> {
        let dial = |source| ConnectError::Dial {
            address: address.clone(),
            source,
        };
        Ok(match address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await.map_err(dial)?),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(dial)?;
                set_options(&stream).map_err(dial)?;
                Stream::Tcp(stream)
            }
        })
    }

    /// The tokio stream of a connected socket.
    pub(crate) fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_domain(&socket)? == rustix::net::AddressFamily::UNIX {
            Ok(Stream::Unix(UnixStream::from_std(socket.into())?))
        } else {
            Ok(Stream::Tcp(TcpStream::from_std(socket.into())?))
        }
    }

    /// The nonblocking socket, free of tokio.
    fn into_socket(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Stream::Tcp(stream) => stream.into_std()?.into(),
            Stream::Unix(stream) => stream.into_std()?.into(),
        })
    }

    fn io(&mut self) -> &mut dyn Duplex {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// Both directions, to be used by two tasks.
    pub(crate) fn into_split(self) -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
