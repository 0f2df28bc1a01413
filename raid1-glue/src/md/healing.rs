//! Doing what [`heal`] decides, one step at a time, to an array that is ours.

use std::time::Duration;

use super::heal::{self, Copying, DeviceState, Seen, Step};
use super::mdadm::{MdadmError, Superblock};
use super::record::Record;
use super::sysfs::{Array, Standing};
use super::{Machine, Options};

/// md lets a failed leg go when what was under way on it has ended: so often it is asked,
const REMOVALS: u32 = 50;
/// with this between.
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

/// The device under the blockmirror leg.
pub trait LegDevice {
    /// Whether it answers. `was_member`: it is, or has just been, part of the array.
    ///
    /// # Errors
    /// It is attached to something else, in words.
    fn state(&self, was_member: bool) -> Result<DeviceState, String>;
    /// Attach the export, with somebody who keeps it attached.
    ///
    /// # Errors
    /// In words.
    fn attach(&self) -> Result<(), String>;
    /// Let it go. `was_member`: it has just been part of the array.
    ///
    /// # Errors
    /// It is attached to something else, or used, or does not go: in words.
    fn detach(&self, was_member: bool) -> Result<(), String>;
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// The array does not run.
    #[error("{array} does not run: `blockmirror raid start` starts it without its leg ({why})")]
    NotRunning {
        /// Which.
        array: String,
        /// Why it is thought so.
        why: String,
    },
    /// Another array is there now.
    #[error("{array} is another array now (UUID {found}, not {known}): it is not touched")]
    NotOurs {
        /// Which.
        array: String,
        /// What it is.
        found: String,
        /// What was created or adopted.
        known: String,
    },
    /// The device holds a leg of another array.
    #[error(
        "{device} holds a leg of another array (UUID {found}): it is not touched; `mdadm --zero-superblock {device}` when that \
         array may go"
    )]
    Foreign {
        /// Which.
        device: String,
        /// Its array.
        found: String,
    },
    /// The device that was the local leg is something else now.
    #[error(
        "{device} {what}: it is not touched. The local leg, with UUID {uuid}, may have another name since the last boot: see \
         `mdadm --examine --scan --verbose`; name it in the record of the array, by /dev/disk/by-id"
    )]
    NotLocal {
        /// Which.
        device: String,
        /// What it is.
        what: String,
        /// The UUID of the array.
        uuid: String,
    },
    /// The leg alone has everything.
    #[error(
        "{local} has old data: when both legs were seen last, only the other one had everything. To go on with that, attach it \
         (`blockmirror attach {uris} {device}`), `mdadm --assemble --run {array} --uuid={uuid} {device}`, and \
         `mdadm {array} --re-add {local}`; to go on with the old data, and lose what is newer, `blockmirror raid start NAME --force`"
    )]
    Behind {
        /// The array.
        array: String,
        /// Its UUID.
        uuid: String,
        /// The leg with old data.
        local: String,
        /// The export of the other one.
        uris: String,
        /// Its device.
        device: String,
    },
    /// The leg was in the array without the one that is now.
    #[error(
        "{device} has data that {array} has not: the array has run with it alone ({why}). It is not given back, for that would \
         mix the two. To keep its data: `mdadm --stop {array}`, `mdadm --assemble --run {array} --uuid={uuid} {device}`, \
         `mdadm --zero-superblock {local}`, `mdadm {array} --add {local}`; to keep those of {array}: `blockmirror raid add NAME --full`"
    )]
    Ahead {
        /// The array.
        array: String,
        /// Its UUID.
        uuid: String,
        /// The local leg.
        local: String,
        /// The device of the other one.
        device: String,
        /// How it is known.
        why: String,
    },
    /// mdadm.
    #[error(transparent)]
    Mdadm(#[from] MdadmError),
    /// The device.
    #[error("{0}")]
    Device(String),
}

/// A leg that is brought back.
pub struct Healing<'a> {
    machine: &'a Machine,
    record: &'a Record,
    device: &'a dyn LegDevice,
    copying: Copying,
    was_refused: bool,
    /// The device has been seen in the array.
    was_member: bool,
}

impl Machine {
    /// The array of a record, when it runs and is the one.
    ///
    /// # Errors
    /// It does not run, or it is another one.
    pub fn ours(&self, record: &Record) -> Result<Array, HealError> {
        let not_running = |why: String| HealError::NotRunning {
            array: record.array.clone(),
            why,
        };
        let array = self.blocks.array(&record.array);
        let array = array.map_err(|error| not_running(error.to_string()))?;
        if !array.is_running() {
            return Err(not_running(format!("it is {}", array.state)));
        }
        let found = self.mdadm.uuid_of(&record.array)?;
        if found != record.uuid {
            return Err(HealError::NotOurs {
                array: record.array.clone(),
                found,
                known: record.uuid.clone(),
            });
        }
        Ok(array)
    }

    /// Takes a leg that md has given up, or that is told to go, out of an array.
    ///
    /// # Errors
    /// mdadm says no.
    pub fn remove(&self, record: &Record) -> Result<(), MdadmError> {
        let mut left = REMOVALS;
        loop {
            match self.mdadm.run(&[&record.array, "--remove", &record.device]) {
                Err(MdadmError::Refused { said, .. }) if said.contains("busy") && left > 0 => {
                    left -= 1;
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                done => return done.map(drop),
            }
        }
    }
}

impl<'a> Healing<'a> {
    /// Of this leg. Nothing has been done yet.
    pub fn of(machine: &'a Machine, record: &'a Record, device: &'a dyn LegDevice, copying: Copying) -> Self {
        Self {
            machine,
            record,
            device,
            copying,
            was_refused: false,
            was_member: false,
        }
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// The array does not run, or is not ours.
    pub fn next_step(&mut self) -> Result<Step, HealError> {
        let array = self.machine.ours(self.record)?;
        let leg = array.member(&self.record.device).map(|member| member.standing());
        self.was_member |= leg.is_some();
        let device = match leg {
            // One that is in the array is not asked: it may be slow, and md knows best.
            Some(Standing::InSync | Standing::Syncing) => DeviceState::Alive,
            _ => self.device.state(self.was_member).map_err(HealError::Device)?,
        };
        Ok(heal::next(Seen {
            leg,
            device,
            was_refused: self.was_refused,
            copying: self.copying,
        }))
    }

    /// Does a step that [`next_step`](Self::next_step) has named.
    ///
    /// # Errors
    /// It could not be done.
    pub fn perform(&mut self, step: Step) -> Result<(), HealError> {
        let record = self.record;
        match step {
            Step::Nothing | Step::Wait | Step::AskBeforeCopyingWhole => {}
            Step::Remove => self.machine.remove(record)?,
            Step::Detach => {
                self.device.detach(self.was_member).map_err(HealError::Device)?;
                self.was_member = false;
            }
            Step::Attach => self.device.attach().map_err(HealError::Device)?,
            Step::ReAdd => self.re_add()?,
            Step::Add => self.add()?,
        }
        Ok(())
    }

    /// With its empty list of bad blocks taken away, should it have one: see [`Options::CONFIGURATION`].
    fn re_add(&mut self) -> Result<(), HealError> {
        let record = self.record;
        if let Some(superblock) = self.superblock()? {
            self.is_not_ahead(&superblock)?;
        }
        let arguments = [record.array.as_str(), "--re-add", "--update=no-bbl", &record.device];
        match self.machine.mdadm.run(&arguments) {
            Ok(_) => Ok(()),
            Err(MdadmError::Refused { said, .. }) if said.contains("not possible") => {
                self.was_refused = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// md takes whatever its bitmap does not name to be the same on both, and compares nothing. That is wrong of a leg that was
    /// the array for a while, without those that are it now.
    fn is_not_ahead(&self, superblock: &Superblock) -> Result<(), HealError> {
        let (record, mdadm) = (self.record, &self.machine.mdadm);
        let array = self.machine.ours(record)?;
        let in_sync = array.members.iter().filter(|own| own.standing() == Standing::InSync);
        let own: Vec<_> = in_sync.collect();
        let mut events = None;
        for member in &own {
            let on_it = mdadm.examine(&format!("/dev/{}", member.device))?;
            events = events.max(on_it.and_then(|own| own.events));
        }
        let seen = mdadm.legs_seen_by(&record.device)?.unwrap_or_default();
        let was_missing = |slot: u32| seen.chars().nth(slot as usize) == Some('.');
        let why = if own.iter().filter_map(|own| own.slot).any(was_missing) {
            format!("it has seen its legs as {seen:?}")
        } else {
            match superblock.events.zip(events) {
                // What was under way when the power went is on one of them: a copy of what has changed covers that.
                Some((leg, array)) if leg > array + 1 => format!("{leg} events on it, {array} in the array"),
                _ => return Ok(()),
            }
        };
        Err(HealError::Ahead {
            array: record.array.clone(),
            uuid: record.uuid.clone(),
            local: record.local.clone(),
            device: record.device.clone(),
            why,
        })
    }

    /// As a new leg. One that md knows by its superblock would be given back by the bitmap, whatever mdadm is told.
    fn add(&self) -> Result<(), HealError> {
        let (record, mdadm) = (self.record, &self.machine.mdadm);
        if self.superblock()?.is_some() {
            mdadm.run(&["--zero-superblock", &record.device])?;
        }
        let [mostly, failfast] = Options::leg_arguments();
        mdadm.run(&[record.array.as_str(), "--add", mostly, failfast, &record.device])?;
        Ok(())
    }

    /// What makes the device a leg of our array, should it be one.
    fn superblock(&self) -> Result<Option<Superblock>, HealError> {
        let device = &self.record.device;
        let on_it = self.machine.mdadm.examine(device)?;
        match on_it {
            Some(other) if other.uuid != self.record.uuid => Err(HealError::Foreign {
                device: device.clone(),
                found: other.uuid,
            }),
            own => Ok(own),
        }
    }
}

#[cfg(test)]
mod tests;
