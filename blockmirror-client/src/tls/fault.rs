//! What can be wrong with a connection that has TLS.

use std::io;

use super::reason;

/// Why a TLS connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// What came is no record.
    #[error("what was received is not TLS")]
    NotTls,
    /// The keys have sealed as much as they may, and the version of TLS knows no new ones.
    #[error("TLS 1.2 has no new keys after so many bytes; TLS 1.3 does not have this limit")]
    Worn,
    /// The connection ended without the close_notify that TLS ends with: somebody may have cut it.
    #[error("the connection was cut: it ended without TLS close_notify")]
    Cut,
    /// The other side closed the connection in the middle of the handshake.
    #[error("the other side left during the TLS handshake: does it trust the certificate it was shown?")]
    Left,
    /// The handshake failed, or what came behind it is wrong, or the other side gave up.
    #[error("{}", reason::of(.0))]
    Tls(rustls::Error),
    /// More than a handshake can take was sent.
    #[error("the TLS handshake is longer than any can be")]
    LongHandshake,
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl TlsFault {
    /// A record that does not open.
    pub fn damaged() -> Self {
        Self::Tls(rustls::Error::DecryptError)
    }
}

impl From<rustls::Error> for TlsFault {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<TlsFault> for io::Error {
    /// A cut connection is one that was reset: nothing more will come of it, and the other side did not say so.
    fn from(fault: TlsFault) -> Self {
        match fault {
            TlsFault::Io(error) => error,
            TlsFault::Cut | TlsFault::Tls(rustls::Error::AlertReceived(_)) => {
                Self::new(io::ErrorKind::ConnectionReset, fault)
            }
            _ => Self::new(io::ErrorKind::InvalidData, fault),
        }
    }
}
