//! Why a client's handshake failed, by who is at fault.

use alloc::string::String;

use crate::constants::{MAX_CONTEXTS, MAX_STRING};
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionCode, OptionError};

/// A handshake that did not reach its goal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server broke the protocol.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    /// The server keeps the protocol and says no. It was told ABORT.
    #[error("{option} refused: {error}{}{}", parenthesised(.message), advice(*.option, *.error))]
    Refused {
        /// What was asked.
        option: OptionCode,
        /// The reason.
        error: OptionError,
        /// The server's own words, may be empty.
        message: String,
    },
    /// The caller's export name cannot be asked for.
    #[error("an export name of {length} bytes cannot be asked for: at most {MAX_STRING} bytes, no NUL")]
    BadExportName {
        /// Its bytes.
        length: usize,
    },
    /// The caller's metadata context cannot be asked for.
    #[error(
        "metadata context {0:?} cannot be asked for: a name is a namespace, a colon and more, like base:allocation"
    )]
    BadContextName(String),
    /// The caller wants more metadata contexts than a connection may have.
    #[error("{0} metadata contexts are wanted; {MAX_CONTEXTS} at most can be selected")]
    TooManyContexts(usize),
    /// A metadata context that was demanded is not there. The server was told ABORT.
    #[error("the server offers no metadata context {name:?} for this export")]
    NoContext {
        /// The first that is missing.
        name: String,
    },
    /// The connection ended before the server said anything.
    #[error("the server closed the connection before its greeting was complete")]
    ClosedAtGreeting,
    /// The connection ended instead of an answer to an option.
    #[error("the server closed the connection instead of answering {0}")]
    ClosedAtOption(OptionCode),
    /// The connection ended instead of an answer to EXPORT_NAME, which is how an old server says no.
    #[error("the server closed the connection when asked for export {export:?}: it may not have it, or require TLS")]
    ClosedAtExportName {
        /// The name that was asked for.
        export: String,
    },
    /// The connection ended after the handshake was over.
    #[error("the server closed the connection after the handshake")]
    ClosedAfterwards,
}

/// What to do about a refusal that has to do with TLS.
fn advice(option: OptionCode, error: OptionError) -> &'static str {
    match (option, error) {
        (_, OptionError::Shutdown) => "",
        (OptionCode::StartTls, _) => {
            "; TLS is wanted here and nothing goes without it: have the server offer it, or ask for this export without \
             TLS where the network can be trusted"
        }
        (_, OptionError::TlsRequired) => "; ask for it inside TLS, with a URI that starts with nbds: or nbds+unix:",
        _ => "",
    }
}

fn parenthesised(message: &str) -> String {
    match message {
        "" => String::new(),
        text => alloc::format!(" ({text})"),
    }
}
