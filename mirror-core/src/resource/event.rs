//! What goes into a resource's state machine and what comes out.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use crate::config::{PeerConfig, PeerKind};
use crate::event::{ConnectionId, Order, OrderRefusal, PeerIndex, SyncPlan, Ticket};
use crate::identity::{Role, VolumeIdentity};
use crate::state::LocalDisk;
use crate::stream::Control;

/// What a resource asks about its volumes while it handles an input; the shell answers from its mirrors.
pub trait Volumes {
    /// Of the volume, as the peer is to be told.
    fn identity(&self, volume: usize, peer: PeerIndex) -> VolumeIdentity;
    /// Runs of blocks that are dirty for the peer, at and after `from`, at most `max` runs.
    fn dirty_runs(&self, volume: usize, peer: PeerIndex, from: u64, max: usize) -> Vec<Range<u64>>;
    /// The operator has given the volume's present data up for the peer's ([`Order::GiveUp`]).
    fn gives_up(&self, volume: usize, peer: PeerIndex) -> bool;
    /// He has said nothing of it, or its data has come from a third node since.
    fn keeps_data_from(&self, volume: usize, peer: PeerIndex) -> bool;
}

/// Whose answer an operator's command waits for; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Something happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The daemon has started; the first input.
    Start,
    /// A stream to a peer is up. Nothing that came on an older connection, of this peer or of an older Primary, is
    /// still being applied here.
    Connected {
        /// The peer.
        peer: PeerIndex,
        /// The new connection.
        connection: ConnectionId,
        /// The node's random number of its present life.
        incarnation: u64,
    },
    /// The peer was reached and is a plain NBD server.
    IsPlain(PeerIndex),
    /// The stream is gone.
    Disconnected {
        /// The peer.
        peer: PeerIndex,
        /// The connection that is gone.
        connection: ConnectionId,
        /// The other end's process is gone: it closed the connection (end of stream, reset) without a word, and had
        /// heard from here so recently that it cannot have given the connection up for silence. When in doubt: false.
        closed_by_peer: bool,
        /// For the operator.
        reason: String,
    },
    /// A control frame came.
    Control {
        /// The peer.
        peer: PeerIndex,
        /// On which connection.
        connection: ConnectionId,
        /// What.
        control: Control,
    },
    /// A mirror has carried out [`Output::Order`].
    OrderDone {
        /// The volume.
        volume: usize,
        /// Which.
        ticket: Ticket,
        /// How it ended.
        outcome: Result<(), OrderRefusal>,
    },
    /// The state of a volume's image has changed.
    Disk {
        /// The volume.
        volume: usize,
        /// To this.
        disk: LocalDisk,
    },
    /// No host request is in flight any more, after [`Output::Hosts`] with `open` false.
    HostsDrained,
    /// The image fits the size, or cannot (after [`Output::Grow`]).
    Grown {
        /// The volume.
        volume: usize,
        /// Its bytes now (of a smaller volume: the bytes that are in use, at most), or why not.
        outcome: Result<u64, String>,
    },
    /// What the peer is known to have sent or queued beyond what arrived, when its connection ends; always, right before
    /// [`Input::Disconnected`].
    Missed {
        /// The peer.
        peer: PeerIndex,
        /// What would be lost.
        loss: Loss,
    },
    /// The peer has answered a request of a mirror that it has no space left; its connection is being given up.
    NoSpace(PeerIndex),
    /// An operator's command.
    Command {
        /// Whose.
        id: CommandId,
        /// What.
        command: Command,
    },
    /// The daemon stops and every mirror has stopped in order: say goodbye. The last input.
    Stop,
    /// The time named by `next_timeout` has come.
    Timeout,
}

/// What a takeover without the old Primary would lose, as far as can be known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Age of the oldest write that is missing, when it was last heard of.
    pub age: Duration,
    /// Payload bytes of host writes.
    pub bytes: u64,
    /// Host flushes.
    pub flushes: u64,
    /// The data here is not even complete: an interrupted resync, this many bytes missing.
    pub inconsistent_bytes: u64,
    /// More may be missing than the numbers say: the old Primary may still be running, or nothing was heard of it since
    /// this daemon started.
    pub unknown: bool,
}

/// What an operator asks of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Become Primary. With a connected Primary: by a planned switchover. `accept`: the loss, quoted back.
    Promote {
        /// Though data would be lost, or it is not known.
        force: bool,
        /// What `Answer::NeedsAccept` told.
        accept: Option<String>,
    },
    /// Become Secondary.
    Demote,
    /// Connect, after `Disconnect` or a refusal.
    Connect {
        /// The peer.
        peer: PeerIndex,
        /// If the histories diverged: this node's data is given up.
        discard_my_data: bool,
    },
    /// Disconnect and stay so.
    Disconnect(PeerIndex),
    /// This node's data of all volumes is worthless: take everything from the peer.
    Invalidate(PeerIndex),
    /// Give the image of a volume up.
    Detach(usize),
    /// Take it again.
    Attach {
        /// The volume.
        volume: usize,
        /// It is another image than before.
        replaced: bool,
    },
    /// Another size for a volume, on every node. Smaller: only while nobody is Primary, and where nothing beyond is in use.
    Resize {
        /// The volume.
        volume: usize,
        /// Bytes.
        size: u64,
        /// The new part is zero everywhere.
        assume_clean: bool,
        /// Make it smaller if need be.
        force: bool,
    },
    /// Compare with a peer.
    Verify {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: PeerIndex,
        /// Copy what differs.
        repair: bool,
        /// Go on where the last one stopped.
        resume: bool,
    },
    /// Stop comparing.
    VerifyStop {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: PeerIndex,
    },
    /// A new peer of all volumes; its index is the next one.
    AddPeer {
        /// As the mirrors are to know it.
        config: PeerConfig,
        /// What is there, if that is known.
        kind: Option<PeerKind>,
    },
    /// Forget a peer. Its index is not used again before a restart.
    RemovePeer(PeerIndex),
    /// A new volume; its index is the next one. Its mirror is there already, Secondary unless the resource mirrors to
    /// plain servers only.
    AddVolume {
        /// Its name.
        name: String,
    },
    /// Forget a volume. Its mirror is stopped once this is done; its index is not used again before a restart.
    RemoveVolume(usize),
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// Not done: this would be lost. Ask again with `accept` set to the token.
    NeedsAccept {
        /// What.
        loss: Loss,
        /// To be quoted back.
        token: String,
    },
    /// Not done, because, and what to do.
    Refused(String),
    /// Neither done nor undone: because, what counts now, and what to do.
    HalfDone(String),
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Reach the peer (backoff is the shell's), and ask for the replication stream.
    Dial(PeerIndex),
    /// Stop trying to reach it.
    CancelDial(PeerIndex),
    /// Say this on the connection.
    Send {
        /// The peer.
        peer: PeerIndex,
        /// On which connection.
        connection: ConnectionId,
        /// What.
        control: Control,
    },
    /// Close the connection once what was sent on it is out.
    Close {
        /// The peer.
        peer: PeerIndex,
        /// Which connection.
        connection: ConnectionId,
        /// For the log.
        reason: String,
    },
    /// Give the order to a volume's mirror; answer `OrderDone`.
    Order {
        /// The volume.
        volume: usize,
        /// Its name.
        ticket: Ticket,
        /// What.
        order: Order,
    },
    /// Tell a volume's mirror that the peer is up, in this way, as a stream.
    PeerUp {
        /// The volume.
        volume: usize,
        /// The peer.
        peer: PeerIndex,
        /// The connection.
        connection: ConnectionId,
        /// Who copies what.
        plan: SyncPlan,
    },
    /// Before the peer overwrites this volume: save what differs, for the operator (a branch).
    OpenBranch {
        /// The volume.
        volume: usize,
        /// The generation that is about to be lost.
        generation: u64,
    },
    /// Hosts may come (`Primary`), may only read, or are shut out: their connections end after what is in flight;
    /// answered by `HostsDrained` when shut out.
    Hosts(HostAccess),
    /// Make the image larger; for a smaller volume only make sure that everything beyond is a hole, and leave it. Answer
    /// `Grown`.
    Grow {
        /// The volume.
        volume: usize,
        /// Bytes.
        size: u64,
    },
    /// Answer an operator.
    Answer {
        /// Whose.
        id: CommandId,
        /// What.
        answer: Answer,
    },
    /// For the log; `status` and `why` have the details.
    Event(Event),
}

/// What hosts may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostAccess {
    /// Nothing.
    Shut,
    /// Read (`read_only_secondary`).
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A change worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The role has changed.
    Role(Role),
    /// A handshake has come to its end.
    Decided {
        /// The peer.
        peer: PeerIndex,
        /// Words.
        text: String,
    },
    /// The histories of the two nodes have diverged; nothing was overwritten.
    SplitBrain {
        /// The peer.
        peer: PeerIndex,
        /// Words: what, and what to do.
        text: String,
    },
    /// The connection was lost.
    Lost {
        /// The peer.
        peer: PeerIndex,
        /// Words.
        text: String,
    },
    /// The connection ends and is not tried again before an operator says so.
    StandAlone {
        /// The peer.
        peer: PeerIndex,
        /// Words.
        text: String,
    },
}
