//! Dialling a server and negotiating with it, under one deadline.

use std::io;
use std::time::Duration;

use nbd_proto::ReplyStyle;
use nbd_proto::client::{Goal, Handshake, HandshakeError, Negotiated, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::stream::{PlainStream, Stream, Wire};
use crate::tls::{FileProblem, TlsClient, TlsFault};
use crate::uri::{Address, NbdUri};

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
    pub socket: Wire,
    /// What was agreed.
    pub negotiated: Negotiated,
    /// Bytes that came behind the handshake: the beginning of the replies (a correct server sends none).
    pub unread: Vec<u8>,
}

/// A connection that is a replication stream between two blockmirrors from here on.
#[derive(Debug)]
pub struct Upgraded {
    /// A nonblocking stream socket; for TCP with TCP_NODELAY and keepalive.
    pub socket: Wire,
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
    /// The certificates for TLS cannot be used.
    #[error("TLS with {address} cannot begin: {source}")]
    Certificates {
        /// Where.
        address: Address,
        /// What is wrong with which file.
        source: FileProblem,
    },
    /// The server was ready for TLS, and it failed.
    #[error("no TLS connection to {address}: {source}")]
    Tls {
        /// Where.
        address: Address,
        /// Why.
        source: TlsFault,
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

/// Where a server is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: Address,
    /// With TLS, or not at all; `None`: without.
    pub tls: Option<TlsClient>,
}

impl Server {
    /// As a URI says. Files with certificates are read.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn of(uri: &NbdUri) -> Result<Self, ConnectError> {
        let tls = uri.client_tls().map(|tls| tls.load()).transpose();
        Ok(Self {
            address: uri.address.clone(),
            tls: tls.map_err(|source| ConnectError::Certificates {
                address: uri.address.clone(),
                source,
            })?,
        })
    }
}

impl From<Address> for Server {
    /// Without TLS.
    fn from(address: Address) -> Self {
        Self { address, tls: None }
    }
}

/// Dials a server and opens `export` ("" is the server's default export). Everything together takes at most `deadline`.
pub async fn connect(
    server: &Server,
    export: &str,
    wishes: &Wishes,
    deadline: Duration,
) -> Result<Connected, ConnectError> {
    let handshake =
        Handshake::new(Goal::Go, export, wishes.replies).selecting(&wishes.contexts, wishes.contexts_demanded);
    let (stream, step, unread) = converse(server, handshake, export, deadline).await?;
    match step {
        Step::Ready(negotiated) => {
            let (socket, unread) = leave(stream, unread, &server.address)?;
            Ok(Connected {
                socket,
                negotiated,
                unread,
            })
        }
        _ => Err(unexpected(&server.address)),
    }
}

/// Dials a server and asks for a replication stream with the words of `hello`. Everything together takes at most
/// `deadline`. A server that knows nothing of it refuses as unsupported.
pub async fn upgrade(server: &Server, hello: &[u8], deadline: Duration) -> Result<Upgraded, ConnectError> {
    let handshake = Handshake::upgrade(hello.to_vec());
    let (stream, step, unread) = converse(server, handshake, "", deadline).await?;
    match step {
        Step::Upgraded(reply) => {
            let (socket, unread) = leave(stream, unread, &server.address)?;
            Ok(Upgraded { socket, reply, unread })
        }
        _ => Err(unexpected(&server.address)),
    }
}

/// What the server says about `export`, without opening it.
pub async fn info(server: &Server, export: &str, deadline: Duration) -> Result<Negotiated, ConnectError> {
    let handshake = Handshake::new(Goal::Info, export, ReplyStyle::Extended);
    match converse(server, handshake, export, deadline).await?.1 {
        Step::Ready(negotiated) => Ok(negotiated),
        _ => Err(unexpected(&server.address)),
    }
}

/// The exports a server tells about: name and description.
pub async fn list(server: &Server, deadline: Duration) -> Result<Vec<(String, String)>, ConnectError> {
    let handshake = Handshake::new(Goal::List, "", ReplyStyle::Simple);
    match converse(server, handshake, "", deadline).await?.1 {
        Step::Listed(exports) => Ok(exports),
        _ => Err(unexpected(&server.address)),
    }
}

/// The names of the metadata contexts a server has for `export`; none when it has no structured replies.
pub async fn contexts(server: &Server, export: &str, deadline: Duration) -> Result<Vec<String>, ConnectError> {
    let handshake = Handshake::new(Goal::Contexts, export, ReplyStyle::Structured);
    match converse(server, handshake, export, deadline).await?.1 {
        Step::Contexts(names) => Ok(names),
        _ => Err(unexpected(&server.address)),
    }
}

/// Out of tokio's hands, with what came behind the handshake.
fn leave(stream: Stream, mut unread: Vec<u8>, address: &Address) -> Result<(Wire, Vec<u8>), ConnectError> {
    let (wire, more) = stream.into_wire().map_err(|source| ConnectError::Broken {
        address: address.clone(),
        source,
    })?;
    unread.extend(more);
    Ok((wire, unread))
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
    server: &Server,
    handshake: Handshake,
    export: &str,
    deadline: Duration,
) -> Result<(Stream, Step, Vec<u8>), ConnectError> {
    let mut stage = "dialling";
    let whole = async {
        let stream = Stream::Plain(dial(&server.address).await?);
        stage = "negotiating";
        negotiate(stream, server, handshake, export).await
    };
    let result = tokio::time::timeout(deadline, whole).await;
    result.unwrap_or_else(|_| {
        Err(ConnectError::Deadline {
            address: server.address.clone(),
            after: deadline,
            stage,
        })
    })
}

async fn negotiate(
    mut stream: Stream,
    server: &Server,
    mut handshake: Handshake,
    export: &str,
) -> Result<(Stream, Step, Vec<u8>), ConnectError> {
    let address = || server.address.clone();
    let broken = |source| ConnectError::Broken {
        address: address(),
        source,
    };
    let failed = |source| ConnectError::Handshake {
        address: address(),
        export: export.to_owned(),
        source,
    };
    if server.tls.is_some() {
        handshake = handshake.inside_tls();
    }
    let mut input = Vec::with_capacity(READ_SIZE);
    let mut output = Vec::new();
    loop {
        input.clear();
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(failed(handshake.closed()));
        }
        let result = handshake.handle(&input, &mut output);
        // Also after the end or a failure: the last bytes say good-bye properly, but nothing depends on them.
        let sent = send(&mut stream, &mut output).await;
        match (result.map_err(failed)?, &server.tls) {
            ((_, Step::NeedMore), _) => sent.map_err(broken)?,
            ((_, Step::StartTls), Some(tls)) => {
                sent.map_err(broken)?;
                stream = stream.secure(tls).await.map_err(|source| ConnectError::Tls {
                    address: address(),
                    source,
                })?;
                handshake.secured(&mut output);
                send(&mut stream, &mut output).await.map_err(broken)?;
            }
            ((taken, step), _) => return Ok((stream, step, input.split_off(taken.min(input.len())))),
        }
    }
}

async fn send(stream: &mut Stream, output: &mut Vec<u8>) -> io::Result<()> {
    let sent = stream.write_all(output).await;
    output.clear();
    sent?;
    stream.flush().await
}

async fn dial(address: &Address) -> Result<PlainStream, ConnectError> {
    let failed = |source| ConnectError::Dial {
        address: address.clone(),
        source,
    };
    Ok(match address {
        Address::Unix(path) => PlainStream::Unix(UnixStream::connect(path).await.map_err(failed)?),
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            set_options(&stream).map_err(failed)?;
            PlainStream::Tcp(stream)
        }
    })
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
