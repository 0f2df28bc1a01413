//! What a scenario does to nodes behind their backs.

use crate::disk::Disk;
use crate::faults::{Action, DiskFault, Fault};
use crate::node::Word;
use crate::plan::garbage;
use crate::stage::{LONG_US, Stage, Step};
use crate::store::Store;
use crate::world::Event;

/// Times that a growth is repeated.
const SIZES_TRIES: u32 = 6;

impl Stage {
    /// Images and metadata of a node as they are now.
    pub fn snapshot(&self, node: usize) -> Vec<(Disk, Store)> {
        let volumes = self.world.nodes[node].volumes.iter();
        volumes.map(|it| (it.disk.clone(), it.store.clone())).collect()
    }

    /// Put them back.
    pub fn revert(&mut self, node: usize, snapshot: Vec<(Disk, Store)>) {
        for (it, (disk, store)) in self.world.nodes[node].volumes.iter_mut().zip(snapshot) {
            (it.disk, it.store) = (disk, store);
            it.store.version += 1 << 32;
            // Whatever it lacks was lost by whoever put it back.
            (it.partial, it.word) = (true, Word::Worthless);
        }
    }

    /// New metadata, and a new image unless the one that is there is kept, though nobody knows it.
    pub fn replace_node(&mut self, node: usize, keep_image: bool) {
        for it in &mut self.world.nodes[node].volumes {
            it.store.wipe();
            it.created = false;
            (it.follows, it.partial, it.word) = (None, true, Word::Worthless);
            if !keep_image {
                let content = garbage(&mut self.world.rng, it.disk.slots());
                it.disk = Disk::new(&content);
            }
        }
    }

    /// Stalled connections are given up by whoever still has them.
    pub fn lose_stalled(&mut self) {
        for conn in 0..self.world.conns.len() {
            for node in self.world.conns[conn].ends {
                if self.world.conns[conn].is_broken() {
                    self.world.after(1, Event::Notice(node, conn));
                }
            }
        }
    }

    /// The image of a node's first volume fails.
    pub fn disk_fails(&mut self, node: usize, what: DiskFault) -> Step {
        let volume = 0;
        self.strike(Fault::DiskFails { node, volume, what })
    }

    /// Attach what is not.
    pub fn attach_all(&mut self) -> Step {
        for node in 0..self.world.nodes.len() {
            for volume in 0..self.world.plan.layouts.len() {
                if !self.world.nodes[node].volumes[volume].attached {
                    let replaced = false;
                    self.does(Action::Attach { node, volume, replaced })?;
                }
            }
        }
        Ok(())
    }

    /// The generation of a volume that a crash would find.
    pub fn durable(&mut self, node: usize, volume: usize) -> Result<u64, String> {
        let known = self.world.known(node, volume);
        known
            .map(|known| known.generation)
            .map_err(|violation| violation.to_string())
    }

    /// The operator gives a node's data up for another's, and connects the two.
    pub fn gives_up(&mut self, node: usize, to: usize) -> Step {
        let discard = true;
        self.act(Action::Connect { node, to, discard })?;
        self.act(Action::Connect {
            node: to,
            to: node,
            discard: false,
        })?;
        Ok(())
    }

    /// The operator connects two nodes that stand alone.
    pub fn connects(&mut self, one: usize, other: usize) -> Step {
        for (node, to) in [(one, other), (other, one)] {
            let discard = false;
            self.act(Action::Connect { node, to, discard })?;
        }
        Ok(())
    }

    /// A growth that was cut short between two nodes is repeated on the smaller one.
    pub fn even_sizes(&mut self) -> Step {
        for _ in 0..SIZES_TRIES {
            self.pass(1_500_000)?;
            let sizes: Vec<u64> = self.world.nodes.iter().map(|node| node.volumes[0].offered).collect();
            let Some(node) = (0..sizes.len()).min_by_key(|&node| sizes[node]) else {
                return Ok(());
            };
            if sizes.iter().any(|&size| size > sizes[node]) {
                self.act(Action::Resize { node, volume: 0 })?;
            }
        }
        Ok(())
    }

    /// A process is killed and stays down until `start`.
    pub fn kill(&mut self, node: usize) -> Step {
        let down_us = LONG_US;
        self.strike(Fault::Kill { node, down_us })
    }

    /// Start a node's daemon.
    pub fn start(&mut self, node: usize) -> Step {
        let life = self.world.nodes[node].life;
        let started = self.world.start_node(node, life);
        started.map_err(|violation| violation.to_string())
    }
}
