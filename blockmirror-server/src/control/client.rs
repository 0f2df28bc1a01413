//! Who a client is, as far as its connection tells.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{AddressFamily, getpeername, getsockname};

/// Who a client is. The log and the access rules go by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientIdentity {
    /// Where it came in, as the log names it.
    pub(super) listener: Arc<str>,
    pub(super) address: ClientAddress,
    /// The verified names of its certificate; `None`: it showed none.
    pub(super) certificate: Option<Vec<String>>,
}

/// Where a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientAddress {
    /// At the other end of a TCP connection.
    Tcp(SocketAddr),
    /// On this machine.
    Unix {
        /// Its process, as far as the kernel knows it.
        process: Option<i32>,
        /// Who runs it.
        user: Option<u32>,
    },
    /// Wherever it is: whoever started the daemon has let it in.
    Given,
}

impl ClientIdentity {
    /// Of nobody in particular.
    pub(super) fn nobody(listener: &Arc<str>) -> Self {
        Self {
            listener: Arc::clone(listener),
            address: ClientAddress::Given,
            certificate: None,
        }
    }

    /// Of a connected socket.
    pub(super) fn of(socket: impl AsFd, listener: &Arc<str>) -> Self {
        Self {
            listener: Arc::clone(listener),
            address: ClientAddress::of(socket),
            certificate: None,
        }
    }
}

impl ClientAddress {
    /// What is neither TCP nor of a process that the kernel knows is on this machine: a pair of sockets, a relay.
    fn of(socket: impl AsFd) -> Self {
        let peer = getpeername(&socket).ok().flatten();
        if let Some(address) = peer.and_then(|address| SocketAddr::try_from(address).ok()) {
            return Self::Tcp(address);
        }
        let is_unix = getsockname(&socket).is_ok_and(|name| name.address_family() == AddressFamily::UNIX);
        let who = is_unix.then(|| getsockopt(&socket, PeerCredentials).ok()).flatten();
        Self::Unix {
            // 0: a process outside of our namespace.
            process: who.map(|who| who.pid()).filter(|process| *process != 0),
            user: who.map(|who| who.uid()),
        }
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            ClientAddress::Tcp(address) => write!(f, "{address}")?,
            ClientAddress::Unix {
                process: Some(process), ..
            } => write!(f, "{} (process {process})", self.listener)?,
            ClientAddress::Unix { process: None, .. } | ClientAddress::Given => write!(f, "{}", self.listener)?,
        }
        match self.certificate.as_deref() {
            None => Ok(()),
            Some(names) => write!(f, " with the certificate of {}", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_tells_who_is_there() {
        let listener: Arc<str> = "unix:/s".into();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut who = ClientIdentity::of(&ours, &listener);
        let (process, user) = (std::process::id(), rustix::process::getuid().as_raw());
        let wanted = ClientAddress::Unix {
            process: Some(process.cast_signed()),
            user: Some(user),
        };
        assert_eq!(who.address, wanted);
        assert_eq!(who.to_string(), format!("unix:/s (process {process})"));
        who.certificate = Some(vec!["backup.example".to_owned()]);
        assert!(who.to_string().ends_with("with the certificate of backup.example"));
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (stream, _) = server.accept().unwrap();
        let who = ClientIdentity::of(&stream, &listener);
        assert_eq!(who.to_string(), client.local_addr().unwrap().to_string());
    }
}
