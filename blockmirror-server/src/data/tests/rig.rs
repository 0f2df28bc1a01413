//! A data thread with a control side of a few lines.

mod joining;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mirror_core::config::{HOT_EXTENTS_MIN, OnIoError, PeerKind, ResyncRate};
use mirror_core::event::LinkKind;
use mirror_core::identity::Role;
use mirror_core::metadata::{ImageIdentity, PeerSlotConfig, Restored};
use mirror_core::{AckMode, MirrorConfig, OnDisconnect, PeerConfig};
use nbd_proto::{BlockSizes, ReplyStyle, TransmissionFlags};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

pub(super) use super::host::export;
use crate::data::{
    DataHandle, DataPlan, DataSender, FromData, Gate, Limits, MirrorPlan, PeerHandover, PeerPlan, ResourcePlan,
    StreamHello, ToData, VolumePlan, VolumeSnapshot, spawn,
};
use crate::image::{Image, ImageOptions, ImagePlace, IoMode};
use crate::ring::EngineChoice;

pub(super) const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// How a peer is reached: makes the two ends of a connection, or says why not.
pub(super) type Dial = Box<dyn FnMut(u32) -> Result<UnixStream, String> + Send>;

/// What is said about the one peer of a mirrored volume.
#[derive(Clone)]
pub(super) struct Peering {
    pub(super) mode: AckMode,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) skip_initial_sync: bool,
    pub(super) request_timeout: Duration,
    pub(super) fence_timeout: Duration,
    /// What the peer's handshake says; `None`: as large as the volume.
    pub(super) size: Option<u64>,
    pub(super) minimum_block: u32,
    pub(super) maximum_payload: u32,
    pub(super) flags: TransmissionFlags,
}

impl Default for Peering {
    fn default() -> Self {
        Self {
            mode: AckMode::Sync,
            on_disconnect: OnDisconnect::Continue,
            skip_initial_sync: false,
            request_timeout: PATIENCE,
            fence_timeout: PATIENCE,
            size: None,
            minimum_block: 1,
            maximum_payload: export(0, 1).block_sizes.maximum_payload,
            flags: export(0, 1).flags,
        }
    }
}

/// A running data thread with one volume.
pub(super) struct Rig {
    data: Option<DataHandle>,
    sender: DataSender,
    control: Option<JoinHandle<Option<bool>>>,
    size: u64,
    minimum_block: u32,
    dials: Arc<Mutex<Vec<u32>>>,
}

/// What a rig is made of.
pub(super) struct Build {
    pub(super) engine: EngineChoice,
    pub(super) image: Image,
    pub(super) limits: Limits,
    pub(super) mirror: Option<(MirrorPlan, Peering, Dial)>,
}

impl Build {
    /// A plain volume in memory.
    pub(super) fn memory(engine: EngineChoice, size: u64) -> Self {
        let image = open_image(ImagePlace::Memory, size);
        Self {
            engine,
            image,
            limits: Limits::default(),
            mirror: None,
        }
    }

    /// A plain volume in a file.
    pub(super) fn file(engine: EngineChoice, path: &Path, size: u64) -> Self {
        let image = open_image(ImagePlace::Path(path.to_owned()), size);
        Self {
            engine,
            image,
            limits: Limits::default(),
            mirror: None,
        }
    }

    /// With one peer.
    pub(super) fn with_peer(mut self, directory: &Path, peering: Peering, dial: Dial) -> Self {
        let size = self.image.size();
        self.mirror = Some((mirror_plan(directory, size, &peering), peering, dial));
        self
    }

    /// With the mirror machinery, and nobody to mirror to.
    pub(super) fn without_peers(mut self, directory: &Path) -> Self {
        let size = self.image.size();
        let mut plan = mirror_plan(directory, size, &Peering::default());
        let (restored, _) = Restored::create(identity(size), &[], 4711).unwrap();
        plan.restored = restored;
        plan.config.peers.clear();
        plan.peers.clear();
        self.mirror = Some((plan, Peering::default(), Box::new(|_| Err("no peer".to_owned()))));
        self
    }

    pub(super) fn start(self) -> Rig {
        let size = self.image.size();
        let (mirror, peering, dial) = match self.mirror {
            Some((plan, peering, dial)) => (Some(plan), peering, dial),
            None => (
                None,
                Peering::default(),
                Box::new(|_| Err("no peer".to_owned())) as Dial,
            ),
        };
        let peering = Peering {
            size: Some(peering.size.unwrap_or(size)),
            ..peering
        };
        let volume = VolumePlan {
            export: "test".to_owned(),
            image: self.image,
            minimum_block: 1,
            mirror,
            branches: None,
        };
        let resource = ResourcePlan {
            name: "test".to_owned(),
            volumes: vec![volume],
            peers: Vec::new(),
            config: None,
            gate: Arc::new(Gate::new(StreamHello::default())),
        };
        let plan = DataPlan {
            name: "data-test".to_owned(),
            engine: self.engine,
            resources: vec![resource],
            limits: self.limits,
        };
        let (from_data, messages) = unbounded_channel();
        let data = spawn(plan, 0, from_data).unwrap();
        let (sender, dials) = (data.sender(), Arc::default());
        let control = {
            let (sender, dials) = (sender.clone(), Arc::clone(&dials));
            std::thread::spawn(move || control(messages, &sender, dial, &peering, &dials))
        };
        Rig {
            data: Some(data),
            sender,
            control: Some(control),
            size,
            minimum_block: 1,
            dials,
        }
    }
}

impl Rig {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn sender(&self) -> &DataSender {
        &self.sender
    }

    pub(super) fn snapshot(&self) -> VolumeSnapshot {
        let (answer, asked) = oneshot::channel();
        assert!(self.sender.send(ToData::Status(answer)));
        asked.blocking_recv().unwrap().remove(0)
    }

    /// Wait until the volume is as wanted.
    pub(super) fn wait(&self, what: &str, wanted: impl Fn(&VolumeSnapshot) -> bool) -> VolumeSnapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "never came: {what}; it is {snapshot:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Attempt numbers the control side was asked to dial with.
    pub(super) fn dials(&self) -> Vec<u32> {
        self.dials.lock().unwrap().clone()
    }

    /// Stop; returns whether it was clean.
    pub(super) fn stop(mut self) -> bool {
        self.shut_down(PATIENCE)
    }

    fn shut_down(&mut self, deadline: Duration) -> bool {
        let Some(data) = self.data.take() else { return false };
        data.send(ToData::Stop { deadline });
        assert!(data.join(), "the data thread panicked");
        let control = self.control.take().unwrap();
        control.join().unwrap().expect("the last message is Stopped")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shut_down(Duration::ZERO);
        }
    }
}

/// The control side: dials when asked to, until the thread says that it has stopped.
fn control(
    mut messages: UnboundedReceiver<(usize, FromData)>,
    sender: &DataSender,
    mut dial: Dial,
    peering: &Peering,
    dials: &Mutex<Vec<u32>>,
) -> Option<bool> {
    while let Some((thread, message)) = messages.blocking_recv() {
        assert_eq!(thread, 0);
        match message {
            FromData::Connect { volume, peer, attempt } => {
                dials.lock().unwrap().push(attempt);
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20))));
                sender.send(match dial(attempt) {
                    Ok(stream) => ToData::PeerReady(peer_handover((volume, peer), stream, peering)),
                    Err(error) => ToData::PeerFailed { volume, peer, error },
                });
            }
            FromData::CancelConnect { .. } => {}
            FromData::DialStream { .. }
            | FromData::CancelStream { .. }
            | FromData::RestStream { .. }
            | FromData::VolumeAdded { .. } => {}
            FromData::Stopped { clean } => return Some(clean),
            FromData::Fatal(error) => panic!("{error}"),
        }
    }
    None
}

pub(super) fn peer_handover((volume, peer): (usize, usize), stream: UnixStream, peering: &Peering) -> PeerHandover {
    let export = export(peering.size.unwrap_or_default(), peering.minimum_block);
    let negotiated = nbd_proto::client::Negotiated {
        size: export.size,
        flags: peering.flags,
        block_sizes: Some(BlockSizes {
            maximum_payload: peering.maximum_payload,
            ..export.block_sizes
        }),
        replies: ReplyStyle::Simple,
        contexts: Vec::new(),
        name: None,
        description: None,
    };
    PeerHandover {
        volume,
        peer,
        socket: stream.into(),
        negotiated,
        unread: Vec::new(),
    }
}

fn open_image(place: ImagePlace, size: u64) -> Image {
    let options = ImageOptions {
        place,
        size: Some(size),
        io: IoMode::Buffered,
        read_only: false,
        preallocate: false,
    };
    Image::open(&options).unwrap()
}

/// A fresh metadata file and a core that starts from it; its one peer is new.
fn mirror_plan(directory: &Path, size: u64, peering: &Peering) -> MirrorPlan {
    let Peering {
        mode,
        on_disconnect,
        skip_initial_sync,
        request_timeout,
        fence_timeout,
        ..
    } = *peering;
    let slot = PeerSlotConfig {
        name: "peer".to_owned(),
        skip_initial_sync,
        kind: Some(LinkKind::Nbd),
    };
    let (restored, writes) = Restored::create(identity(size), &[slot], 4711).unwrap();
    let metadata = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(directory.join("meta"))
        .unwrap();
    for write in writes {
        metadata.write_all_at(&write.bytes, write.offset).unwrap();
    }
    let peer = PeerConfig {
        name: "peer".to_owned(),
        mode,
        on_disconnect,
        queue_bytes: 4 << 20,
        queue_requests: 1024,
        kind: PeerKind::Plain,
    };
    let plan = PeerPlan {
        name: "peer".to_owned(),
        request_timeout,
        fence_timeout,
    };
    let config = MirrorConfig {
        size,
        hot_extents: HOT_EXTENTS_MIN,
        peers: vec![peer],
        entropy: 42,
        role: Role::Primary,
        on_io_error: OnIoError::Pass,
        resync: ResyncRate::default(),
    };
    MirrorPlan {
        config,
        restored,
        metadata,
        peers: vec![plan],
    }
}

fn identity(size: u64) -> ImageIdentity {
    ImageIdentity {
        size,
        device: 1,
        inode: 2,
        born_ns: 3,
    }
}
