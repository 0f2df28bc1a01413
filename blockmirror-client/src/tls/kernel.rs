//! What is left to do of TLS when the kernel seals and opens the records of a connection: [`KernelSession`].

use std::fmt;
use std::sync::Arc;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, PeerMisbehaved, ServerConfig};

use super::fault::TlsFault;

/// Types of records (RFC 8446 section 5.1).
pub const ALERT: u8 = 21;
/// As [`ALERT`].
pub const HANDSHAKE: u8 = 22;

/// A handshake message that says "what comes next is sealed with my next keys" (RFC 8446 section 4.6.3), and asks for
/// nothing.
pub const KEY_UPDATE: [u8; 5] = [KEY_UPDATE_TYPE, 0, 0, 1, 0];

const KEY_UPDATE_TYPE: u8 = 24;
const NEW_SESSION_TICKET_TYPE: u8 = 4;
/// Bytes before the body of a handshake message: its type and length.
const MESSAGE_HEADER: usize = 4;
/// Records without data in a row, at most; as rustls has it.
const ASIDES_MAX: u8 = 32;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The keys of one direction.
pub struct Keys {
    /// Cipher, key and initial vector.
    pub secrets: ConnectionTrafficSecrets,
    /// Number of the next record.
    pub sequence: u64,
}

/// A connection on its way to the kernel.
#[derive(Debug)]
pub struct Handover {
    /// What stays here.
    pub session: KernelSession,
    /// Sealed bytes that have to be sent before.
    pub early: Vec<u8>,
    /// What the kernel seals with.
    pub send: Keys,
    /// What it opens with.
    pub receive: Keys,
}

/// A record that carries no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Nothing has to be done.
    Nothing,
    /// Nothing more comes.
    Closed,
    /// What comes next is sealed with the next keys.
    NewKeys {
        /// Ours are to change too, before we send more.
        answer: bool,
    },
}

/// A TLS 1.3 connection whose records the kernel seals and opens. It is asked about records without data and for new keys.
pub struct KernelSession {
    connection: Connection,
    /// Records without data since the last one with some.
    asides: u8,
}

enum Connection {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Handover {
    pub(super) fn of_client(
        (secrets, connection): (ExtractedSecrets, KernelConnection<ClientConnectionData>),
        early: Vec<u8>,
    ) -> Self {
        Self::new(secrets, Connection::Client(connection), early)
    }

    pub(super) fn of_server(
        (secrets, connection): (ExtractedSecrets, KernelConnection<ServerConnectionData>),
        early: Vec<u8>,
    ) -> Self {
        Self::new(secrets, Connection::Server(connection), early)
    }

    fn new(secrets: ExtractedSecrets, connection: Connection, early: Vec<u8>) -> Self {
        Self {
            session: KernelSession { connection, asides: 0 },
            early,
            send: Keys::from(secrets.tx),
            receive: Keys::from(secrets.rx),
        }
    }
}

impl KernelSession {
    /// What a record of this type, with this content, means.
    ///
    /// # Errors
    /// The other side gave up, or says what it must not.
    pub fn hear(&mut self, record_type: u8, content: &[u8]) -> Result<Aside, TlsFault> {
        self.asides += 1;
        if self.asides > ASIDES_MAX {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments).into());
        }
        match record_type {
            ALERT => alert(content),
            HANDSHAKE => self.handshake(content),
            _ => Err(unexpected("a record of an unknown type")),
        }
    }

    /// A record with data has come.
    pub fn heard_data(&mut self) {
        self.asides = 0;
    }

    fn handshake(&self, mut content: &[u8]) -> Result<Aside, TlsFault> {
        while let Some((kind, body, rest)) = message(content) {
            match (kind, &self.connection) {
                // Keys change at the end of a record.
                (KEY_UPDATE_TYPE, _) if rest.is_empty() && matches!(body, [0 | 1]) => {
                    return Ok(Aside::NewKeys { answer: body == [1] });
                }
                // Nobody resumes a connection.
                (NEW_SESSION_TICKET_TYPE, Connection::Client(_)) if rest.is_empty() => return Ok(Aside::Nothing),
                (NEW_SESSION_TICKET_TYPE, Connection::Client(_)) => content = rest,
                _ => return Err(unexpected("a handshake message that has no place here")),
            }
        }
        Err(unexpected("a handshake message that is cut off"))
    }

    /// The keys after those we seal with.
    ///
    /// # Errors
    /// rustls has none.
    pub fn next_send_keys(&mut self) -> Result<Keys, TlsFault> {
        let next = match &mut self.connection {
            Connection::Client(connection) => connection.update_tx_secret(),
            Connection::Server(connection) => connection.update_tx_secret(),
        };
        Ok(Keys::from(next?))
    }

    /// The keys after those the other side seals with.
    ///
    /// # Errors
    /// rustls has none.
    pub fn next_receive_keys(&mut self) -> Result<Keys, TlsFault> {
        let next = match &mut self.connection {
            Connection::Client(connection) => connection.update_rx_secret(),
            Connection::Server(connection) => connection.update_rx_secret(),
        };
        Ok(Keys::from(next?))
    }
}

/// The same, for connections that go to the kernel when they are for it ([`Session::is_for_kernel`](super::Session::is_for_kernel)).
pub fn for_kernel(mut config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    Arc::make_mut(&mut config).enable_secret_extraction = true;
    config
}

/// The content of the alert that ends a connection: with `fault`, or because nothing more comes.
pub fn farewell(fault: Option<&TlsFault>) -> [u8; 2] {
    match fault {
        None => [WARNING, AlertDescription::CloseNotify.into()],
        Some(TlsFault::Tls(Error::DecryptError)) => [FATAL, AlertDescription::BadRecordMac.into()],
        Some(_) => [FATAL, AlertDescription::UnexpectedMessage.into()],
    }
}

/// The first handshake message: its type, its body, and what is behind it.
fn message(content: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, high, middle, low], rest) = content.split_first_chunk::<MESSAGE_HEADER>()?;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((kind, body, rest))
}

fn alert(content: &[u8]) -> Result<Aside, TlsFault> {
    let &[_level, description] = content else {
        return Err(unexpected("an alert of a wrong length"));
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Aside::Closed),
        // Only a reason for the end that follows (RFC 8446 section 6.1).
        AlertDescription::UserCanceled => Ok(Aside::Nothing),
        other => Err(Error::AlertReceived(other).into()),
    }
}

fn unexpected(what: &str) -> TlsFault {
    Error::General(format!("the other side sent {what}")).into()
}

impl From<(u64, ConnectionTrafficSecrets)> for Keys {
    fn from((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        Self { secrets, sequence }
    }
}

impl fmt::Debug for Keys {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KernelSession {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSession").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
