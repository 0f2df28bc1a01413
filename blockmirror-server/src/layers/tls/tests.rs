//! Two ends of one connection under one driver, of every kind, with trouble below.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use blockmirror_client::stream::{PlainStream, Stream};
use blockmirror_client::tls::{self, Asked, ClientTls, Identity, ServerTls, TlsStream};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::layers::{Fault, FaultLayer, FaultPlan};
use crate::ring::{EngineChoice, InlinePolicy, OpKind, Segment, Socket, kernel_tls, open_driver_with, receive_now};

const ROUNDS_MAX: usize = 100_000;

/// What lies between two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Unix,
    /// TCP, with TLS in the kernel of either end, where it has it.
    Kernels,
    /// TCP, with TLS in the kernel of the server's end and in user space of the client's.
    KernelAndUser,
}

/// Certificates, once for all tests.
fn pki() -> &'static Path {
    static PKI: OnceLock<TempDir> = OnceLock::new();
    PKI.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pki");
        assert!(Command::new(script).arg(dir.path()).status().unwrap().success());
        dir
    })
    .path()
}

/// Both ends, as the data threads have them: the server's first.
fn ends(between: Between) -> (Socket, Socket) {
    let file = |name: &str| pki().join(name);
    let identity = Identity {
        certificate: file("server-cert.pem"),
        key: file("server-key.pem"),
    };
    let server = ServerTls {
        identity,
        asked: Asked::No,
    };
    let client = ClientTls {
        ca: Some(file("ca-cert.pem")),
        name: "localhost".to_owned(),
        ..ClientTls::default()
    };
    let (mut server, mut client) = (server.load().unwrap(), client.load().unwrap());
    // As the daemon decides it.
    let has_it = kernel_tls().is_ok();
    if has_it {
        server = tls::for_kernel(server);
    }
    if has_it && between != Between::KernelAndUser {
        client = client.for_kernel();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (server, client) = runtime.block_on(async {
        let (near, mut far) = wire(between).await;
        let (secured, stream) = tokio::join!(tls::accept(&mut far, server), client.secure(near));
        let far = TlsStream::new(far, secured.unwrap().session);
        (socket(far), socket(stream.unwrap()))
    });
    assert_eq!(server.has_kernel_tls(), has_it && between != Between::Unix);
    assert_eq!(client.has_kernel_tls(), has_it && between == Between::Kernels);
    (server, client)
}

async fn wire(between: Between) -> (PlainStream, PlainStream) {
    if between == Between::Unix {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        return (PlainStream::Unix(near), PlainStream::Unix(far));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (PlainStream::Tcp(near), PlainStream::Tcp(far))
}

fn socket(stream: TlsStream<PlainStream>) -> Socket {
    let (wire, unread) = Stream::Tls(Box::new(stream)).into_wire().unwrap();
    assert!(unread.is_empty());
    Socket::secured(wire.socket, *wire.tls.unwrap()).unwrap()
}

/// Every engine, and everything between two ends under it.
fn everywhere(test: impl Fn(Box<dyn Driver>, (Socket, Socket))) {
    for choice in [EngineChoice::Uring, EngineChoice::Threads] {
        for policy in [InlinePolicy::Adaptive, InlinePolicy::Never] {
            for between in [Between::Unix, Between::Kernels, Between::KernelAndUser] {
                test(open_driver_with(choice, policy).unwrap(), ends(between));
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// `bytes` from one end to the other, received into `room` bytes at a time; `now` also without the driver.
fn carry(driver: &mut TlsLayer, (from, to): (&Socket, &Socket), bytes: &[u8], room: usize, now: bool) {
    let (sender, receiver) = (1, 2);
    let segments = bytes
        .chunks(100_003)
        .map(|piece| Segment::Bytes(piece.to_vec()))
        .collect();
    let mut ended = Vec::new();
    let mut received = Vec::new();
    let (socket, skip) = (from.clone(), 0);
    ended.extend(driver.submit(sender, Op::Send { socket, segments, skip }));
    let receive = |driver: &mut TlsLayer| {
        let (socket, buffer, filled) = (to.clone(), driver.pool().take(room), 0);
        driver.submit(receiver, Op::Receive { socket, buffer, filled })
    };
    ended.extend(receive(driver));
    for _ in 0..ROUNDS_MAX {
        for Completion { result, op, .. } in std::mem::take(&mut ended) {
            let transient = result
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
            let count = if transient { 0 } else { result.unwrap() };
            match op {
                Op::Send { socket, segments, skip } if skip + count < bytes.len() => {
                    let skip = skip + count;
                    ended.extend(driver.submit(sender, Op::Send { socket, segments, skip }));
                }
                Op::Receive { buffer, .. } => {
                    received.extend_from_slice(&buffer.as_slice()[..count]);
                    let mut more = vec![0; room];
                    while let Some(Ok(count)) = now.then(|| receive_now(to, &mut more)).flatten() {
                        received.extend_from_slice(&more[..count]);
                    }
                    if received.len() < bytes.len() {
                        ended.extend(receive(driver));
                    }
                }
                _ => {}
            }
        }
        if received.len() >= bytes.len() {
            break;
        }
        let patience = if ended.is_empty() {
            Duration::from_secs(1)
        } else {
            Duration::ZERO
        };
        driver.wait(Some(patience), &mut ended).unwrap();
    }
    assert!(received == bytes, "{} of {} bytes", received.len(), bytes.len());
    while driver.in_flight() > 0 {
        driver.wait(Some(Duration::from_secs(1)), &mut ended).unwrap();
    }
}

fn receive_once(driver: &mut TlsLayer, socket: &Socket) -> io::Result<usize> {
    let (socket, buffer, filled) = (socket.clone(), driver.pool().take(100), 0);
    let mut ended: Vec<Completion> = driver
        .submit(3, Op::Receive { socket, buffer, filled })
        .into_iter()
        .collect();
    while ended.is_empty() {
        driver.wait(Some(Duration::from_secs(1)), &mut ended).unwrap();
    }
    ended.remove(0).result
}

#[test]
fn bytes_come_through_whole_and_in_order_both_ways() {
    everywhere(|driver, (one, other)| {
        let mut driver = TlsLayer::new(driver);
        for (length, room) in [(1, 1), (5_000, 7), (3 << 20, 64 << 10), (1 << 20, 100_001)] {
            let bytes = pattern(length);
            carry(&mut driver, (&one, &other), &bytes, room, false);
            carry(&mut driver, (&other, &one), &bytes, room, true);
        }
        one.shutdown_both().unwrap();
        for _ in 0..3 {
            assert_eq!(receive_once(&mut driver, &other).unwrap(), 0, "an end that was meant");
        }
        assert!(other.has_hung_up());
    });
}

#[test]
fn short_and_interrupted_operations_below_are_not_seen_above() {
    everywhere(|driver, (one, other)| {
        let plan = FaultPlan::new();
        let mut driver = TlsLayer::new(Box::new(FaultLayer::new(driver, plan.clone())));
        plan.add(OpKind::Receive, (0..400).map(|at| Fault::Short(1 + at % 3)));
        plan.add(OpKind::Send, [Fault::EINTR, Fault::EINTR]);
        let bytes = pattern(300_000);
        carry(&mut driver, (&one, &other), &bytes, 4096, false);
        assert_eq!(plan.left(), 0);
    });
}

#[test]
fn an_end_that_was_not_meant_is_a_reset_and_not_an_end() {
    everywhere(|driver, (one, other)| {
        let mut driver = TlsLayer::new(driver);
        let raw = UnixStream::from(std::os::fd::AsFd::as_fd(&one).try_clone_to_owned().unwrap());
        raw.shutdown(std::net::Shutdown::Both).unwrap();
        for _ in 0..2 {
            let error = receive_once(&mut driver, &other).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

/// Keys change because they are worn, and because the other side asks for it, with data on its way in both directions.
/// Where the kernel has no TLS this is of data alone: rustls' changes are tried in its own session's tests.
#[test]
fn keys_change_on_the_way_and_nothing_is_lost() {
    everywhere(|driver, (one, other)| {
        let mut driver = TlsLayer::new(driver);
        let bytes = pattern(700_000);
        for round in 0..3 {
            for socket in [&one, &other] {
                if let Some(kernel) = socket.kernel_tls() {
                    kernel.wear_keys();
                }
            }
            carry(&mut driver, (&one, &other), &bytes, 50_000, round == 1);
            carry(&mut driver, (&other, &one), &bytes, 50_000, round == 2);
            if let Some(kernel) = one.kernel_tls() {
                assert!(kernel.records() < 1000, "new keys");
                kernel.ask_for_keys(&one);
            }
            carry(&mut driver, (&one, &other), &bytes, 4_096, false);
            // A count that only a change of keys takes back.
            if let Some(kernel) = other.kernel_tls() {
                kernel.count_up();
            }
            carry(&mut driver, (&other, &one), &bytes, 4_096, true);
            if let Some(kernel) = other.kernel_tls() {
                assert!(kernel.records() < 1000, "the other side's, because it was asked");
            }
        }
        other.shutdown_both().unwrap();
        assert_eq!(receive_once(&mut driver, &one).unwrap(), 0);
    });
}
