//! How clients come in: by sockets we make, by sockets somebody else has made for us, or as the one client that is
//! there at the start.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use blockmirror_client::stream::PlainStream;

use super::listener::{self, ListenError, Listener};
use super::security::{Keyring, Security};
use crate::config::{self, Config, Listen};

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
    pub(super) client: Option<(PlainStream, Box<dyn Send>)>,
}

impl Entry {
    pub(super) fn open(self, config: &Config, keyring: &Arc<Keyring>) -> Result<Open, ListenError> {
        let mut listeners = Vec::new();
        let mut client = None;
        match self {
            Self::Listen => {
                for listener in &config.listeners {
                    listeners.extend(bind(listener, config, keyring)?);
                }
            }
            Self::Sockets(sockets) => {
                for socket in sockets {
                    listeners.push(adopt(socket, config, keyring)?);
                }
            }
            Self::Client(only) => {
                let stream = listener::adopt(only.socket).map_err(|error| ListenError::Os {
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
fn adopt(socket: OwnedFd, config: &Config, keyring: &Arc<Keyring>) -> Result<Listener, ListenError> {
    let listener = Listener::adopt(socket)?;
    let name = listener.name();
    let same = |configured: &&config::Listener| *configured.address.to_string() == **name;
    match config.listeners.iter().find(same) {
        Some(configured) => {
            let security = security(configured, config, keyring)?;
            Ok(listener.with(&security))
        }
        None if name.parse::<Listen>().is_ok_and(|address| !address.is_local()) => {
            let address = name.to_string();
            Err(ListenError::Exposed { address })
        }
        None => Ok(listener),
    }
}

fn bind(listener: &config::Listener, config: &Config, keyring: &Arc<Keyring>) -> Result<Vec<Listener>, ListenError> {
    let security = security(listener, config, keyring)?;
    let bound = Listener::bind(&listener.address)?;
    Ok(bound.into_iter().map(|listener| listener.with(&security)).collect())
}

fn security(listener: &config::Listener, config: &Config, keyring: &Arc<Keyring>) -> Result<Security, ListenError> {
    Security::new(listener, &config.tls, keyring).map_err(|error| ListenError::Certificates {
        address: listener.address.to_string(),
        error,
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
        let refused = adopt(socket.try_clone().unwrap().into(), &here, &Arc::default()).unwrap_err();
        assert!(refused.to_string().contains(&address), "{refused}");
        let trusted = config(&format!(
            "[[listener]]\naddress = \"{address}\"\nplaintext = \"the network is trusted\""
        ));
        assert!(adopt(socket.into(), &trusted, &Arc::default()).is_ok());
    }
}
