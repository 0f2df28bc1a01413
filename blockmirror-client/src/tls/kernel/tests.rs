//! Sessions that go to the kernel, without one.
#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::path::Path;

use tokio::io::duplex;

use super::super::tests::pki;
use super::super::{Asked, ClientTls, Identity, ServerTls, Session, TlsStream, accept};
use super::*;

/// Both sides after the handshake: the server's first.
async fn sessions(dir: &Path, wanted: bool) -> (Session, Session) {
    let file = |name: &str| dir.join(name);
    let identity = Identity {
        certificate: file("server-cert.pem"),
        key: file("server-key.pem"),
    };
    let asked = Asked::No;
    let mut server = ServerTls { identity, asked }.load().unwrap();
    let settings = ClientTls {
        ca: Some(file("ca-cert.pem")),
        name: "localhost".to_owned(),
        ..ClientTls::default()
    };
    let mut client = settings.load().unwrap();
    if wanted {
        server = for_kernel(server);
        client = client.for_kernel();
    }
    let (near, mut far) = duplex(1 << 20);
    let (server, client) = tokio::join!(accept(&mut far, server), client.secure(near));
    let server = TlsStream::new(far, server.unwrap().session);
    (
        server.into_parts().unwrap().session,
        client.unwrap().into_parts().unwrap().session,
    )
}

fn bytes(keys: &Keys) -> (u64, Vec<u8>) {
    match &keys.secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (keys.sequence, [key.as_ref(), iv.as_ref()].concat()),
        _ => panic!("another cipher"),
    }
}

fn assert_fit(sealing: &Keys, opening: &Keys) {
    assert_eq!(bytes(sealing), bytes(opening));
}

#[tokio::test]
async fn each_side_opens_what_the_other_seals_before_and_after_a_change_of_keys() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path(), true).await;
    // Records that were sealed before are counted.
    for _ in 0..3 {
        let mut wire = vec![0; Session::room(4)];
        let sealed = server.seal(&[IoSlice::new(b"data")], &mut wire).unwrap();
        client.received(sealed.bytes);
        client.read(&mut wire[..sealed.bytes], &mut [0; 9]).unwrap();
    }
    assert!(server.is_for_kernel() && client.is_for_kernel());
    let (mut server, mut client) = (server.into_kernel().unwrap(), client.into_kernel().unwrap());
    assert_fit(&server.send, &client.receive);
    assert_fit(&client.send, &server.receive);
    assert_eq!(server.send.sequence, 3);
    assert!(server.early.is_empty() && client.early.is_empty());
    for _ in 0..2 {
        let before = bytes(&server.send);
        server.send = server.session.next_send_keys().unwrap();
        assert_fit(&server.send, &client.session.next_receive_keys().unwrap());
        assert_ne!(bytes(&server.send).1, before.1);
        assert_eq!(server.send.sequence, 0);
        assert_fit(
            &client.session.next_send_keys().unwrap(),
            &server.session.next_receive_keys().unwrap(),
        );
    }
}

#[tokio::test]
async fn a_change_of_keys_that_waits_goes_before() {
    let dir = pki();
    let (mut server, mut client) = sessions(dir.path(), true).await;
    let mut request = client.ask_for_keys().unwrap();
    server.received(request.len());
    server.read(&mut request, &mut [0; 9]).unwrap();
    let server = server.into_kernel().unwrap();
    let mut early = server.early;
    client.received(early.len());
    client.read(&mut early, &mut [0; 9]).unwrap();
    assert_fit(&server.send, &client.into_kernel().unwrap().receive);
}

#[tokio::test]
async fn what_is_half_done_or_was_not_asked_for_is_not_for_the_kernel() {
    let dir = pki();
    let (server, _) = sessions(dir.path(), false).await;
    assert!(!server.is_for_kernel());
    let (mut server, mut client) = sessions(dir.path(), true).await;
    let mut wire = vec![0; Session::room(9)];
    let length = client.seal(&[IoSlice::new(b"nine byte")], &mut wire).unwrap().bytes;
    let (begin, end) = wire[..length].split_at_mut(length - 3);
    server.received(begin.len());
    server.read(begin, &mut [0; 9]).unwrap();
    assert!(!server.is_for_kernel(), "the end of a record is missing");
    server.received(end.len());
    server.read(end, &mut [0; 4]).unwrap();
    assert!(!server.is_for_kernel(), "data has not been read");
    server.read(end, &mut [0; 5]).unwrap();
    assert!(server.is_for_kernel());
}

#[tokio::test]
async fn records_without_data_are_understood() {
    let dir = pki();
    let (server, client) = sessions(dir.path(), true).await;
    let (mut server, mut client) = (
        server.into_kernel().unwrap().session,
        client.into_kernel().unwrap().session,
    );
    let ticket = [4, 0, 0, 2, 7, 7];
    let keys = |answer: bool| [24, 0, 0, 1, u8::from(answer)];
    assert_eq!(server.hear(ALERT, &[1, 0]).unwrap(), Aside::Closed);
    assert_eq!(server.hear(ALERT, &[1, 90]).unwrap(), Aside::Nothing);
    assert_eq!(
        server.hear(HANDSHAKE, &KEY_UPDATE).unwrap(),
        Aside::NewKeys { answer: false }
    );
    assert_eq!(
        server.hear(HANDSHAKE, &keys(true)).unwrap(),
        Aside::NewKeys { answer: true }
    );
    let tickets = [&ticket[..], &ticket].concat();
    assert_eq!(client.hear(HANDSHAKE, &tickets).unwrap(), Aside::Nothing);
    let both = [&ticket[..], &keys(true)].concat();
    assert_eq!(client.hear(HANDSHAKE, &both).unwrap(), Aside::NewKeys { answer: true });
    let wrong: [(u8, &[u8]); 9] = [
        (HANDSHAKE, &ticket),
        (HANDSHAKE, &[]),
        (HANDSHAKE, &[24, 0, 0, 1]),
        (HANDSHAKE, &[24, 0, 0, 1, 2]),
        (HANDSHAKE, &[24, 0, 0, 2, 0, 0]),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]),
        (HANDSHAKE, &[1, 0, 0, 0]),
        (20, &[1]),
        (ALERT, &[1]),
    ];
    for (record_type, content) in wrong {
        assert!(server.hear(record_type, content).is_err(), "{record_type}: {content:?}");
    }
    let gone = server
        .hear(ALERT, &[2, AlertDescription::BadRecordMac.into()])
        .unwrap_err();
    assert_eq!(std::io::Error::from(gone).kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn records_without_data_are_bounded() {
    let dir = pki();
    let (server, _) = sessions(dir.path(), true).await;
    let mut server = server.into_kernel().unwrap().session;
    for _ in 0..3 {
        for _ in 0..ASIDES_MAX {
            server.hear(HANDSHAKE, &KEY_UPDATE).unwrap();
        }
        server.heard_data();
    }
    for _ in 0..ASIDES_MAX {
        server.hear(HANDSHAKE, &KEY_UPDATE).unwrap();
    }
    assert!(server.hear(HANDSHAKE, &KEY_UPDATE).is_err());
}
