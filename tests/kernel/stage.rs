//! What a scenario plays on: guests, the link between them, and what it has to tell.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::wait;

use crate::guest::{Booting, Guest, Machine, Materials, PROMPT};
use crate::switch::Switch;

/// One scenario's.
pub struct Stage {
    materials: Materials,
    folder: PathBuf,
    /// The link between its guests.
    pub link: Switch,
    guests: Mutex<Vec<Arc<Guest>>>,
    notes: Mutex<Vec<String>>,
    _scratch: Option<Scratch>,
}

impl Stage {
    /// In `folder`, or in one that goes away with it.
    pub fn new(materials: &Materials, folder: Option<PathBuf>) -> Result<Self> {
        let scratch = match folder {
            Some(_) => None,
            None => Some(Scratch::new()?),
        };
        let folder = match (&scratch, folder) {
            (Some(scratch), _) => scratch.path().to_owned(),
            (None, folder) => folder.unwrap_or_default(),
        };
        // What an earlier run has left there.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            materials: materials.clone(),
            link: Switch::new(&folder)?,
            folder,
            guests: Mutex::default(),
            notes: Mutex::default(),
            _scratch: scratch,
        })
    }

    /// Starts a guest. One of the same name that has run before gives it its disks.
    pub fn boot(&self, machine: Machine) -> Result<Arc<Guest>> {
        let booting = self.begin(&machine)?;
        self.enter(booting)
    }

    /// Both guests of a pair, at once.
    pub fn boot_pair(&self, alpha: Machine, bravo: Machine) -> Result<(Arc<Guest>, Arc<Guest>)> {
        let alpha = self.begin(&alpha)?;
        if bravo.is_wired() {
            let wire = self.folder.join("wire");
            wait::until("the wire of alpha", wait::PROMPT, || wire.exists().then_some(()))?;
        }
        let bravo = self.begin(&bravo)?;
        Ok((self.enter(alpha)?, self.enter(bravo)?))
    }

    fn begin(&self, machine: &Machine) -> Result<Booting> {
        let folder = self.folder.join(machine.name);
        Guest::boot(machine, &self.materials, &folder, self.link.socket())
    }

    fn enter(&self, booting: Booting) -> Result<Arc<Guest>> {
        let guest = Arc::new(booting.wait()?);
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|other| other.machine().name != guest.machine().name);
        guests.push(Arc::clone(&guest));
        Ok(guest)
    }

    /// Power off and on: a guest with the same disks and nothing else.
    pub fn reboot(&self, guest: &Guest) -> Result<Arc<Guest>> {
        guest.kill();
        self.boot(guest.machine().clone())
    }

    /// Something for the table.
    pub fn note(&self, text: impl Into<String>) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.into());
    }

    /// What was told.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No kernel has complained.
    pub fn conclude(&self) -> Result<()> {
        for guest in self.guests() {
            // Those that were killed have nothing to say.
            let complaints = guest.complaints().unwrap_or_default();
            ensure!(
                complaints.is_empty(),
                "the kernel of {} complains:\n{complaints}",
                guest.machine().name
            );
        }
        Ok(())
    }

    /// For a scenario that has failed: what kernels and daemons said last.
    pub fn wreckage(&self) -> String {
        let mut text = String::new();
        for guest in self.guests() {
            let script = "tail -n 15 /tmp/*.log /run/blockmirror/*.log 2>/dev/null; echo; dmesg | tail -n 15";
            let logs = guest.outcome(script, PROMPT);
            let logs = logs.map_or_else(|_| guest.console(), |outcome| outcome.output);
            text += &format!("-- {} --\n{logs}\n", guest.machine().name);
        }
        text
    }

    fn guests(&self) -> Vec<Arc<Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
