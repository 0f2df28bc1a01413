//! The node that runs the mirror: its metadata disk, its deaths and its starts.

use std::collections::VecDeque;

use mirror_core::Mirror;
use mirror_core::config::{MirrorConfig, OnIoError, PeerConfig, PeerKind, ResyncRate};
use mirror_core::event::{Failure, Input, LinkKind, MetadataWrite, Output, Transaction, TransactionId};
use mirror_core::identity::Role;
use mirror_core::metadata::{HEADER_BYTES, ImageIdentity, PeerSlotConfig, Restored, SECTOR_BYTES};
use mirror_core::range::{BLOCK_BYTES, EXTENT_BYTES};
use mirror_core::state::PeerState;

use crate::legs::Leg;
use crate::links::Peer;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::store::Store;
use crate::world::{Check, Event, Phase, World};

/// Room for both sides of a page of one peer.
const STORE_BYTES_PER_PAGE: u64 = 2 * SECTOR_BYTES as u64;

/// What the metadata disk does for a transaction.
#[derive(Clone, Debug)]
enum Step {
    Write(MetadataWrite),
    Barrier,
}

/// A transaction under way.
#[derive(Clone, Debug)]
struct Persisting {
    id: TransactionId,
    /// The step of the world it began at.
    started: u64,
    steps: VecDeque<Step>,
    /// Fails when so many steps are left.
    fails_at: Option<usize>,
}

/// The primary.
#[derive(Debug)]
pub struct Primary {
    /// The mirror, while the process lives.
    pub mirror: Option<Mirror>,
    /// The metadata file.
    pub store: Store,
    /// Peers in the configuration of this life: the first so many.
    pub configured: usize,
    /// States of the peers after the latest input.
    pub states: Vec<PeerState>,
    /// States of the peers when the mirror said what is being obeyed now.
    pub said_in: Vec<PeerState>,
    /// The step of the world at which it said so.
    pub said_at: u64,
    /// What the mirror has said in this turn of the shell, in which states, at which step.
    pub said: VecDeque<(Output, Vec<PeerState>, u64)>,
    /// Answers of connections that are gone, still to be told.
    pub stale: VecDeque<Input>,
    /// The timeout the mirror asked for.
    pub timeout: Option<u64>,
    /// The next local mutation or read fails.
    pub failing_local: Option<Failure>,
    /// The next local flush fails.
    pub failing_flush: bool,
    /// The next transaction fails.
    pub failing_persist: bool,
    /// A flush or a transaction has failed in this life.
    pub broken: bool,
    /// It was asked to stop in this life.
    pub stopping: bool,
    /// By peer: the operator has parted with it, until then nothing has to wait for it.
    pub free_until: Vec<u64>,
    /// How much slower the metadata disk is than usual.
    pub slow_store: u64,
    /// The local leg.
    pub slow_local: u64,
    /// Which life this is.
    pub life: u32,
    entropy: Rng,
    image: ImageIdentity,
    created: bool,
    persisting: Option<Persisting>,
    /// Per peer, the blocks that may be dirty after the next start; None: no bound.
    pub may_be_dirty: Option<Vec<Vec<bool>>>,
    /// Extents in the latest transaction put out, and in the one before it: either may be found after a crash.
    pub logged: [Vec<u64>; 2],
    /// No host flush has been answered since the process died with its writes still in the cache.
    pub unflushed_life: bool,
}

impl Primary {
    /// Before its first start.
    pub fn new(scenario: &Scenario, entropy: u64) -> Self {
        let size = scenario.layout.size;
        let pages = size.div_ceil(BLOCK_BYTES).div_ceil(mirror_core::bitmap::PAGE_BLOCKS);
        Self {
            mirror: None,
            store: Store::new(HEADER_BYTES as u64 + pages * STORE_BYTES_PER_PAGE * scenario.peers.len() as u64),
            configured: scenario.peers.len(),
            states: vec![PeerState::Connecting; scenario.peers.len()],
            said_in: Vec::new(),
            said_at: 0,
            stale: VecDeque::new(),
            said: VecDeque::new(),
            timeout: None,
            failing_local: None,
            failing_flush: false,
            failing_persist: false,
            broken: false,
            stopping: false,
            free_until: vec![0; scenario.peers.len()],
            slow_store: 1,
            slow_local: 1,
            life: 0,
            entropy: Rng::new(entropy),
            image: ImageIdentity {
                size,
                device: 1,
                inode: 2,
                born_ns: 3,
            },
            created: false,
            persisting: None,
            may_be_dirty: None,
            logged: [Vec::new(), Vec::new()],
            unflushed_life: false,
        }
    }

    /// No transaction is under way.
    pub fn is_quiet(&self) -> bool {
        self.persisting.is_none() && self.said.is_empty()
    }

    /// The generation that is certain to be found after a crash.
    pub fn durable_generation(&self) -> Result<u64, String> {
        let header = &self.store.durable()[..HEADER_BYTES];
        Restored::open(header, &self.image, false)
            .map(|found| found.generation())
            .map_err(|error| error.to_string())
    }

    /// Read metadata from these bytes of the file.
    pub fn restore(
        &self,
        bytes: &[u8],
        peers: &[PeerSlotConfig],
        entropy: u64,
    ) -> Result<(Restored, Vec<MetadataWrite>), String> {
        let mut restored = Restored::open(&bytes[..HEADER_BYTES], &self.image, false).map_err(|e| e.to_string())?;
        for (at, sector) in bytes[HEADER_BYTES..].as_chunks::<SECTOR_BYTES>().0.iter().enumerate() {
            if sector.iter().any(|&byte| byte != 0) {
                let offset = (HEADER_BYTES + at * SECTOR_BYTES) as u64;
                restored.load_page(offset, sector).map_err(|error| error.to_string())?;
            }
        }
        restored.finish(peers, entropy).map_err(|error| error.to_string())
    }
}

impl World {
    /// A transaction is to be made durable.
    pub fn persist(&mut self, transaction: Transaction) -> Check {
        if self.primary.persisting.is_some() {
            return Err(self.violation("I8", "two metadata transactions are in flight together"));
        }
        let extents = self.scenario.layout.size.div_ceil(EXTENT_BYTES);
        let hot = |&extent: &u64| self.primary.mirror.as_ref().is_some_and(|mirror| mirror.is_hot(extent));
        let latest = (0..extents).filter(hot).collect();
        self.primary.logged = [latest, std::mem::take(&mut self.primary.logged[0])];
        let mut steps = VecDeque::new();
        for mut part in [transaction.first, transaction.then] {
            self.rng.shuffle(&mut part);
            let barrier = (!part.is_empty()).then_some(Step::Barrier);
            steps.extend(part.into_iter().map(Step::Write).chain(barrier));
        }
        let fails_at = std::mem::take(&mut self.primary.failing_persist).then(|| self.rng.index(steps.len() + 1));
        self.primary.persisting = Some(Persisting {
            id: transaction.id,
            started: self.primary.said_at,
            steps,
            fails_at,
        });
        self.after(self.primary.slow_store, Event::PersistStep(self.primary.life));
        Ok(())
    }

    /// The metadata disk does one step.
    pub fn persist_step(&mut self, life: u32) -> Check {
        let Some(persisting) = self.primary.persisting.as_mut().filter(|_| life == self.primary.life) else {
            return Ok(());
        };
        let (id, started) = (persisting.id, persisting.started);
        let fails = persisting.fails_at == Some(persisting.steps.len());
        let step = persisting.steps.pop_front().filter(|_| !fails);
        let delay = match step {
            None => {
                self.primary.persisting = None;
                self.primary.broken |= fails;
                let outcome = if fails { Err(Failure::Io) } else { Ok(()) };
                if !fails {
                    self.note_persisted(started)?;
                }
                return self.feed(Input::Persisted { id, outcome });
            }
            Some(Step::Write(write)) => {
                self.primary.store.write(&write);
                self.rng.between(1, 40)
            }
            Some(Step::Barrier) => {
                self.primary.store.barrier();
                self.rng.between(20, 900)
            }
        };
        self.after(delay * self.primary.slow_store, Event::PersistStep(life));
        Ok(())
    }

    /// The primary's process dies, with `power` everything volatile with it.
    pub fn primary_dies(&mut self, power: bool, down_us: u64) -> Check {
        if self.primary.mirror.is_none() {
            return Ok(());
        }
        self.trace(|| format!("primary dies, power: {power}"));
        self.note_may_be_dirty();
        self.interrupt(|leg| leg == Leg::Local)?;
        self.operations.retain(|_, operation| operation.leg != Leg::Local);
        for peer in 0..self.peers.len() {
            self.close(peer);
            self.stop_connecting(peer);
        }
        let primary = &mut self.primary;
        (primary.mirror, primary.persisting, primary.timeout) = (None, None, None);
        primary.said.clear();
        primary.stale.clear();
        (primary.failing_local, primary.failing_flush, primary.failing_persist) = (None, false, false);
        if power {
            self.tally.power_losses += 1;
            self.local.power_loss(&mut self.rng);
            self.primary.store.power_loss(&mut self.rng);
        } else {
            self.local.writer_died();
        }
        self.judge_local(power)?;
        self.host.requests.clear();
        self.primary.unflushed_life = !power;
        self.primary.life += 1;
        self.after(down_us, Event::PrimaryStarts(self.primary.life));
        Ok(())
    }

    /// The process starts.
    pub fn primary_starts(&mut self, life: u32) -> Check {
        if self.primary.mirror.is_some() || life != self.primary.life {
            return Ok(());
        }
        self.choose_peers();
        let mut restored = self.open_metadata()?;
        let clean = restored.was_clean();
        if self.primary.life > 0 && !self.primary.unflushed_life && self.rng.chance(15) {
            // The power fails again before what the start wrote is durable.
            self.primary.store.power_loss(&mut self.rng);
            restored = self.open_metadata()?;
        }
        self.primary.store.barrier();
        if !clean && self.options.sync_at_start {
            // What an earlier process left in the cache must not be lost after resync has copied it.
            self.local.flush(self.local.flush_point());
        }
        let mirror = self.new_mirror(restored);
        self.tally.restarts += u64::from(self.primary.life > 0);
        (self.primary.broken, self.primary.stopping) = (false, false);
        self.primary.free_until.fill(0);
        self.primary.states = vec![PeerState::Connecting; self.primary.configured];
        self.peers.iter_mut().for_each(|peer| peer.resync = None);
        self.judge_start(&mirror)?;
        self.primary.mirror = Some(mirror);
        self.drain()?;
        if self.phase != Phase::Safety {
            self.operator_connects()
        } else {
            Ok(())
        }
    }

    /// The operator takes the last peer out of the configuration at times, and back into it as a new one.
    fn choose_peers(&mut self) {
        let all = self.peers.len();
        let fewer = self.phase == Phase::Safety && all > 1 && self.rng.chance(12);
        self.primary.configured = all - usize::from(fewer);
        self.tally.taken_out += u64::from(fewer);
        if let Some(peer) = self.peers.last_mut().filter(|_| fewer) {
            peer.forget();
        }
    }

    /// The peers of this life, with their places.
    pub fn configured(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.peers.iter().take(self.primary.configured).enumerate()
    }

    /// Read the file, or create it; what has to be written is in the cache.
    fn open_metadata(&mut self) -> Result<Restored, crate::outcome::Violation> {
        let entropy = self.primary.entropy.next();
        let slots = self.peer_slots();
        let opened = if self.primary.created {
            self.primary.restore(&self.primary.store.bytes(), &slots, entropy)
        } else {
            Restored::create(self.primary.image, &slots, entropy).map_err(|error| error.to_string())
        };
        let (restored, writes) = opened.map_err(|error| self.violation("metadata", error))?;
        self.primary.created = true;
        writes.iter().for_each(|write| self.primary.store.write(write));
        Ok(restored)
    }

    /// A mirror as the configuration has it.
    pub fn new_mirror(&mut self, restored: Restored) -> Mirror {
        let peers = self.configured().map(|(at, peer)| PeerConfig {
            name: format!("peer{at}"),
            mode: peer.plan.mode,
            on_disconnect: peer.plan.on_disconnect,
            queue_bytes: peer.plan.queue_bytes,
            queue_requests: peer.plan.queue_requests,
            kind: PeerKind::Plain,
        });
        let config = MirrorConfig {
            size: self.scenario.layout.size,
            hot_extents: self.scenario.hot_extents,
            peers: peers.collect(),
            entropy: self.primary.entropy.next(),
            role: Role::Primary,
            on_io_error: OnIoError::Pass,
            resync: ResyncRate::default(),
        };
        let mut mirror = Mirror::new(config, restored);
        mirror.set_sabotage(self.options.sabotage);
        mirror
    }

    /// The peers as the metadata knows them.
    pub fn peer_slots(&self) -> Vec<PeerSlotConfig> {
        let slot = |(at, peer): (usize, &Peer)| PeerSlotConfig {
            name: format!("peer{at}"),
            skip_initial_sync: peer.plan.equal,
            kind: Some(LinkKind::Nbd),
        };
        self.configured().map(slot).collect()
    }
}
