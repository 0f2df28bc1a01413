//! How clients come in: by sockets we make, by sockets somebody else has made for us, or as the one client that is
//! there at the start.

use std::io;
use std::os::fd::OwnedFd;

use super::listener::{ListenError, Listener, Stream};
use crate::config::{self, Config, Listen, TlsMode};

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
                    listeners.push(adopt(socket, config)?);
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

/// A socket has the settings of the configured listener with its address.
fn adopt(socket: OwnedFd, config: &Config) -> Result<Listener, ListenError> {
    let listener = Listener::adopt(socket)?;
    let name = listener.name();
    let same = |configured: &&config::Listener| *configured.address.to_string() == **name;
    match config.listeners.iter().find(same) {
        Some(configured) => check_tls(configured)?,
        None if name.parse::<Listen>().is_ok_and(|address| !address.is_local()) => {
            let address = name.to_string();
            return Err(ListenError::Exposed { address });
        }
        None => {}
    }
    Ok(listener)
}

fn bind(listener: &config::Listener) -> Result<Vec<Listener>, ListenError> {
    check_tls(listener)?;
    Listener::bind(&listener.address)
}

fn check_tls(listener: &config::Listener) -> Result<(), ListenError> {
    if listener.tls == TlsMode::Off {
        return Ok(());
    }
    Err(ListenError::Os {
        address: listener.address.to_string(),
        error: io::Error::new(io::ErrorKind::Unsupported, "TLS is not there yet"),
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(listener: &str) -> Config {
        let resource = "[[resource]]\nname = \"r\"\nmirror = false\n[[resource.volume]]\nexport = \"r\"\nimage = \"memory:\"\n\
                        size = \"1MiB\"\n";
        Config::parse(&format!("name = \"a\"\n{listener}\n{resource}"), "test.toml").unwrap()
    }

    #[tokio::test]
    async fn a_socket_for_other_machines_is_not_taken_over_without_a_word() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let address = format!("tcp:{}", socket.local_addr().unwrap());
        let here = config("listen = [\"unix:/s\"]");
        let refused = adopt(socket.try_clone().unwrap().into(), &here).unwrap_err();
        assert!(refused.to_string().contains(&address), "{refused}");
        let trusted = config(&format!(
            "[[listener]]\naddress = \"{address}\"\nplaintext = \"the network is trusted\""
        ));
        assert!(adopt(socket.into(), &trusted).is_ok());
    }
}
