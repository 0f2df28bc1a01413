//! One node: its daemon while it lives, its volumes with their images and metadata, and its links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mirror_core::Mirror;
use mirror_core::event::{Output as MirrorOutput, Ticket, Transaction};
use mirror_core::identity::Generation;
use mirror_core::metadata::{HEADER_BYTES, ImageIdentity};
use mirror_core::resource::Resource;
use mirror_core::resource::event::{HostAccess, Output as ResourceOutput};
use mirror_core::state::{LocalDisk, PeerState};
use mirror_core::stream::{Credit, Intake, Outflow};

use crate::ask::{Ask, Copying};
use crate::copies::Standing;
use crate::disk::{Disk, Stamp};
use crate::operation::Operation;
use crate::plan::{Plan, garbage};
use crate::requests::{Held, Requests};
use crate::rng::Rng;
use crate::serve::Arrived;
use crate::store::Store;
use crate::truth::{Moment, NODES_MAX};

/// Peers of a node at most.
pub const PEERS: usize = NODES_MAX - 1;

/// Something a core has said, waiting to be obeyed at the end of the shell's turn.
#[derive(Debug)]
pub enum Said {
    /// A mirror, in these states of its peers.
    Mirror(usize, MirrorOutput, [PeerState; PEERS]),
    /// The resource.
    Resource(ResourceOutput),
}

/// One volume on one node.
#[derive(Debug)]
pub struct Volume {
    /// The mirror, while the process lives.
    pub mirror: Option<Mirror>,
    /// The image.
    pub disk: Disk,
    /// The image is attached.
    pub attached: bool,
    /// Bytes of the image.
    pub size: u64,
    /// Bytes that hosts see.
    pub offered: u64,
    /// What its mirror was ordered to grow to.
    pub resizing: Option<(Ticket, u64)>,
    /// The metadata file.
    pub store: Store,
    /// Metadata was created.
    pub created: bool,
    /// The transaction under way, and whether it fails.
    pub persisting: Option<(Transaction, bool)>,
    /// Transactions take so many times longer than usual.
    pub slow_metadata: u64,
    /// Requests between `Host` and `Release`.
    pub requests: Requests,
    /// Reads that wait for writes started before them.
    pub held: Vec<Held>,
    /// States of the peers after the latest input.
    pub states: [PeerState; PEERS],
    /// The timeout the mirror asked for.
    pub timeout: Option<u64>,
    /// The next operation of a kind fails.
    pub failing: Failing,
    /// Sectors that cannot be read until they are written.
    pub bad: BTreeSet<usize>,
    /// Writes of other nodes that failed here: in part they may be here, and nobody was told that they are.
    pub refused: BTreeSet<Stamp>,
    /// What was saved before it was overwritten, by slot; while a branch is open.
    pub branch: Option<BTreeMap<usize, Stamp>>,
    /// The reign whose data it holds, as the checker sees it.
    pub follows: Option<usize>,
    /// The node that they came through, when that reign's Primary did not bring them here itself.
    pub through: Option<usize>,
    /// When the Primary of that reign went on without it; 0: it has not.
    pub left_at: Moment,
    /// The event at which it did.
    pub left_step: u64,
    /// Data came from elsewhere and not all of it has arrived.
    pub partial: bool,
    /// Since when; what was written since is not its own to lose.
    pub partial_since: Moment,
    /// From whom it was to get the rest then.
    pub partial_from: Option<usize>,
    /// The volatile cache was lost since it followed.
    pub power_lost: bool,
    /// When a cache was last lost, here or where this data came from, by a power loss or a flush that failed.
    pub forgot_at: Moment,
    /// An injected fault has struck it in this life of the daemon.
    pub struck: bool,
    /// The mirror has said that the volume has failed.
    pub failed: bool,
    /// Image and metadata are to be replaced before the next start.
    pub renewed: bool,
    /// Which image it is: another one has another number.
    pub inode: u64,
    /// By peer, the reign in which it last said that a copy to there was complete; `None`: as a Secondary.
    pub end_said: [Option<usize>; PEERS],
    /// It has heard from its source that it has everything that the source had; not durable yet.
    pub copied: Option<Standing>,
    /// The reign that went on without it when all had been copied and its last word was under way, and when.
    pub let_go: Option<(usize, (Moment, u64))>,
    /// The operator's word on the data here.
    pub word: Word,
    /// What of it was read last.
    pub known: Option<Known>,
}

/// What a crash would find in a metadata file.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Which version of the file this was read from.
    pub version: u64,
    /// The generation.
    pub generation: u64,
    /// The state of the image.
    pub disk: LocalDisk,
}

/// What the operator, or a policy of his, has said of the data of a volume on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// Nothing: not one acknowledged sector of it may be lost.
    #[default]
    Keep,
    /// It may be discarded once what differs is in a branch.
    Discard,
    /// It is worth nothing.
    Worthless,
}

/// What fails next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failing {
    /// A write.
    pub write: Option<mirror_core::event::Failure>,
    /// A read.
    pub read: bool,
    /// A flush.
    pub flush: bool,
    /// A metadata transaction.
    pub metadata: bool,
    /// A write lands on another sector.
    pub misdirected: bool,
}

/// The link to one peer.
#[derive(Debug)]
pub struct Link {
    /// The connection in use, told to the resource.
    pub conn: Option<usize>,
    /// A newer connection, not told yet: something of an older one is still being applied.
    pub next: Option<usize>,
    /// So many connections had been told of on this node when the latest one of this link was lost.
    pub lost_at: u64,
    /// When this end gave the latest one up.
    pub given_up: u64,
    /// What was asked and not answered.
    pub outflow: Outflow<Ask>,
    /// What the peer asked.
    pub intake: Intake<Arrived>,
    /// The resource wants to be connected.
    pub dialling: bool,
    /// The latest attempt.
    pub attempt: u32,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// The process lives.
    pub resource: Option<Resource>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// By peer.
    pub links: Vec<Link>,
    /// Operations on its images.
    pub operations: BTreeMap<u32, Operation>,
    /// Operations ever started.
    pub operation_serial: u32,
    /// What hosts may do.
    pub access: HostAccess,
    /// `HostsDrained` is owed.
    pub draining: bool,
    /// Which life this is.
    pub life: u32,
    /// The process does nothing before this time.
    pub paused_until: u64,
    /// Its clock is so far ahead.
    pub ahead_us: u64,
    /// So many times slower than usual.
    pub slow: u64,
    /// What its cores have said and nobody has obeyed.
    pub said: VecDeque<Said>,
    /// The end of the turn is planned.
    pub turning: bool,
    /// The timeout the resource asked for.
    pub timeout: Option<u64>,
    /// The reign under way here.
    pub reign: Option<usize>,
    /// The reign whose hosts have gone, and which is not over before its resource says so.
    pub leaves: Option<usize>,
    /// A promotion by force is under way.
    pub forcing: bool,
    /// What its volumes were called when it was last told to become Primary.
    pub names: Vec<Option<Generation>>,
    /// It stops in order.
    pub stopping: bool,
    /// Mirrors that have stopped, of a daemon that stops.
    pub stopped: usize,
    /// Random number of its present life.
    pub incarnation: u64,
    /// Connections that its resource has been told of, in this life.
    pub told: u64,
    /// Copies whose parts are on their way.
    pub copies: Vec<Copying>,
    /// Random bits for its cores.
    pub entropy: Rng,
}

impl Volume {
    /// Until when what the Primary of its reign answered was entrusted to this image too.
    pub fn with_its_primary_until(&self) -> Moment {
        if self.left_at == 0 { Moment::MAX } else { self.left_at }
    }

    /// What it lost, or those lost whom its data is from, it lost before this.
    pub fn forgets(&mut self, at: Moment) {
        self.forgot_at = self.forgot_at.max(at);
    }

    /// What its metadata is to belong to.
    pub fn image(&self) -> ImageIdentity {
        let (size, inode) = (self.size, self.inode);
        let (device, born_ns) = (1, 0);
        ImageIdentity {
            size,
            device,
            inode,
            born_ns,
        }
    }

    fn new(plan: &Plan, volume: usize, disk: Disk) -> Self {
        Self {
            mirror: None,
            disk,
            attached: true,
            resizing: None,
            size: plan.layouts[volume].size,
            offered: plan.layouts[volume].size,
            store: Store::new(HEADER_BYTES as u64),
            created: false,
            persisting: None,
            slow_metadata: 1,
            requests: Requests::default(),
            held: Vec::new(),
            states: [PeerState::Connecting; PEERS],
            timeout: None,
            failing: Failing::default(),
            bad: BTreeSet::new(),
            refused: BTreeSet::new(),
            branch: None,
            follows: None,
            through: None,
            left_at: 0,
            left_step: 0,
            partial: false,
            partial_since: 0,
            partial_from: None,
            power_lost: false,
            forgot_at: 0,
            struck: false,
            failed: false,
            renewed: false,
            inode: 1,
            end_said: [None; PEERS],
            copied: None,
            let_go: None,
            word: Word::Keep,
            known: None,
        }
    }

    /// Bytes of the volume as its mirror has them.
    pub fn mirror_size(&self) -> u64 {
        self.offered.min(self.size)
    }
}

impl Link {
    /// To a peer with which there is no connection.
    pub fn new(volumes: usize, credit: Credit) -> Self {
        Self {
            conn: None,
            next: None,
            lost_at: 0,
            given_up: 0,
            outflow: Outflow::new(credit),
            intake: Intake::new(volumes, credit),
            dialling: false,
            attempt: 0,
        }
    }
}

impl Node {
    /// Before its first start.
    pub fn new(rng: &mut Rng, plan: &Plan, at: usize) -> Self {
        let volumes = plan.content.iter().enumerate().map(|(volume, content)| {
            let disk = if at == 0 || plan.equal {
                Disk::new(content)
            } else {
                Disk::new(&garbage(rng, content.len()))
            };
            Volume::new(plan, volume, disk)
        });
        let volumes: Vec<Volume> = volumes.collect();
        let entropy = Rng::new(rng.next());
        let links = (1..plan.nodes)
            .map(|_| Link::new(volumes.len(), plan.credit()))
            .collect();
        Self {
            resource: None,
            volumes,
            links,
            operations: BTreeMap::new(),
            operation_serial: 0,
            access: HostAccess::Shut,
            draining: false,
            leaves: None,
            life: 0,
            paused_until: 0,
            ahead_us: 0,
            slow: 1,
            said: VecDeque::new(),
            turning: false,
            timeout: None,
            reign: None,
            forcing: false,
            names: Vec::new(),
            stopping: false,
            stopped: 0,
            incarnation: 0,
            told: 0,
            copies: Vec::new(),
            entropy,
        }
    }

    /// The process is there.
    pub fn is_up(&self) -> bool {
        self.resource.is_some()
    }

    /// The random number of its present life.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

/// The name of a node.
pub fn name(node: usize) -> String {
    char::from(b'a' + node as u8).to_string()
}

/// Which of a node's peers another node is.
pub fn peer_of(node: usize, other: usize) -> usize {
    other - usize::from(other > node)
}

/// Which node a peer is.
pub fn node_of(node: usize, peer: usize) -> usize {
    peer + usize::from(peer >= node)
}

/// The end of a wait, on a core's clock.
pub fn micros(at: Duration) -> u64 {
    at.as_micros() as u64 + 1
}
