//! What a mirror is told at its start, and the named bounds of everything in it (I8).

use alloc::string::String;
use alloc::vec::Vec;

use crate::identity::Role;

/// Peers of one volume at most: they fit a byte mask and the superblock.
pub const PEERS_MAX: usize = 8;
/// Largest volume, 1 PiB: extents and bitmap pages are numbered in 32 bits, and the activity log holds 4 bytes per extent.
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;
/// Longest mutation, in bytes: the shell splits longer TRIM and WRITE_ZEROES requests.
pub const MUTATION_BYTES_MAX: u64 = 64 << 20;
/// Host requests between `Host` and `Release` at most.
pub const REQUESTS_MAX: usize = 1 << 16;
/// Hot extents a configuration should allow at least: one longest mutation touches 17, and several must fit. (A mirror
/// itself only needs room for the longest mutation it is given.)
pub const HOT_EXTENTS_MIN: usize = 64;
/// Hot extents at most: what one slot of the activity-log ring holds.
pub const HOT_EXTENTS_MAX: usize = 4000;
/// Hot extents when nothing is said: 4 GiB.
pub const HOT_EXTENTS_DEFAULT: usize = 1024;
/// Requests (mutations and resync requests) in flight to one peer at most.
pub const PEER_WINDOW: usize = 256;
/// Resync requests in flight to one peer at most.
pub const RESYNC_WINDOW: usize = 128;
/// The same while the application writes.
pub const RESYNC_WINDOW_SLOW: usize = 32;
/// Bytes of the resync requests in flight to one peer at most, holes apart.
pub const RESYNC_FLIGHT_BYTES: u64 = 32 << 20;
/// Bytes of one resync request while the application would feel larger ones.
pub const COPY_BYTES_SLOW: u64 = 128 << 10;
/// Bytes of one resync request while there is data to copy.
pub const COPY_BYTES_MIN: u64 = 1 << 20;
/// Bytes of one resync request over holes: the size doubles up to this while nothing has to be copied.
pub const COPY_BYTES_MAX: u64 = 64 << 20;
/// Copied ranges that are flushed together before their dirty bits are cleared. A long one counts several times: as
/// many as it has `COPY_BYTES_SLOW`, up to those of `COPY_BYTES_MIN`.
pub const COPIED_MAX: usize = 512;
/// Bitmap pages in one transaction beyond those an eviction needs.
pub const PROGRESS_PAGES_MAX: usize = 256;

/// When a WRITE is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckMode {
    /// Applied locally and on the peer; FLUSH and FUA durable on both.
    Sync,
    /// Applied locally; a bounded queue feeds the peer in order.
    Async,
}

/// What happens to writes while the peer is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDisconnect {
    /// Mark dirty and go on alone.
    Continue,
    /// Hold writes and flushes until it is back.
    Suspend,
    /// Answer writes and flushes with an error.
    Fail,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name; the metadata file knows it by this.
    pub name: String,
    /// When a WRITE is answered.
    pub mode: AckMode,
    /// What to do without it.
    pub on_disconnect: OnDisconnect,
    /// `Async`: payload bytes queued for it at most before it falls Behind.
    pub queue_bytes: u64,
    /// `Async`: requests queued for it at most before it falls Behind.
    pub queue_requests: usize,
    /// What is there, as far as the configuration or an earlier connection tells. A plain server is connected to by
    /// the mirror ([`Output::Connect`](crate::event::Output)), another blockmirror by the resource.
    pub kind: PeerKind,
}

/// What a peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// A plain NBD server.
    #[default]
    Plain,
    /// Another blockmirror.
    Partner,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// Bytes of the volume.
    pub size: u64,
    /// Extents that may be hot at a time, `HOT_EXTENTS_MIN..=HOT_EXTENTS_MAX`.
    pub hot_extents: usize,
    /// The peers, `PEERS_MAX` at most.
    pub peers: Vec<PeerConfig>,
    /// Random bits, for new generation identifiers.
    pub entropy: u64,
    /// The role it starts with.
    pub role: Role,
    /// What becomes of a local I/O error.
    pub on_io_error: OnIoError,
    /// Resync rate.
    pub resync: ResyncRate,
}

/// What becomes of an I/O error of the local image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnIoError {
    /// The image is given up; a peer that has everything serves in its place. Without such a peer: as `Pass`.
    #[default]
    Detach,
    /// The host gets it.
    Pass,
}

/// The two knobs of resync, bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResyncRate {
    /// Not slower than this, whatever the application's latency.
    pub floor: u64,
    /// Not faster; 0: no cap.
    pub cap: u64,
}

impl Default for ResyncRate {
    fn default() -> Self {
        Self { floor: 4 << 20, cap: 0 }
    }
}
