//! Listening sockets: made with a clear reason when they cannot be, removed when the daemon ends.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blockmirror_client::stream::PlainStream;
use blockmirror_client::tls::FileProblem;
use blockmirror_client::uri::{Address, NbdUri, UriTls};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::security::Security;
use crate::config::Listen;

/// Connections the kernel keeps for us before we accept them.
const BACKLOG: i32 = 128;
/// A silent TCP client is probed after this long, and given up after [`KEEPALIVE_PROBES`] probes without an answer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "{address}: the address is in use by another process; stop that one (ss -ltnp tells which), or choose another address"
    )]
    InUse {
        /// The address.
        address: String,
    },
    /// The path of a Unix socket is taken by something else.
    #[error("{address}: the path exists and is not a socket; move that file away, or choose another path")]
    NotASocket {
        /// The address.
        address: String,
    },
    /// The host name means nothing.
    #[error("{address}: the host name cannot be resolved: {error}; use an address, or correct the name")]
    Unresolved {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A socket that was handed over is open to other machines, and nothing answers for that.
    #[error(
        "{address}: the socket that was handed over is open to other machines, and nothing there is encrypted; add a \
         [[listener]] with this address and tls = \"require\", or with plaintext = \"the network is trusted\""
    )]
    Exposed {
        /// The address.
        address: String,
    },
    /// Its certificates cannot be used.
    #[error("{address}: {error}")]
    Certificates {
        /// The address.
        address: String,
        /// What is wrong with which file.
        error: FileProblem,
    },
    /// The operating system refuses.
    #[error("{address}: cannot listen: {error}{}", hint(error))]
    Os {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; ports below 1024 and most directories need root",
        ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        ErrorKind::NotFound => "; make the directory of the socket first",
        _ => "",
    }
}

/// Takes over a connected socket.
pub(super) fn adopt(socket: OwnedFd) -> io::Result<PlainStream> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let stream = PlainStream::from_socket(socket)?;
    if let PlainStream::Tcp(stream) = &stream {
        tune(stream)?;
    }
    Ok(stream)
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct Listener {
    socket: ListeningSocket,
    address: Address,
    /// As it would be written in a configuration, with the port that was chosen.
    name: Arc<str>,
    /// Of a Unix socket that we made.
    _file: Option<SocketFile>,
    security: Security,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Every socket of an address: a host name may mean several.
    pub(super) fn bind(listen: &Listen) -> Result<Vec<Self>, ListenError> {
        match listen {
            Listen::Unix(path) => {
                let (socket, file) = bind_unix(path)?;
                Ok(vec![Self::unix(socket, path.clone(), Some(file))])
            }
            Listen::Tcp { host, port } => {
                let name = listen.to_string();
                let addresses = (host.as_str(), *port)
                    .to_socket_addrs()
                    .map_err(|error| ListenError::Unresolved {
                        address: name.clone(),
                        error,
                    })?;
                addresses.map(|address| bind_tcp(address, &name)).collect()
            }
        }
    }

    /// Takes over a listening socket that somebody else has made. The file of a Unix socket stays theirs.
    pub(super) fn adopt(socket: OwnedFd) -> Result<Self, ListenError> {
        let os = |error| ListenError::Os {
            address: "a socket that was handed over".to_owned(),
            error,
        };
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| os(errno.into()))?;
        if is_tcp(&socket).map_err(os)? {
            let socket = TcpListener::from_std(socket.into()).map_err(os)?;
            let address = socket.local_addr().map_err(os)?;
            return Ok(Self::tcp(socket, address));
        }
        let socket = UnixListener::from_std(socket.into()).map_err(os)?;
        let address = socket.local_addr().map_err(os)?;
        let path = address.as_pathname().unwrap_or(Path::new("")).to_owned();
        Ok(Self::unix(socket, path, None))
    }

    fn tcp(socket: TcpListener, address: SocketAddr) -> Self {
        Self {
            socket: ListeningSocket::Tcp(socket),
            name: format!("tcp:{address}").into(),
            address: Address::Tcp {
                host: address.ip().to_string(),
                port: address.port(),
            },
            _file: None,
            security: Security::off(),
        }
    }

    fn unix(socket: UnixListener, path: PathBuf, file: Option<SocketFile>) -> Self {
        Self {
            socket: ListeningSocket::Unix(socket),
            name: format!("unix:{}", path.display()).into(),
            address: Address::Unix(path),
            _file: file,
            security: Security::off(),
        }
    }

    /// With TLS.
    pub(super) fn with(self, security: &Security) -> Self {
        Self {
            security: security.clone(),
            ..self
        }
    }

    /// How safely clients come in.
    pub(super) fn security(&self) -> &Security {
        &self.security
    }

    /// As it would be written in a configuration, with the port that was chosen.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// For clients; it names the default export.
    pub(super) fn uri(&self) -> String {
        let uri = NbdUri {
            address: self.address.clone(),
            export: Some(String::new()),
            tls: self.security.is_required().then(UriTls::default),
        };
        uri.to_string()
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<PlainStream> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                tune(&stream)?;
                Ok(PlainStream::Tcp(stream))
            }
            ListeningSocket::Unix(socket) => Ok(PlainStream::Unix(socket.accept().await?.0)),
        }
    }
}

fn is_tcp(socket: &OwnedFd) -> io::Result<bool> {
    let family = rustix::net::getsockname(socket)?.address_family();
    Ok(family == AddressFamily::INET || family == AddressFamily::INET6)
}

/// Small replies leave at once, and a client that is gone without a word is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    keep_alive(stream)
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

fn bind_tcp(address: SocketAddr, name: &str) -> Result<Listener, ListenError> {
    let os = |error: io::Error| match error.kind() {
        ErrorKind::AddrInUse => ListenError::InUse {
            address: name.to_owned(),
        },
        _ => ListenError::Os {
            address: name.to_owned(),
            error,
        },
    };
    let socket = listening(address).map_err(|errno| os(errno.into()))?;
    let socket = std::net::TcpListener::from(socket);
    let socket = TcpListener::from_std(socket).map_err(os)?;
    let address = socket.local_addr().map_err(os)?;
    Ok(Listener::tcp(socket, address))
}

fn listening(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // [::] means IPv6: who wants both lists both, and both can be listed.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that took our place is not ours to remove.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // It may be gone between the two calls; then there is nothing left to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening Unix socket for the admin API: its owner's alone.
pub(super) fn bind_admin(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let (socket, file) = bind_unix(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| ListenError::Os {
        address: format!("unix:{}", path.display()),
        error,
    })?;
    Ok((socket, file))
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let address = format!("unix:{}", path.display());
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let bound = socket.and_then(|socket| Ok((socket, identity(path)?)));
    match bound {
        Ok((socket, identity)) => Ok((
            socket,
            SocketFile {
                path: path.to_owned(),
                identity,
            },
        )),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(ListenError::InUse { address }),
        Err(error) => Err(ListenError::Os { address, error }),
    }
}

/// Remove a socket file that a dead process left behind: one where nobody answers.
fn remove_stale(path: &Path, address: &str) -> Result<(), ListenError> {
    let os = |error| ListenError::Os {
        address: address.to_owned(),
        error,
    };
    let found = fs::symlink_metadata(path).map_err(os)?;
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket {
            address: address.to_owned(),
        });
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(%address, "removed the socket file of a process that is gone");
            fs::remove_file(path).map_err(os)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(os(error)),
        _ => Err(ListenError::InUse {
            address: address.to_owned(),
        }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests;
