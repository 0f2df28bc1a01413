//! What the control side knows of a resource without asking its data thread: whether hosts may come, and what a stream's
//! HELLO says of it. Written by the data thread only.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use mirror_core::resource::event::HostAccess;
use mirror_core::stream::codec::Checksum;

/// What a node tells of a resource when a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHello {
    /// The node's name.
    pub node: String,
    /// Random, new at every start of the daemon.
    pub incarnation: u64,
    /// The resource's name.
    pub resource: String,
    /// Version of the stream that was agreed on (in a HELLO of ours: the newest one).
    pub version: u16,
    /// Seed of the digests on this connection, as it was agreed on (in a HELLO of ours: 0).
    pub digest_seed: u64,
    /// How payloads are checked on this connection, as it was agreed on.
    pub checksum: Checksum,
    /// Its volumes by name order: name and bytes.
    pub volumes: Vec<(String, u64)>,
    /// Payload bytes that may be sent to this node before it grants more.
    pub credit_bytes: u64,
    /// Requests that may be sent to this node before it grants more.
    pub credit_requests: u32,
}

/// The door of a resource.
#[derive(Debug)]
pub struct Gate {
    access: AtomicU8,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hello: StreamHello,
    primary: Option<String>,
}

impl Gate {
    /// A door that is open to hosts.
    pub fn new(hello: StreamHello) -> Self {
        Self {
            access: AtomicU8::new(encode(HostAccess::ReadWrite)),
            shared: Mutex::new(Shared { hello, primary: None }),
        }
    }

    /// What hosts may do now. It may have changed when the handshake is over: the data thread looks again.
    pub fn access(&self) -> HostAccess {
        match self.access.load(Ordering::Acquire) {
            0 => HostAccess::Shut,
            1 => HostAccess::ReadOnly,
            _ => HostAccess::ReadWrite,
        }
    }

    /// The node that is Primary in this one's place, as far as is known.
    pub fn primary(&self) -> Option<String> {
        self.locked().primary.clone()
    }

    /// Our HELLO.
    pub fn hello(&self) -> StreamHello {
        self.locked().hello.clone()
    }

    /// The present bytes of a volume, which may have grown.
    pub fn size(&self, volume: &str) -> Option<u64> {
        let shared = self.locked();
        let (_, size) = shared.hello.volumes.iter().find(|(name, _)| name == volume)?;
        Some(*size)
    }

    pub(crate) fn set_access(&self, access: HostAccess) {
        self.access.store(encode(access), Ordering::Release);
    }

    pub(crate) fn set_primary(&self, primary: Option<String>) {
        self.locked().primary = primary;
    }

    pub(crate) fn set_size(&self, volume: &str, bytes: u64) {
        let mut shared = self.locked();
        let volumes = shared.hello.volumes.iter_mut();
        for (_, size) in volumes.filter(|(name, _)| name == volume) {
            *size = bytes;
        }
    }

    /// The volumes and their bytes, from now on.
    pub(crate) fn set_volumes(&self, mut volumes: Vec<(String, u64)>) {
        volumes.sort();
        self.locked().hello.volumes = volumes;
    }

    /// A thread that panicked while it held the lock left nothing half done: every change is one assignment.
    fn locked(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn encode(access: HostAccess) -> u8 {
    match access {
        HostAccess::Shut => 0,
        HostAccess::ReadOnly => 1,
        HostAccess::ReadWrite => 2,
    }
}
