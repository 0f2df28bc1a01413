//! What a session makes of a client that has the keys and keeps no rule, or of somebody on the way who has not.
//! Played by a test and by a fuzz target.

use std::cell::RefCell;
use std::io::IoSlice;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use blockmirror_client::tls::{Asked, Identity, Read, SEAL_MAX, ServerTls, Session, accept};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore,
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// Bytes of one step of an input: what is done, two of its details, and where the bytes begin that it needs more of.
const STEP_BYTES: usize = 4;
/// Steps of one input, at most.
const STEPS_MAX: usize = 40;

/// One side of a connection as whoever has the keys of the other.
pub struct Forger {
    keys: Box<dyn MessageEncrypter>,
    sequence: u64,
}

/// What the other side has, and what it may have read.
pub struct Victim {
    session: Session,
    /// All that was sent as data, in order, before anything was wrong.
    sent: Vec<u8>,
    read: Vec<u8>,
    /// Something was wrong.
    pub failed: bool,
}

/// Plays an input: the handshake, then one step after the other.
pub fn forgeries(input: &[u8]) {
    let Some((&first, steps)) = input.split_first() else {
        return;
    };
    let (mut forger, mut victim) = meet(first & 1 == 1);
    let (mut last, mut honest) = (Vec::new(), true);
    for step in steps.chunks_exact(STEP_BYTES).take(STEPS_MAX) {
        let &[kind, one, other, bytes] = step else { return };
        let (mut content, length) = (
            &input[usize::from(bytes) % input.len()..],
            usize::from(one) << (other & 7),
        );
        let mut wire = Vec::new();
        match kind % 8 {
            0 | 1 => {
                let data: Vec<u8> = (0..length.clamp(1, 16 << 10)).map(|at| at as u8 ^ bytes).collect();
                wire = forger.seal(ContentType::ApplicationData, &data);
                if honest {
                    victim.sent.extend_from_slice(&data);
                }
            }
            2 => {
                content = &content[..content.len().min(usize::from(other))];
                wire = forger.seal(ContentType::from(20 + one % 5), content);
                // Also of data: what it says is not known here.
                honest = false;
            }
            3 => wire.extend_from_slice(&content[..content.len().min(usize::from(one))]),
            4 => wire.clone_from(&last),
            5 => {
                wire.clone_from(&last);
                let length = wire.len();
                if let Some(byte) = wire.get_mut((usize::from(one) << 8 | usize::from(other)) % length.max(1)) {
                    *byte ^= bytes | 1;
                }
            }
            6 => wire.extend_from_slice(&last[..last.len() / 2]),
            _ => {
                victim.answer(length);
            }
        }
        honest &= matches!(kind % 8, 0 | 1 | 7);
        victim.receive(&mut wire.clone(), 1 + length, honest);
        last = wire;
    }
    if honest {
        assert!(
            !victim.failed && victim.read == victim.sent,
            "what nobody touched is read"
        );
    }
    let mut goodbye = [0; 128];
    victim.session.seal_close(&mut goodbye).unwrap();
    assert_eq!(victim.session.seal_close(&mut goodbye).unwrap(), 0, "once");
}

impl Forger {
    /// A record of any type.
    pub fn seal(&mut self, typ: ContentType, bytes: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(bytes),
        };
        self.sequence += 1;
        self.keys.encrypt(message, self.sequence - 1).unwrap().encode()
    }
}

impl Victim {
    /// Receives `wire` in pieces and reads in pieces, both of `piece` bytes.
    pub fn receive(&mut self, wire: &mut [u8], piece: usize, honest: bool) {
        if self.failed || self.session.ended().is_ok() {
            return;
        }
        let mut into = vec![0; piece];
        for received in wire.chunks_mut(piece.max(wire.len() / 8)) {
            self.session.received(received.len());
            loop {
                match self.session.read(received, &mut into) {
                    Ok(Read::Bytes(count)) => {
                        assert!(count > 0, "a read that is not starved reads");
                        self.read.extend_from_slice(&into[..count]);
                    }
                    Ok(Read::Starved) => break,
                    Ok(Read::Closed) => {
                        assert!(self.session.ended().is_ok());
                        return;
                    }
                    Err(_) => {
                        self.failed = true;
                        let again = self.session.read(received, &mut into);
                        assert!(again.is_err(), "once wrong, always wrong");
                        return;
                    }
                }
            }
        }
        assert!(!honest || self.sent.starts_with(&self.read));
    }

    /// Seals `length` bytes; how many they become.
    pub fn answer(&mut self, length: usize) -> usize {
        let data = vec![7; length.clamp(1, SEAL_MAX)];
        let (early, late) = data.split_at(data.len() / 2);
        let mut room = vec![0; Session::room(data.len())];
        let sealed = self.session.seal(&[IoSlice::new(early), IoSlice::new(late)], &mut room);
        match sealed {
            Ok(sealed) => {
                assert!(!self.failed && sealed.data == data.len());
                sealed.bytes
            }
            Err(_) => {
                assert!(self.failed, "only what is wrong is not sealed with");
                0
            }
        }
    }
}

/// The handshake; then the client's keys are taken.
pub fn meet(new: bool) -> (Forger, Victim) {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().build().unwrap());
    }
    let version = if new { &TLS13 } else { &TLS12 };
    let suite = if new {
        cipher_suite::TLS13_AES_128_GCM_SHA256
    } else {
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    };
    let (server, roots) = certificates();
    let mut client = ClientConnection::new(config(version, suite, roots), "localhost".try_into().unwrap()).unwrap();
    let (mut near, mut far) = duplex(1 << 16);
    let secured = RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let shaking = async {
                let mut piece = [0; 4096];
                loop {
                    let mut outgoing = Vec::new();
                    while client.wants_write() {
                        client.write_tls(&mut outgoing).unwrap();
                    }
                    near.write_all(&outgoing).await.unwrap();
                    if !client.is_handshaking() {
                        return;
                    }
                    let count = near.read(&mut piece).await.unwrap();
                    let mut received = &piece[..count];
                    while !received.is_empty() {
                        client.read_tls(&mut received).unwrap();
                        client.process_new_packets().unwrap();
                    }
                }
            };
            tokio::join!(accept(&mut far, server), shaking).0
        })
    });
    let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        unreachable!("the suite was chosen")
    };
    let keys = match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    };
    let victim = Victim {
        session: secured.unwrap().session,
        sent: Vec::new(),
        read: Vec::new(),
        failed: false,
    };
    (Forger { keys, sequence }, victim)
}

fn config(
    version: &'static SupportedProtocolVersion,
    suite: SupportedCipherSuite,
    roots: RootCertStore,
) -> Arc<ClientConfig> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// Made once.
fn certificates() -> (Arc<ServerConfig>, RootCertStore) {
    static MADE: OnceLock<(Arc<ServerConfig>, RootCertStore)> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find_map(|folder| {
            let script = folder.join("scripts/pki");
            script.exists().then_some(script)
        });
        let made = Command::new(script.unwrap()).arg(dir.path()).status().unwrap();
        assert!(made.success());
        let file = |name: &str| dir.path().join(name);
        let identity = Identity {
            certificate: file("server-cert.pem"),
            key: file("server-key.pem"),
        };
        let asked = Asked::No;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(file("ca-cert.pem")).unwrap())
            .unwrap();
        (ServerTls { identity, asked }.load().unwrap(), roots)
    })
    .clone()
}
