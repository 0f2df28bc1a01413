//! Two data threads: a mirrored volume, and the export that holds its remote leg.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use blockmirror_client::admin::{DiskState, ReplicationState};

use super::rig::{Build, Dial, MIB, Peering, Rig};
use crate::ring::EngineChoice;

/// Bytes of the volume.
pub(super) const SIZE: u64 = 24 * MIB;

/// A mirrored volume, its remote leg, and the wire between them.
pub(super) struct Pair {
    pub(super) primary: Rig,
    pub(super) remote: Arc<Rig>,
    wire: Arc<Mutex<Wire>>,
    directory: tempfile::TempDir,
}

/// The connection to the remote leg.
#[derive(Default)]
struct Wire {
    cut: bool,
    present: Option<UnixStream>,
}

impl Pair {
    pub(super) fn start(engine: EngineChoice, peering: Peering, prepare: impl Fn(&Path, &Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
        prepare(&ours, &theirs);
        let remote = Arc::new(Build::file(engine, &theirs, SIZE).start());
        let wire = Arc::new(Mutex::new(Wire::default()));
        let dial: Dial = {
            let (remote, wire) = (Arc::clone(&remote), Arc::clone(&wire));
            Box::new(move |_| {
                let mut wire = wire.lock().unwrap();
                if wire.cut {
                    return Err("the wire is cut".to_owned());
                }
                let (near, far) = UnixStream::pair().unwrap();
                wire.present = Some(near.try_clone().unwrap());
                remote.hand_over(far.into(), nbd_proto::ReplyStyle::Simple, Vec::new(), Box::new(()));
                Ok(near)
            })
        };
        let primary = Build::file(engine, &ours, SIZE)
            .with_peer(directory.path(), peering, dial)
            .start();
        Self {
            primary,
            remote,
            wire,
            directory,
        }
    }

    pub(super) fn cut(&self) {
        let mut wire = self.wire.lock().unwrap();
        wire.cut = true;
        if let Some(stream) = wire.present.take() {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    pub(super) fn mend(&self) {
        self.wire.lock().unwrap().cut = false;
    }

    pub(super) fn wait_for_sync(&self) {
        self.primary.wait("the peer is up to date", |volume| {
            let peer = &volume.peers[0];
            let quiet = peer.dirty_bytes == 0 && peer.queue_bytes == 0 && peer.in_flight == 0;
            peer.replication_state == ReplicationState::Established && peer.disk_state == DiskState::UpToDate && quiet
        });
    }

    /// Stop both, in order, and compare.
    pub(super) fn end(self) {
        let Self {
            primary,
            remote,
            directory,
            wire,
        } = self;
        assert!(primary.stop(), "the primary stopped clean");
        drop(wire);
        let remote = Arc::into_inner(remote).expect("the primary's control side is gone");
        assert!(remote.stop(), "the remote stopped clean");
        let [ours, theirs] = ["ours", "theirs"].map(|name| std::fs::read(directory.path().join(name)).unwrap());
        let differs = ours
            .chunks(4096)
            .zip(theirs.chunks(4096))
            .position(|(ours, theirs)| ours != theirs);
        assert_eq!((differs, ours.len()), (None, theirs.len()), "first block that differs");
    }
}

/// Both images start empty.
pub(super) fn nothing(_: &Path, _: &Path) {}
