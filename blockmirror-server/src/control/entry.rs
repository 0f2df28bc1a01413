//! How clients come in: by sockets we make, by sockets somebody else has made for us, or as the one client that is
//! there at the start.

use std::io;
use std::os::fd::OwnedFd;

use super::listener::{ListenError, Listener, Stream};
use crate::config::{self, Config, TlsMode};

/// How clients come in.
#[derive(Default)]
pub enum Entry {
    /// By the addresses of the configuration.
    #[default]
    Listen,
    /// By listening sockets that were made for us, in place of the addresses of the configuration.
    Sockets(Vec<OwnedFd>),
    /// There is one client, connected already, and no other ever.
    Client(OnlyClient),
}

/// The only client of a daemon.
pub struct OnlyClient {
    /// Its connection: a stream socket.
    pub socket: OwnedFd,
    /// Dropped when it has left.
    pub left: Box<dyn Send>,
}

/// Where clients can come in, once the daemon is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The addresses of all listeners, as in a configuration, with the ports that were chosen.
    pub addresses: Vec<String>,
    /// The same as NBD URIs.
    pub uris: Vec<String>,
}

/// An entry that is open.
pub(super) struct Open {
    pub(super) listeners: Vec<Listener>,
    pub(super) client: Option<(Stream, Box<dyn Send>)>,
}

impl Entry {
    pub(super) fn open(self, config: &Config) -> Result<Open, ListenError> {
        let mut listeners = Vec::new();
        let mut client = None;
        match self {
            Self::Listen => {
                for listener in &config.listeners {
                    listeners.extend(bind(listener)?);
                }
            }
            Self::Sockets(sockets) => {
                for socket in sockets {
                    listeners.push(Listener::adopt(socket)?);
                }
            }
            Self::Client(only) => {
                let stream = Stream::adopt(only.socket).map_err(|error| ListenError::Os {
                    address: "the client's socket".to_owned(),
                    error,
                })?;
                client = Some((stream, only.left));
            }
        }
        Ok(Open { listeners, client })
    }
}

fn bind(listener: &config::Listener) -> Result<Vec<Listener>, ListenError> {
    if listener.tls != TlsMode::Off {
        return Err(ListenError::Os {
            address: listener.address.to_string(),
            error: io::Error::new(io::ErrorKind::Unsupported, "TLS is not there yet"),
        });
    }
    Listener::bind(&listener.address)
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Listen => "Listen",
            Self::Sockets(_) => "Sockets",
            Self::Client(_) => "Client",
        })
    }
}

impl Open {
    /// What whoever waits for us is told.
    pub(super) fn ready(&self) -> Ready {
        Ready {
            addresses: self
                .listeners
                .iter()
                .map(|listener| listener.name().to_string())
                .collect(),
            uris: self.listeners.iter().map(Listener::uri).collect(),
        }
    }
}
