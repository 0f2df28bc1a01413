//! Images on disks that fail: what a host sees, and what the peer has.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockmirror_client::admin::DiskState;
use mirror_core::AckMode;
use mirror_core::config::OnIoError;
use mirror_core::state::LocalDisk;
use nbd_proto::NbdError;
use nix::libc;

use super::cluster::{Cluster, VOLUMES};
use super::rig::MIB;
use crate::ring::{BufferPool, Completion, Driver, EngineChoice, EngineReport, FileHandle, Op, OpKind, Waker};

const SIZE: u64 = 24 * MIB;

/// A part of a file that fails.
#[derive(Clone, Debug)]
pub(super) struct Flaw {
    inode: u64,
    kind: OpKind,
    range: Range<u64>,
    error: i32,
    /// Once all of it was written it is good again.
    heals: bool,
}

/// The flaws of a node's files.
pub(super) type Flaws = Arc<Mutex<Vec<Flaw>>>;

/// The error of what does not end while it is among the flaws.
pub(super) const STALLS: i32 = 0;

/// A driver whose files have flaws.
pub(super) struct BadDisk {
    inner: Box<dyn Driver>,
    flaws: Flaws,
}

impl BadDisk {
    pub(super) fn around(inner: Box<dyn Driver>, flaws: Flaws) -> Box<dyn Driver> {
        Box::new(Self { inner, flaws })
    }

    /// Wait while the operation is one that never ends: everything else of the node waits with it.
    fn stall(&self, op: &Op) {
        while self.error(op) == Some(STALLS) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn error(&self, op: &Op) -> Option<i32> {
        let (file, range) = touched(op)?;
        let mut flaws = self.flaws.lock().unwrap();
        if flaws.is_empty() {
            return None;
        }
        let inode = rustix::fs::fstat(file).unwrap().st_ino;
        let hit = |flaw: &&Flaw| {
            flaw.inode == inode
                && flaw.kind == op.kind()
                && flaw.range.start < range.end
                && range.start < flaw.range.end
        };
        let found = flaws.iter().find(hit).map(|flaw| flaw.error);
        if found.is_none() && op.kind() == OpKind::Write {
            let covered = |flaw: &Flaw| range.start <= flaw.range.start && flaw.range.end <= range.end;
            flaws.retain(|flaw| flaw.inode != inode || !flaw.heals || !covered(flaw));
        }
        found
    }
}

fn touched(op: &Op) -> Option<(&FileHandle, Range<u64>)> {
    match op {
        Op::Read {
            file,
            buffer,
            filled,
            offset,
        } => Some((file, *offset..*offset + (buffer.len() - filled) as u64)),
        Op::Write {
            file, payload, offset, ..
        } => Some((file, *offset..*offset + payload.len() as u64)),
        _ => None,
    }
}

impl Driver for BadDisk {
    fn submit(&mut self, token: u64, op: Op) -> Option<Completion> {
        self.stall(&op);
        match self.error(&op) {
            Some(error) => Some(Completion {
                token,
                result: Err(io::Error::from_raw_os_error(error)),
                op,
            }),
            None => self.inner.submit(token, op),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.inner.wait(timeout, out)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn pool(&self) -> &BufferPool {
        self.inner.pool()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn sends_files(&self) -> bool {
        self.inner.sends_files()
    }

    fn describe(&self) -> EngineReport {
        self.inner.describe()
    }
}

fn start(on_io_error: OnIoError) -> Cluster {
    let cluster = Cluster::start_with(EngineChoice::Auto, 2, AckMode::Sync, SIZE, on_io_error);
    for node in 0..2 {
        cluster.wait_connected(node);
    }
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    cluster
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

/// From now on the range of a node's first volume fails.
fn plant(cluster: &Cluster, node: usize, kind: OpKind, range: Range<u64>, error: i32, heals: bool) {
    let image = cluster.image(node, VOLUMES[0]);
    cluster.flaws[node]
        .lock()
        .unwrap()
        .push(flaw(&image, kind, range, error, heals));
}

fn flaw(file: &Path, kind: OpKind, range: Range<u64>, error: i32, heals: bool) -> Flaw {
    Flaw {
        inode: inode(file),
        kind,
        range,
        error,
        heals,
    }
}

/// What is written to the file fails from now on, and nothing else.
pub(super) fn fail_writes(flaws: &Flaws, file: &Path, error: i32) {
    let flaw = flaw(file, OpKind::Write, 0..u64::MAX, error, false);
    *flaws.lock().unwrap() = vec![flaw];
}

fn is_sound(cluster: &Cluster, node: usize) -> bool {
    cluster.flaws[node].lock().unwrap().is_empty()
}

#[test]
fn a_bad_sector_is_read_from_the_peer_and_written_again() {
    let mut cluster = start(OnIoError::Detach);
    let mut host = cluster.host(0, 0);
    host.write(MIB, &vec![5; 1 << 20]);
    host.flush();
    plant(&cluster, 0, OpKind::Read, MIB + 8192..MIB + 12_288, libc::EIO, true);
    assert_eq!(host.read(MIB, 65_536), vec![5; 65_536]);
    cluster.wait("it is written again", |cluster| is_sound(cluster, 0));
    assert_eq!(host.read(MIB, 65_536), vec![5; 65_536]);
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::UpToDate));
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

/// Nobody has the data: the host has to know, and all else goes on.
#[test]
fn a_sector_that_is_bad_on_both_nodes_is_an_error_of_that_sector_alone() {
    let mut cluster = start(OnIoError::Detach);
    let mut host = cluster.host(0, 0);
    host.write(MIB, &vec![5; 1 << 20]);
    host.flush();
    let before = cluster.resource(0).streams.remove(0).last_error;
    for node in [0, 1] {
        plant(&cluster, node, OpKind::Read, MIB + 8192..MIB + 12_288, libc::EIO, true);
    }
    for _ in 0..3 {
        assert_eq!(host.read_error(MIB + 8192, 4096), NbdError::Io);
        assert_eq!(host.read(MIB + 12_288, 4096), vec![5; 4096]);
    }
    let stream = cluster.resource(0).streams.remove(0);
    assert!(stream.connected && stream.last_error == before, "{stream:?}");
    host.write(MIB + 8192, &[6; 4096]);
    host.flush();
    cluster.wait("it is good again", |cluster| {
        is_sound(cluster, 0) && is_sound(cluster, 1)
    });
    assert_eq!(host.read(MIB + 8192, 4096), vec![6; 4096]);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn an_image_that_cannot_be_written_is_detached_and_no_host_sees_it() {
    let mut cluster = start(OnIoError::Detach);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![1; 1 << 20]);
    plant(&cluster, 0, OpKind::Write, 0..SIZE, libc::EIO, false);
    host.write(MIB / 2, &vec![2; 1 << 20]);
    host.flush();
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::Diskless));
    assert_eq!(host.read(MIB / 2, 1 << 20), vec![2; 1 << 20]);
    cluster.flaws[0].lock().unwrap().clear();
    cluster.attach(0, 0, false);
    cluster.wait_in_step(0, 1);
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::UpToDate));
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn with_pass_the_host_sees_the_error_and_the_image_stays() {
    let mut cluster = start(OnIoError::Pass);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![1; 1 << 20]);
    plant(&cluster, 0, OpKind::Write, 8192..12_288, libc::EIO, false);
    assert_eq!(host.write_error(8192, &[2; 4096]), NbdError::Io);
    assert_eq!(cluster.volumes(0)[0].disk, Some(LocalDisk::UpToDate));
    cluster.flaws[0].lock().unwrap().clear();
    host.write(8192, &[3; 4096]);
    host.flush();
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}

#[test]
fn a_secondary_without_room_falls_back_and_catches_up() {
    let mut cluster = start(OnIoError::Detach);
    plant(&cluster, 1, OpKind::Write, 0..SIZE, libc::ENOSPC, false);
    let mut host = cluster.host(0, 0);
    host.write(0, &vec![4; 1 << 20]);
    host.flush();
    let peer = &cluster.volumes(0)[0].peers[0];
    assert!(peer.dirty_bytes > 0, "it is known what the peer lacks: {peer:?}");
    assert_ne!(peer.disk_state, DiskState::UpToDate);
    cluster.flaws[1].lock().unwrap().clear();
    cluster.wait_in_step(0, 1);
    drop(host);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}
