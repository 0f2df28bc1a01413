//! TLS 1.2 and 1.3: certificates, the handshake, and a connection after it, as bytes ([`Session`]) and as a tokio stream
//! ([`TlsStream`]). rustls decides whom to trust, makes the keys and seals and opens the records.

mod begun;
mod certificate;
mod client;
mod fault;
mod files;
mod handshake;
pub mod kernel;
mod machine;
mod pieces;
mod reason;
mod server;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::version::{TLS12, TLS13};
pub use rustls::{ConnectionTrafficSecrets, ServerConfig};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

pub use certificate::names;
pub use client::{ClientTls, TlsClient};
pub use fault::TlsFault;
pub use files::{FileProblem, Identity, check_ca};
pub use handshake::{Secured, accept, connect};
pub use kernel::{Keys, for_kernel};
pub use server::{Asked, ServerTls};
pub use session::{FRAGMENT_MAX, Read, SEAL_MAX, Sealed, Session};
pub use stream::{Parts, TlsStream};

/// Nothing older.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// In the order we like them: AES-128-GCM is the fastest where the processor has instructions for it, and as safe.
const CIPHERS: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHERS.to_vec(),
        ..default_provider()
    })
}
