//! What a run is asked for and what it gives back.

pub use blockmirror_tests::campaign::Violation;
use mirror_core::event::Output;
use mirror_core::sabotage::Sabotage;

/// How to run a seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Print every input and output of the mirror.
    pub trace: bool,
    /// Break this invariant in the mirror.
    pub sabotage: Option<Sabotage>,
    /// Keep the shell's promise that no request of an old connection lands after a new one is up.
    pub fence: bool,
    /// Keep the shell's promise that the image is durable before a mirror starts.
    pub sync_at_start: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trace: false,
            sabotage: None,
            fence: true,
            sync_at_start: true,
        }
    }
}

/// FNV-1a over everything that happened: two runs with one digest were the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// One more thing happened.
    pub fn mix(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Digest {
    /// The mirror said this.
    pub fn mix_output(&mut self, output: &Output) {
        let (kind, first, second) = match *output {
            Output::Local { id, mutation } => (1, u64::from(id.0), mutation.range.offset),
            Output::LocalFlush => (2, 0, 0),
            Output::Peer { peer, id, .. } => (3, u64::from(peer.0), u64::from(id.0)),
            Output::PeerFlush { peer, .. } => (4, u64::from(peer.0), 0),
            Output::Copy { peer, range, .. } => (5, u64::from(peer.0), range.offset),
            Output::Persist(ref transaction) => (6, transaction.first.len() as u64, transaction.then.len() as u64),
            Output::Reply { id, outcome } => (7, u64::from(id.0), u64::from(outcome.is_ok())),
            Output::Release(id) => (8, u64::from(id.0), 0),
            Output::Connect(peer) => (9, u64::from(peer.0), 0),
            Output::Disconnect { peer, .. } => (10, u64::from(peer.0), 0),
            Output::Event(_) => (11, 0, 0),
            Output::PeerBarrier { peer, .. } => (12, u64::from(peer.0), 0),
            Output::Fetch { peer, range, .. } => (13, u64::from(peer.0), range.offset),
            Output::Compare { peer, range, .. } => (14, u64::from(peer.0), range.offset),
            Output::ToPeer { peer, .. } => (15, u64::from(peer.0), 0),
            Output::OrderDone { ticket, .. } => (16, u64::from(ticket.0), 0),
        };
        [kind, first, second].into_iter().for_each(|value| self.mix(value));
    }
}

/// What happened how often: a simulator that no longer reaches a corner shows it here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes answered.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Requests answered with an error.
    pub refusals: u64,
    /// Writes answered without a peer that has `mode = "sync"`.
    pub degraded: u64,
    /// Resync requests done.
    pub copies: u64,
    /// Resyncs that ended.
    pub resyncs: u64,
    /// Times a queue was full.
    pub behind: u64,
    /// Connections lost.
    pub cuts: u64,
    /// Requests of a lost connection that landed late.
    pub late: u64,
    /// Starts of the primary beyond the first.
    pub restarts: u64,
    /// Power losses, primary and peers.
    pub power_losses: u64,
    /// Requests given up because their connection died.
    pub abandoned: u64,
    /// What-if crashes examined.
    pub probes: u64,
    /// Times a peer was taken out of the configuration.
    pub taken_out: u64,
}

impl Tally {
    /// Sum, for many runs.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs.1;
        }
    }

    /// Name and value of each count.
    pub fn fields(&self) -> [(&'static str, u64); 14] {
        [
            ("writes", self.writes),
            ("flushes", self.flushes),
            ("refusals", self.refusals),
            ("degraded", self.degraded),
            ("copies", self.copies),
            ("resyncs", self.resyncs),
            ("behind", self.behind),
            ("cuts", self.cuts),
            ("late", self.late),
            ("restarts", self.restarts),
            ("power losses", self.power_losses),
            ("abandoned", self.abandoned),
            ("probes", self.probes),
            ("peers taken out", self.taken_out),
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; 14] {
        [
            &mut self.writes,
            &mut self.flushes,
            &mut self.refusals,
            &mut self.degraded,
            &mut self.copies,
            &mut self.resyncs,
            &mut self.behind,
            &mut self.cuts,
            &mut self.late,
            &mut self.restarts,
            &mut self.power_losses,
            &mut self.abandoned,
            &mut self.probes,
            &mut self.taken_out,
        ]
    }
}

/// A run that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What happened, as one number.
    pub digest: Digest,
    /// What happened how often.
    pub tally: Tally,
    /// Events.
    pub steps: u64,
}
