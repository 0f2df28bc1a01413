//! How a node starts, stops and dies, and what its metadata disk does.

use mirror_core::Mirror;
use mirror_core::config::{MirrorConfig, OnDisconnect, PeerConfig, PeerKind, ResyncRate};
use mirror_core::event::{Command, Failure, Input as MirrorInput, LinkKind, Transaction};
use mirror_core::identity::SplitBrainPolicy;
use mirror_core::metadata::{HEADER_BYTES, ImageIdentity, MetadataError, PeerSlotConfig, Restored, SECTOR_BYTES};
use mirror_core::resource::event::{HostAccess, Input as ResourceInput};
use mirror_core::resource::{AfterRestart, Resource, ResourceConfig, ResourcePeer};
use mirror_core::state::LocalDisk;

use crate::net::DEAD_AFTER_US;
use crate::node::{Known, Link, PEERS, name, node_of};
use crate::outcome::Violation;
use crate::requests::Requests;
use crate::world::{Check, Event, World};

/// Seconds since 1970 at the beginning of every run.
const EPOCH: u64 = 1_700_000_000;

impl World {
    /// A transaction is to be made durable.
    pub fn persist(&mut self, node: usize, volume: usize, transaction: Transaction) -> Check {
        if self.nodes[node].volumes[volume].persisting.is_some() {
            return Err(self.violation("I8", "two metadata transactions are in flight together"));
        }
        let barriers = [&transaction.first, &transaction.then]
            .iter()
            .filter(|part| !part.is_empty())
            .count() as u64;
        let it = &self.nodes[node].volumes[volume];
        let slow = self.nodes[node].slow * it.slow_metadata;
        let delay = (5 + barriers * self.rng.between(20, 700)) * slow;
        let it = &mut self.nodes[node].volumes[volume];
        let fails = std::mem::take(&mut it.failing.metadata);
        it.struck |= fails;
        it.persisting = Some((transaction, fails));
        self.after(delay, Event::Persisted(node, volume, self.nodes[node].life));
        Ok(())
    }

    /// The transaction under way has ended.
    pub fn persisted(&mut self, node: usize, volume: usize, life: u32) -> Check {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let it = &mut self.nodes[node].volumes[volume];
        let Some((transaction, fails)) = it.persisting.take() else {
            return Ok(());
        };
        let outcome = if fails {
            self.tally.torn_metadata += u64::from(it.store.carry_out_partly(&transaction, &mut self.rng));
            self.tally.metadata_errors += 1;
            Err(Failure::Io)
        } else {
            it.store.carry_out(&transaction);
            Ok(())
        };
        if outcome.is_ok() && it.copied.is_some() {
            let disk = self.known(node, volume)?.disk;
            self.copy_noted(node, volume, disk);
        }
        let id = transaction.id;
        self.feed_mirror(node, volume, MirrorInput::Persisted { id, outcome })?;
        self.settle(node)
    }

    /// A node's daemon starts.
    pub fn start_node(&mut self, node: usize, life: u32) -> Check {
        if self.nodes[node].is_up() || self.nodes[node].life != life {
            return Ok(());
        }
        self.trace(|| format!("{node} starts"));
        let mut opened = Vec::new();
        for volume in 0..self.nodes[node].volumes.len() {
            let renewed = std::mem::take(&mut self.nodes[node].volumes[volume].renewed);
            if renewed || self.is_another_image(node, volume) {
                self.renew(node, volume);
            }
            opened.push(self.open_metadata(node, volume)?);
        }
        let was_primary = Restored::were_primary(&opened);
        let answers_lost = opened.iter().any(Restored::answers_lost);
        let primary_since = opened.iter().map(Restored::primary_since).max().unwrap_or(0);
        for (volume, restored) in opened.into_iter().enumerate() {
            self.copy_noted(node, volume, restored.disk());
            self.nodes[node].volumes[volume].copied = None;
            let flush = !restored.was_clean();
            let it = &mut self.nodes[node].volumes[volume];
            it.store.barrier();
            if flush {
                // What an earlier process left in the cache must not be lost after resync has copied it.
                it.disk.flush(it.disk.flush_point());
            }
            let mirror = self.new_mirror(node, volume, restored);
            let it = &mut self.nodes[node].volumes[volume];
            (it.offered, it.resizing) = (it.size, None);
            it.attached = mirror.disk() != LocalDisk::Diskless;
            it.states = [mirror_core::state::PeerState::Connecting; PEERS];
            (it.failed, it.struck, it.timeout) = (false, false, None);
            it.mirror = Some(mirror);
        }
        self.judge_start(node)?;
        for volume in 0..self.nodes[node].volumes.len() {
            self.collect(node, volume)?;
        }
        let resource = self.new_resource(node, was_primary, answers_lost, primary_since);
        self.nodes[node].resource = Some(resource);
        let sabotage = self.options.sabotage;
        self.nodes[node]
            .links
            .iter_mut()
            .for_each(|link| link.intake.set_sabotage(sabotage));
        self.feed_resource(node, ResourceInput::Start)?;
        self.settle(node)
    }

    /// The metadata is of an image that was replaced, and of the new one it knows nothing: the daemon does not start with it.
    fn is_another_image(&mut self, node: usize, volume: usize) -> bool {
        let it = &mut self.nodes[node].volumes[volume];
        if !it.created {
            return false;
        }
        it.store.barrier();
        let found = Restored::open(&it.store.durable()[..HEADER_BYTES], &it.image(), false);
        matches!(found, Err(MetadataError::OtherImage { .. }))
    }

    /// A metadata disk that failed tells nothing any more: the node starts anew with this volume.
    fn renew(&mut self, node: usize, volume: usize) {
        let it = &mut self.nodes[node].volumes[volume];
        it.store.wipe();
        it.created = false;
        (it.follows, it.copied, it.partial, it.word) = (None, None, true, crate::node::Word::Worthless);
        it.disk = crate::disk::Disk::new(&crate::plan::garbage(&mut self.rng, it.disk.slots()));
        it.bad.clear();
    }

    fn new_resource(&mut self, node: usize, was_primary: bool, answers_lost: bool, primary_since: u64) -> Resource {
        let mut incarnation = self.nodes[node].entropy.next();
        incarnation |= 1;
        self.nodes[node].incarnation = incarnation;
        let peers = (0..self.plan.nodes - 1).map(|peer| ResourcePeer {
            name: name(node_of(node, peer)),
            kind: Some(PeerKind::Partner),
        });
        let config = ResourceConfig {
            name: "db".to_owned(),
            node: name(node),
            incarnation,
            entropy: self.nodes[node].entropy.next(),
            clock: EPOCH,
            volumes: (0..self.plan.layouts.len())
                .map(|volume| format!("v{volume}"))
                .collect(),
            peers: peers.collect(),
            was_primary,
            answers_lost,
            primary_since,
            after_restart: AfterRestart::Resume,
            split_brain: match self.plan.policy {
                1 => SplitBrainPolicy::DiscardYounger,
                2 => SplitBrainPolicy::DiscardLeastChanges,
                3 => SplitBrainPolicy::DiscardZeroChanges,
                _ => SplitBrainPolicy::Manual,
            },
            read_only_secondary: false,
        };
        let mut resource = Resource::new(config);
        self.sabotage_resource(&mut resource);
        resource
    }

    fn new_mirror(&mut self, node: usize, volume: usize, restored: Restored) -> Mirror {
        let peers = (0..self.plan.nodes - 1).map(|peer| PeerConfig {
            name: name(node_of(node, peer)),
            mode: self.plan.mode,
            on_disconnect: if self.plan.nodes > 2 && peer > 0 {
                OnDisconnect::Continue
            } else {
                self.plan.on_disconnect
            },
            queue_bytes: self.plan.queue_bytes,
            queue_requests: self.plan.queue_requests,
            kind: PeerKind::Partner,
        });
        let config = MirrorConfig {
            size: self.nodes[node].volumes[volume].size,
            hot_extents: self.plan.hot_extents,
            peers: peers.collect(),
            entropy: self.nodes[node].entropy.next(),
            role: restored.start_role(),
            on_io_error: self.plan.on_io_error,
            resync: ResyncRate {
                floor: 64 << 20,
                cap: 0,
            },
        };
        let mut mirror = Mirror::new(config, restored);
        self.sabotage(&mut mirror);
        mirror
    }

    /// Read the file, or create it; what has to be written is in the cache.
    fn open_metadata(&mut self, node: usize, volume: usize) -> Result<Restored, Violation> {
        let entropy = self.nodes[node].entropy.next();
        let slots = self.peer_slots(node);
        let image = self.nodes[node].volumes[volume].image();
        let opened = if self.nodes[node].volumes[volume].created {
            self.nodes[node].volumes[volume].store.barrier();
            let bytes = self.nodes[node].volumes[volume].store.durable();
            restore(bytes, &image, &slots, entropy)
        } else {
            Restored::create(image, &slots, entropy).map_err(|error| error.to_string())
        };
        let (restored, writes) = opened.map_err(|error| self.violation("metadata", error))?;
        let it = &mut self.nodes[node].volumes[volume];
        it.created = true;
        writes.iter().for_each(|write| it.store.write(write));
        Ok(restored)
    }

    /// The mirror that would start from these bytes.
    pub fn restored_from(&mut self, node: usize, volume: usize, bytes: &[u8]) -> Result<Mirror, Violation> {
        let slots = self.peer_slots(node);
        let image = self.nodes[node].volumes[volume].image();
        let (restored, _) = restore(bytes, &image, &slots, 1).map_err(|error| self.violation("metadata", error))?;
        Ok(self.new_mirror(node, volume, restored))
    }

    fn peer_slots(&self, node: usize) -> Vec<PeerSlotConfig> {
        let slot = |peer| PeerSlotConfig {
            name: name(node_of(node, peer)),
            skip_initial_sync: false,
            kind: Some(LinkKind::Stream),
        };
        (0..self.plan.nodes - 1).map(slot).collect()
    }

    /// A node's process dies; with `power` everything volatile with it.
    pub fn node_dies(&mut self, node: usize, power: bool, down_us: u64) -> Check {
        if !self.nodes[node].is_up() {
            if power {
                self.volatile_lost(node);
            }
            return Ok(());
        }
        self.trace(|| format!("{node} dies, power: {power}"));
        self.interrupt(node)?;
        for peer in 0..self.nodes[node].links.len() {
            self.abandon_link(node, peer, power);
        }
        for volume in 0..self.nodes[node].volumes.len() {
            let it = &mut self.nodes[node].volumes[volume];
            if let Some((transaction, _)) = it.persisting.take() {
                self.tally.torn_metadata += u64::from(it.store.carry_out_partly(&transaction, &mut self.rng));
            }
            it.disk.writer_died();
            (it.mirror, it.failing, it.timeout) = (None, Default::default(), None);
        }
        if power {
            self.volatile_lost(node);
            self.tally.power_losses += 1;
        } else {
            self.tally.kills += 1;
        }
        self.hosts_die(node);
        self.judge_death(node, power)?;
        let credit = self.plan.credit();
        let volumes = self.plan.layouts.len();
        let it = &mut self.nodes[node];
        it.volumes.iter_mut().for_each(|volume| {
            volume.requests = Requests::default();
            volume.held.clear();
        });
        it.told = 0;
        it.links = (1..self.plan.nodes).map(|_| Link::new(volumes, credit)).collect();
        (it.resource, it.timeout, it.turning) = (None, None, false);
        (it.draining, it.stopping, it.access, it.leaves) = (false, false, HostAccess::Shut, None);
        it.said.clear();
        it.copies.clear();
        it.operations.clear();
        it.paused_until = 0;
        it.life += 1;
        self.operator.node_died(node);
        self.after(down_us, Event::Start(node, self.nodes[node].life));
        Ok(())
    }

    fn volatile_lost(&mut self, node: usize) {
        let now = self.truth.tick();
        for volume in 0..self.nodes[node].volumes.len() {
            let it = &mut self.nodes[node].volumes[volume];
            it.disk.power_loss(&mut self.rng);
            self.tally.torn_metadata += u64::from(it.store.power_loss(&mut self.rng));
            it.power_lost = true;
            it.forgets(now);
        }
    }

    /// The far end of a link learns that a process is gone: at once from its kernel, or by silence.
    fn abandon_link(&mut self, node: usize, peer: usize, power: bool) {
        let link = &mut self.nodes[node].links[peer];
        for conn in [link.conn.take(), link.next.take()].into_iter().flatten() {
            let end = self.conns[conn].end(node);
            self.conns[conn].open[end] = false;
            if power {
                let silence = self.rng.pick(&[2_000, 100_000, DEAD_AFTER_US]);
                let far = self.conns[conn].ends[1 - end];
                self.after(silence, Event::Notice(far, conn));
            } else {
                self.send(node, conn, crate::net::Packet::Closed { gone: true });
            }
        }
    }

    /// The daemon stops in order: hosts go, mirrors stop, then the resource says goodbye.
    pub fn stop_node(&mut self, node: usize) -> Check {
        if !self.nodes[node].is_up() || self.nodes[node].stopping {
            return Ok(());
        }
        self.nodes[node].stopping = true;
        self.nodes[node].stopped = 0;
        self.nodes[node].access = HostAccess::Shut;
        for volume in 0..self.nodes[node].volumes.len() {
            self.feed_mirror(node, volume, MirrorInput::Command(Command::Stop))?;
        }
        self.settle(node)
    }

    /// A mirror has stopped.
    pub fn volume_stopped(&mut self, node: usize, _volume: usize) -> Check {
        self.nodes[node].stopped += 1;
        if self.nodes[node].stopped == self.nodes[node].volumes.len() {
            self.feed_resource(node, ResourceInput::Stop)?;
            self.restart_later(node, 1_000);
        }
        Ok(())
    }

    /// What a crash would find in the metadata.
    pub fn known(&mut self, node: usize, volume: usize) -> Result<Known, Violation> {
        let it = &self.nodes[node].volumes[volume];
        let version = it.store.version;
        if let Some(known) = it.known.filter(|known| known.version == version) {
            return Ok(known);
        }
        let header = &it.store.durable()[..HEADER_BYTES];
        let found = Restored::open(header, &it.image(), true);
        let found = found.map_err(|error| self.violation("metadata", error.to_string()))?;
        let known = Known {
            version,
            generation: found.generation(),
            disk: found.disk(),
        };
        self.nodes[node].volumes[volume].known = Some(known);
        Ok(known)
    }
}

/// Read metadata from these bytes of the file.
fn restore(
    bytes: &[u8],
    image: &ImageIdentity,
    peers: &[PeerSlotConfig],
    entropy: u64,
) -> Result<(Restored, Vec<mirror_core::event::MetadataWrite>), String> {
    let mut restored = Restored::open(&bytes[..HEADER_BYTES], image, false).map_err(|error| error.to_string())?;
    for (at, sector) in bytes[HEADER_BYTES..].as_chunks::<SECTOR_BYTES>().0.iter().enumerate() {
        if sector[..8].iter().any(|&byte| byte != 0) || sector.iter().any(|&byte| byte != 0) {
            let offset = (HEADER_BYTES + at * SECTOR_BYTES) as u64;
            restored.load_page(offset, sector).map_err(|error| error.to_string())?;
        }
    }
    restored.finish(peers, entropy).map_err(|error| error.to_string())
}
