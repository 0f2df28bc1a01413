//! Both ends over a pipe in memory, with the certificates of scripts/pki.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::IoSlice;
use std::path::Path;
use std::process::Command;

use rustls::crypto::ring::cipher_suite;
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::session::FRAGMENT_MAX;
use super::*;

/// A directory with all sets of certificates.
pub(crate) fn pki() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pki");
    let status = Command::new(script).arg(dir.path()).status().unwrap();
    assert!(status.success());
    dir
}

fn identity(dir: &Path, of: &str) -> Identity {
    Identity {
        certificate: dir.join(format!("{of}-cert.pem")),
        key: dir.join(format!("{of}-key.pem")),
    }
}

fn server(dir: &Path, asked: Asked) -> Arc<ServerConfig> {
    let identity = identity(dir, "server");
    ServerTls { identity, asked }.load().unwrap()
}

fn client(dir: &Path, with_certificate: bool) -> ClientTls {
    ClientTls {
        ca: Some(dir.join("ca-cert.pem")),
        identity: with_certificate.then(|| identity(dir, "client")),
        name: "localhost".to_owned(),
        anybody: false,
    }
}

type End = Result<TlsStream<DuplexStream>, TlsFault>;

async fn meet(server: Arc<ServerConfig>, client: TlsClient) -> (End, End) {
    let (near, mut far) = duplex(1 << 20);
    let (ours, theirs) = tokio::join!(accept(&mut far, server), client.secure(near));
    (ours.map(|secured| TlsStream::new(far, secured.session)), theirs)
}

async fn pair(dir: &Path) -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let (server, client) = meet(server(dir, Asked::No), client(dir, false).load().unwrap()).await;
    (server.unwrap(), client.unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// `sent` comes through in both directions, whatever the sizes of what is written and read.
async fn exchange(mut one: TlsStream<DuplexStream>, mut other: TlsStream<DuplexStream>) {
    let bytes = pattern(5 * FRAGMENT_MAX + 7);
    for piece in [1, 100, FRAGMENT_MAX, FRAGMENT_MAX + 1, 4 * FRAGMENT_MAX] {
        let sending = async {
            for part in bytes.chunks(piece.max(bytes.len() / 100)) {
                one.write_all(part).await.unwrap();
            }
            one.flush().await.unwrap();
        };
        let receiving = async {
            let mut received = Vec::new();
            let mut room = vec![0; piece];
            while received.len() < bytes.len() {
                let count = other.read(&mut room).await.unwrap();
                assert!(count > 0);
                received.extend_from_slice(&room[..count]);
            }
            received
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert!(received == bytes, "in pieces of {piece}");
        std::mem::swap(&mut one, &mut other);
    }
    one.shutdown().await.unwrap();
    assert_eq!(other.read(&mut [0; 9]).await.unwrap(), 0, "an orderly end");
    assert_eq!(other.read(&mut [0; 9]).await.unwrap(), 0, "and again");
}

#[tokio::test]
async fn bytes_come_through_with_every_version_and_cipher() {
    let dir = pki();
    for cipher in CIPHERS
        .into_iter()
        .filter(|cipher| !format!("{cipher:?}").contains("RSA"))
    {
        let provider = CryptoProvider {
            cipher_suites: vec![cipher],
            ..default_provider()
        };
        let version = if cipher.tls13().is_some() { &TLS13 } else { &TLS12 };
        let roots = files::roots(&dir.path().join("ca-cert.pem")).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (mut near, mut far) = duplex(1 << 20);
        let name = "localhost".try_into().unwrap();
        let (ours, theirs) = tokio::join!(
            accept(&mut far, server(dir.path(), Asked::No)),
            connect(&mut near, Arc::new(config), name)
        );
        let client = TlsStream::new(near, theirs.unwrap().session);
        assert!(
            client.describe().contains(&format!("{:?}", cipher.suite())),
            "{}",
            client.describe()
        );
        exchange(TlsStream::new(far, ours.unwrap().session), client).await;
    }
}

#[tokio::test]
async fn the_fastest_safe_cipher_is_chosen() {
    let dir = pki();
    let (server, _client) = pair(dir.path()).await;
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.suite();
    assert_eq!(server.describe(), format!("TLSv1_3, {suite:?}"));
}

/// What one side seals, as it goes over the wire.
fn sealed(session: &mut Session, bytes: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; Session::room(bytes.len())];
    let (early, late) = bytes.split_at(bytes.len() / 3);
    let sealed = session
        .seal(&[IoSlice::new(early), IoSlice::new(late)], &mut wire)
        .unwrap();
    assert_eq!(sealed.data, bytes.len());
    wire.truncate(sealed.bytes);
    wire
}

/// Everything that is readable of `wire`, given byte by byte.
fn drip(session: &mut Session, wire: &[u8]) -> Result<Vec<u8>, TlsFault> {
    let mut received = Vec::new();
    for byte in wire {
        session.received(1);
        let mut room = [0; 100];
        while let Read::Bytes(count) = session.read(&mut [*byte], &mut room)? {
            received.extend_from_slice(&room[..count]);
        }
    }
    Ok(received)
}

async fn sessions(dir: &Path) -> (Session, Session) {
    let (server, client) = pair(dir).await;
    (
        server.into_parts().unwrap().session,
        client.into_parts().unwrap().session,
    )
}

#[tokio::test]
async fn keys_change_when_the_other_side_asks() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path()).await;
    let plain = sealed(&mut server, b"answer");
    assert_eq!(drip(&mut client, &plain).unwrap(), b"answer");
    // A request to change: the answer comes before the next data.
    let mut wire = client.ask_for_keys().unwrap();
    wire.extend(sealed(&mut client, b"new"));
    assert_eq!(drip(&mut server, &wire).unwrap(), b"new");
    let answer = sealed(&mut server, b"answer");
    assert!(answer.len() > plain.len(), "a change of keys goes before");
    assert_eq!(drip(&mut client, &answer).unwrap(), b"answer");
}

#[tokio::test]
async fn as_much_as_is_sealed_at_once_fits_where_it_is_said_to() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path()).await;
    // The memory of `sealed` is as long as `room` says; the change of keys goes before.
    let request = server.ask_for_keys().unwrap();
    assert!(drip(&mut client, &request).unwrap().is_empty());
    let most = pattern(SEAL_MAX);
    let mut wire = sealed(&mut client, &most);
    server.received(wire.len());
    let mut read = vec![0; most.len()];
    // A read ends where the data does, also within a record.
    let (first, second) = read.split_at_mut(FRAGMENT_MAX + 5);
    assert_eq!(server.read(&mut wire, first).unwrap(), Read::Bytes(first.len()));
    assert_eq!(server.read(&mut wire, second).unwrap(), Read::Bytes(second.len()));
    assert_eq!(server.read(&mut wire, &mut [0; 9]).unwrap(), Read::Starved);
    assert!(read == most);
    // What is more has to be asked for again.
    let more = vec![0; SEAL_MAX + 1];
    let mut wire = vec![0; Session::room(more.len())];
    assert_eq!(client.seal(&[IoSlice::new(&more)], &mut wire).unwrap().data, SEAL_MAX);
}

#[tokio::test]
async fn what_came_before_a_fault_is_read_and_then_the_fault_again_and_again() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path()).await;
    let mut wire = sealed(&mut client, b"good");
    let good = wire.len();
    wire.extend(sealed(&mut client, b"damaged"));
    wire[good + 8] ^= 1;
    server.received(wire.len());
    let mut room = [0; 9];
    assert_eq!(server.read(&mut wire, &mut room).unwrap(), Read::Bytes(4));
    for _ in 0..3 {
        let error = server.read(&mut wire, &mut room).unwrap_err();
        assert!(error.to_string().contains("damaged on its way"), "{error}");
    }
    // The other side is told why.
    let mut goodbye = [0; 100];
    let length = server.seal_close(&mut goodbye).unwrap();
    let error = drip(&mut client, &goodbye[..length]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[tokio::test]
async fn what_is_damaged_is_not_read() {
    let dir = pki();
    for at in [0, 1, 3, 4, 5, 20] {
        let (mut server, mut client) = sessions(dir.path()).await;
        let good = sealed(&mut client, b"good");
        let mut bad = sealed(&mut client, b"twenty bytes of data");
        bad[at] ^= 0x10;
        assert_eq!(drip(&mut server, &good).unwrap(), b"good");
        match drip(&mut server, &bad) {
            Err(_) => {}
            // A length that became longer: more is awaited, and an end is no orderly one.
            Ok(read) => assert!(read.is_empty() && (at == 3 || at == 4), "byte {at}"),
        }
        assert!(matches!(server.ended(), Err(TlsFault::Cut)));
    }
    // Nothing is taken behind something damaged, nor anything twice.
    let (mut server, mut client) = sessions(dir.path()).await;
    let wire = sealed(&mut client, b"once");
    let twice = [wire.clone(), wire].concat();
    let fault = drip(&mut server, &twice).unwrap_err();
    assert!(matches!(fault, TlsFault::Tls(rustls::Error::DecryptError)), "{fault}");
    let next = sealed(&mut client, b"more");
    assert!(drip(&mut server, &next).is_err());
}

#[tokio::test]
async fn records_without_data_are_bounded() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path()).await;
    let many: Vec<u8> = (0..40).flat_map(|_| client.ask_for_keys().unwrap()).collect();
    let fault = drip(&mut server, &many).unwrap_err();
    assert!(
        matches!(fault, TlsFault::Tls(rustls::Error::PeerMisbehaved(_))),
        "{fault}"
    );
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_cut() {
    let dir = pki();
    let (mut server, client) = pair(dir.path()).await;
    drop(client);
    let error = server.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("without TLS close_notify"), "{error}");
}

#[tokio::test]
async fn who_is_refused_is_told_why_on_both_sides() {
    let dir = pki();
    let dir = dir.path();
    let required = |of: &str| server(dir, Asked::Required(dir.join(of).join("ca-cert.pem")));
    let refusal = async |server, client: ClientTls| {
        let (ours, theirs) = meet(server, client.load().unwrap()).await;
        // The client hears of it, or of the end, when it reads.
        let ours = ours.map(|_| ()).map_err(|fault| fault.to_string());
        let theirs = match theirs {
            Ok(mut stream) => stream
                .read(&mut [0; 9])
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        (ours, theirs)
    };
    let (ours, theirs) = refusal(required(""), client(dir, true)).await;
    assert_eq!(ours, Ok(()), "{theirs:?}");
    let (ours, theirs) = refusal(required(""), client(dir, false)).await;
    assert!(ours.unwrap_err().contains("shows no certificate"));
    assert!(theirs.unwrap_err().contains("it requires a certificate"));
    let (ours, _) = refusal(required("wrong-ca"), client(dir, true)).await;
    assert!(ours.unwrap_err().contains("wrong CA"));
    let (ours, theirs) = refusal(server(dir, Asked::No), client(&dir.join("wrong-ca"), false)).await;
    assert!(theirs.unwrap_err().contains("wrong CA"));
    assert!(ours.unwrap_err().contains("wrong CA"), "as the alert says");
    let (_, theirs) = refusal(server(&dir.join("wrong-name"), Asked::No), client(dir, false)).await;
    let theirs = theirs.unwrap_err();
    assert!(
        theirs.contains("wrong name") && theirs.contains("elsewhere.example"),
        "{theirs}"
    );
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let dir = pki();
    let dir = dir.path();
    let why = |identity: Identity| identity.check().unwrap_err().to_string();
    assert!(identity(dir, "server").check().is_ok());
    assert!(why(identity(&dir.join("expired"), "server")).contains("expired on"));
    assert!(why(identity(dir, "nobody")).contains("check the path"));
    let mut mixed = identity(dir, "server");
    mixed.key = dir.join("client-key.pem");
    assert!(why(mixed).contains("does not belong to"));
    let mut swapped = identity(dir, "server");
    swapped.certificate = dir.join("server-key.pem");
    assert!(why(swapped).contains("no certificate is in it"));
    assert!(check_ca(&dir.join("ca-cert.pem")).is_ok());
    std::fs::write(
        dir.join("damaged"),
        "-----BEGIN CERTIFICATE-----\nMIIB!!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(check_ca(&dir.join("damaged")).is_err());
}

#[test]
fn names_are_the_alternative_ones() {
    let dir = pki();
    let der = |file: &str| {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_file(dir.path().join(file)).unwrap()
    };
    let expected = ["client.example", "blockmirror:client", "client@example.org"];
    assert_eq!(names(&der("client-cert.pem")), expected);
    assert_eq!(names(&der("ca-cert.pem")), ["blockmirror test CA"], "the common name");
    assert!(names(b"nothing").is_empty());
}
