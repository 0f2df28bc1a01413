//! A peer played by the test: it answers what and when it wants.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nbd_proto::constants::command;
use nbd_proto::reply::simple_reply;
use nbd_proto::{NbdError, ReplyStyle, Request, TransmissionFlags};

use super::host::export;
use super::rig::{Build, Dial, MIB, Peering};
use crate::ring::EngineChoice;

const PATIENCE: Duration = Duration::from_secs(20);

/// The peer's end of a connection.
pub(super) struct PlayedPeer {
    pub(super) stream: UnixStream,
}

/// A way to dial, and where the other ends come out.
pub(super) fn played_peers() -> (Dial, Receiver<PlayedPeer>) {
    let (made, peers) = channel();
    let dial: Dial = Box::new(move |_| {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        ours.set_read_timeout(Some(PATIENCE))
            .map_err(|error| error.to_string())?;
        made.send(PlayedPeer { stream: ours })
            .map_err(|error| error.to_string())?;
        Ok(theirs)
    });
    (dial, peers)
}

impl PlayedPeer {
    /// The next request, with its payload.
    pub(super) fn request(&mut self) -> (Request, Vec<u8>) {
        let mut header = [0; Request::LENGTH];
        self.stream.read_exact(&mut header).unwrap();
        let request = Request::decode(&header).unwrap();
        let mut payload = vec![0; request.payload_length(ReplyStyle::Structured) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        (request, payload)
    }

    pub(super) fn answer(&mut self, request: &Request, error: Option<NbdError>) {
        self.stream.write_all(&simple_reply(request.cookie, error)).unwrap();
    }

    /// Nothing arrives within a moment in which it would have.
    pub(super) fn expect_silence(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let error = loop {
            let error = self.stream.read(&mut [0; 1]).expect_err("nothing is sent");
            if error.kind() != ErrorKind::Interrupted {
                break error;
            }
        };
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{error}"
        );
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Everything up to the end of the stream.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// A peer known to be equal: it is Established at once.
pub(super) fn equal_peer() -> Peering {
    Peering {
        skip_initial_sync: true,
        ..Peering::default()
    }
}

/// What an operator has to be able to read when a peer does not fit.
#[test]
fn a_peer_that_does_not_fit_is_refused_and_the_volume_goes_on() {
    let flags = export(0, 1).flags;
    let cases = [
        (
            Peering {
                size: Some(MIB - 4096),
                ..equal_peer()
            },
            "at least as large",
        ),
        (
            Peering {
                flags: flags | TransmissionFlags::READ_ONLY,
                ..equal_peer()
            },
            "read-only",
        ),
        (
            Peering {
                minimum_block: 4096,
                ..equal_peer()
            },
            "multiples of 4096",
        ),
    ];
    for (peering, text) in cases {
        let directory = tempfile::tempdir().unwrap();
        let (dial, _peers) = played_peers();
        let rig = Build::memory(EngineChoice::Auto, MIB)
            .with_peer(directory.path(), peering, dial)
            .start();
        let volume = rig.wait("a few attempts", |volume| volume.peers[0].attempts >= 3);
        let error = volume.peers[0].last_error.clone().unwrap();
        assert!(error.contains(text), "{error}");
        rig.connect(false).write(0, &[1; 4096]);
        assert!(rig.dials().len() >= 3);
        assert!(rig.stop());
    }
}

/// The peer's side of the zombie-write rule: no new connection before the peer has closed the lost one.
#[test]
fn the_next_connection_waits_for_the_end_of_the_lost_one() {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = played_peers();
    let peering = Peering {
        request_timeout: Duration::from_millis(50),
        ..equal_peer()
    };
    let rig = Build::memory(EngineChoice::Auto, MIB)
        .with_peer(directory.path(), peering, dial)
        .start();
    let mut first = peers.recv_timeout(PATIENCE).unwrap();
    let mut host = rig.connect(false);
    host.ask_write(1, 0, &[1; 4096]);
    let (request, payload) = first.request();
    assert_eq!((request.command, payload), (command::WRITE, vec![1; 4096]));
    // It is never answered: the link is given up, the write is answered without the peer.
    host.expect_ok(1);
    assert_eq!(first.rest(), b"", "the stream to the lost peer has ended");
    host.write(0, &[2; 4096]);
    // A late answer changes nothing, and neither does waiting.
    first.answer(&request, None);
    assert_eq!(rig.dials().len(), 1, "the peer still holds the old connection");
    let volume = rig.snapshot();
    assert!(volume.peers[0].dirty_bytes > 0);
    assert!(volume.peers[0].last_error.as_ref().unwrap().contains("not answered"));
    drop(first);
    let mut second = peers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rig.dials().len(), 2);
    // What comes over the new connection is the newest data.
    let (request, payload) = second.request();
    assert_eq!(
        (request.command, request.offset, payload[..4096].to_vec()),
        (command::WRITE, 0, vec![2; 4096])
    );
    // Whatever the peer does now, the host was answered already: let the stop run into its deadline.
}

#[test]
fn a_peer_that_never_closes_is_waited_for_only_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = played_peers();
    let timeout = Duration::from_millis(50);
    let peering = Peering {
        request_timeout: timeout,
        fence_timeout: timeout,
        ..equal_peer()
    };
    let rig = Build::memory(EngineChoice::Auto, MIB)
        .with_peer(directory.path(), peering, dial)
        .start();
    let first = peers.recv_timeout(PATIENCE).unwrap();
    rig.connect(false).write(0, &[1; 4096]);
    let _second = peers.recv_timeout(PATIENCE).unwrap();
    assert!(rig.dials().len() >= 2);
    drop(first);
}

#[test]
fn a_peer_that_talks_nonsense_is_given_up_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = played_peers();
    let rig = Build::memory(EngineChoice::Auto, MIB)
        .with_peer(directory.path(), equal_peer(), dial)
        .start();
    let mut peer = peers.recv_timeout(PATIENCE).unwrap();
    let mut host = rig.connect(false);
    host.ask_write(1, 0, &[1; 4096]);
    peer.request();
    peer.stream.write_all(&[0xee; 16]).unwrap();
    host.expect_ok(1);
    let volume = rig.wait("the reason", |volume| volume.peers[0].last_error.is_some());
    let reason = volume.peers[0].last_error.clone().unwrap();
    assert!(reason.contains("broke the protocol"), "{reason}");
}

/// FUA for a peer that has none is a FLUSH behind the write; TRIM for a peer without WRITE_ZEROES is a WRITE.
#[test]
fn what_a_peer_cannot_do_is_done_another_way() {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = played_peers();
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
    let rig = Build::memory(EngineChoice::Auto, 4 * MIB)
        .with_peer(directory.path(), Peering { flags, ..equal_peer() }, dial)
        .start();
    let mut peer = peers.recv_timeout(PATIENCE).unwrap();
    let mut host = rig.connect(false);
    host.ask(nbd_proto::Command::Trim { fua: true }, 1, 0, 3 << 20);
    let mut zeroed = 0;
    while zeroed < 3 * MIB {
        let (request, payload) = peer.request();
        assert_eq!(
            (request.command, request.offset, request.flags.bits()),
            (command::WRITE, zeroed, 0)
        );
        assert!(payload.iter().all(|&byte| byte == 0));
        zeroed += payload.len() as u64;
        peer.answer(&request, None);
    }
    let (request, _) = peer.request();
    assert_eq!(request.command, command::FLUSH);
    peer.expect_silence();
    peer.answer(&request, None);
    host.expect_ok(1);
}

/// A hole is left as it is, here and there; what must be durable, or have its space, is not taken for done.
#[test]
fn zeroing_jumps_over_holes_and_over_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (dial, peers) = played_peers();
    let rig = Build::memory(EngineChoice::Auto, 512 * MIB)
        .with_peer(directory.path(), equal_peer(), dial)
        .start();
    let mut peer = peers.recv_timeout(PATIENCE).unwrap();
    let mut host = rig.connect(false);
    let zero = |fua, no_hole| nbd_proto::Command::WriteZeroes {
        fua,
        no_hole,
        fast: false,
    };
    host.ask(nbd_proto::Command::Trim { fua: false }, 1, 4096, 500 * MIB);
    host.expect_ok(1);
    host.ask(zero(false, false), 2, 0, 512 * MIB);
    host.expect_ok(2);
    peer.expect_silence();
    for command in [
        zero(true, false),
        zero(false, true),
        nbd_proto::Command::Trim { fua: true },
    ] {
        host.ask(command, 3, MIB, 4096);
        let (request, _) = peer.request();
        assert_eq!((request.offset, request.length), (MIB, 4096));
        peer.answer(&request, None);
        host.expect_ok(3);
    }
    host.ask_write(4, 300 * MIB, &[1; 4096]);
    let (request, _) = peer.request();
    peer.answer(&request, None);
    host.expect_ok(4);
    host.ask(zero(false, false), 5, 2 * MIB, 500 * MIB);
    let (request, _) = peer.request();
    assert_eq!(request.offset, 300 * MIB, "the first byte that is not in a hole");
    assert!(request.length >= 4096);
    peer.answer(&request, None);
    host.expect_ok(5);
    peer.expect_silence();
    assert_eq!(host.read(300 * MIB, 4096), [0; 4096]);
}
