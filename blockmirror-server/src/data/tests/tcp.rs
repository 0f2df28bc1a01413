//! Peers over TCP, where the end of a connection is not the end of what was sent on it.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nbd_proto::constants::command;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_linger;
use tokio::sync::oneshot;

use super::peer::{PlayedPeer, equal_peer};
use super::rig::{Build, Dial, MIB, Peering, Rig};
use super::transmission::on_both_engines;
use crate::data::ToData;
use crate::data::peer::SETTLE;

const PATIENCE: Duration = Duration::from_secs(20);

/// The ends of one connection: the peer's, and a second descriptor of ours.
struct Ends {
    peer: PlayedPeer,
    ours: OwnedFd,
}

/// A way to dial over TCP. Reading and writing is the same for both kinds of stream sockets, so those of TCP go by the
/// type of the Unix ones here.
fn tcp_peers() -> (Dial, Receiver<Ends>) {
    let (made, peers) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dial: Dial = Box::new(move |_| {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let ours = near.try_clone().unwrap().into();
        let peer = PlayedPeer {
            stream: UnixStream::from(OwnedFd::from(far)),
        };
        made.send(Ends { peer, ours }).map_err(|error| error.to_string())?;
        Ok(UnixStream::from(OwnedFd::from(near)))
    });
    (dial, peers)
}

fn start(engine: crate::ring::EngineChoice, timeout: Duration) -> (Rig, Receiver<Ends>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = tcp_peers();
    let peering = Peering {
        request_timeout: timeout,
        fence_timeout: timeout,
        ..equal_peer()
    };
    let rig = Build::memory(engine, 32 * MIB)
        .with_peer(directory.path(), peering, dial)
        .start();
    (rig, peers, directory)
}

#[test]
fn a_close_resets_unless_everything_was_answered() {
    on_both_engines(|engine| {
        let (rig, peers, _directory) = start(engine, PATIENCE);
        let Ends { mut peer, ours } = peers.recv_timeout(PATIENCE).unwrap();
        rig.wait("connected", |volume| {
            volume.peers[0].attempts == 0 && rig.dials().len() == 1
        });
        let mut host = rig.connect(false);
        host.ask_write(1, 0, &[1; 4096]);
        let (request, _) = peer.request();
        assert_eq!(socket_linger(&ours).unwrap(), Some(Duration::ZERO));
        peer.answer(&request, None);
        host.expect_ok(1);
        let (answer, asked) = oneshot::channel();
        assert!(rig.sender().send(ToData::Command {
            volume: 0,
            peer: 0,
            command: blockmirror_client::admin::PeerCommand::Disconnect,
            answer,
        }));
        asked.blocking_recv().unwrap().unwrap();
        assert_eq!(peer.request().0.command, command::DISCONNECT);
        assert_eq!(socket_linger(&ours).unwrap(), None, "the good-bye must not be lost");
    });
}

/// What the peer has not been sent when the fence falls is in our own send buffer: it must not be sent later.
#[test]
fn what_was_not_sent_is_thrown_away_when_the_fence_falls() {
    on_both_engines(|engine| {
        let (rig, peers, _directory) = start(engine, Duration::from_millis(50));
        let Ends { mut peer, ours } = peers.recv_timeout(PATIENCE).unwrap();
        drop(ours);
        // Far more than the buffers of both ends hold.
        let length = 16 << 20;
        rig.connect(false).write(0, &vec![1; length]);
        let _second = peers.recv_timeout(PATIENCE).unwrap();
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        let broken = poll(&mut [PollFd::new(&peer.stream, PollFlags::ERR)], Some(&patience)).unwrap();
        assert_eq!(broken, 1, "the connection was reset");
        let mut arrived = Vec::new();
        let error = peer.stream.read_to_end(&mut arrived).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(arrived.len() < length);
    });
}

/// A reset or an end of stream may come from somewhere on the way, with requests still behind it.
#[test]
fn the_next_connection_waits_after_an_end_with_requests_in_flight() {
    on_both_engines(|engine| {
        for (timeout, given_up_first) in [(PATIENCE, false), (Duration::from_millis(50), true)] {
            let (rig, peers, _directory) = start(engine, timeout);
            let Ends { mut peer, ours } = peers.recv_timeout(PATIENCE).unwrap();
            drop(ours);
            let mut host = rig.connect(false);
            host.ask_write(1, 0, &[1; 4096]);
            peer.request();
            if given_up_first {
                host.expect_ok(1);
            }
            let end = Instant::now();
            drop(peer);
            let _second = peers.recv_timeout(PATIENCE).unwrap();
            assert!(end.elapsed() >= SETTLE);
            if !given_up_first {
                host.expect_ok(1);
            }
        }
    });
}
