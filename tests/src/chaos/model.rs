//! The load of one volume, and what it knows of what was promised, seen while it runs.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;

use crate::load::{BLOCK, Load};
use crate::raw::Raw;

const DEPTH: usize = 8;
/// Versions of two histories of one volume never meet.
const APART: u64 = 1 << 40;

/// One volume.
#[derive(Clone)]
pub struct Model {
    /// Its export.
    pub export: String,
    /// The load.
    pub load: Load,
}

impl Model {
    /// For a zeroed volume.
    pub fn new(export: &str, size: u64, seed: u64) -> Self {
        Self {
            export: export.to_owned(),
            load: Load::new(size / BLOCK, DEPTH, seed),
        }
    }

    /// For each of these zeroed volumes, by name and bytes.
    pub fn of_each(volumes: &[(&str, u64)], seed: u64) -> Vec<Self> {
        let volumes = volumes.iter().zip(seed..);
        volumes
            .map(|((name, size), seed)| Self::new(name, *size, seed))
            .collect()
    }
}

/// Run the loads of all volumes on the node with this socket while `meanwhile` does what it does, which gets a way to
/// ask for the promises made so far. The loads end after it, or when their connections do.
pub fn under_load<T>(models: &mut [Model], socket: &Path, meanwhile: impl FnOnce(&Seen) -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    let seen = Seen::new(models);
    thread::scope(|scope| {
        for (at, model) in models.iter_mut().enumerate() {
            let (seen, stop) = (&seen, &stop);
            scope.spawn(move || {
                // A refused or broken connection ends the load of this volume; what was asked may or may not be there.
                if let Ok(mut raw) = Raw::open(socket, &model.export) {
                    let _ = model.load.run(&mut raw, |load| {
                        seen.publish(at, load);
                        stop.load(Ordering::Relaxed)
                    });
                }
            });
        }
        let outcome = meanwhile(&seen);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// What the running loads have been promised, as of their last flush.
pub struct Seen(Vec<Mutex<Model>>);

impl Seen {
    fn new(models: &[Model]) -> Self {
        Self(models.iter().cloned().map(Mutex::new).collect())
    }

    fn publish(&self, at: usize, load: &Load) {
        if let Ok(mut model) = self.0[at].lock()
            && model.load.flushes != load.flushes
        {
            model.load.clone_from(load);
        }
    }

    /// The promises made so far: what another node that takes over must hold.
    pub fn promises(&self) -> Vec<Model> {
        let copy = |model: &Mutex<Model>| Some(model.lock().ok()?.clone());
        self.0.iter().filter_map(copy).collect()
    }
}

/// The history that goes on from `promises` on another node, while the old one has asked for what `asked` knows: any of
/// it may be there.
pub fn branch_off(mut promises: Vec<Model>, asked: &[Model]) -> Vec<Model> {
    for (model, other) in promises.iter_mut().zip(asked) {
        model.load.may_hold(&other.load);
    }
    promises
}

/// Make the versions of this history larger than all of another one that parts from it now.
pub fn part(models: &mut [Model]) {
    for model in models {
        model.load.skip_versions(APART);
    }
}
