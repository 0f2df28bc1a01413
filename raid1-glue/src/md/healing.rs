//! Doing what [`heal`] decides, one step at a time, to an array that is ours.

use std::time::Duration;

use super::heal::{self, DeviceState, Seen, Step};
use super::mdadm::MdadmError;
use super::record::Record;
use super::sysfs::{Array, Standing};
use super::{Machine, Options};

/// md lets a failed leg go when what was under way on it has ended: so often it is asked,
const REMOVALS: u32 = 50;
/// with this between.
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

/// The device under the blockmirror leg.
pub trait LegDevice {
    /// Whether it answers.
    fn state(&self) -> DeviceState;
    /// Attach the export, with somebody who keeps it attached.
    ///
    /// # Errors
    /// In words.
    fn attach(&self) -> Result<(), String>;
    /// Let it go.
    ///
    /// # Errors
    /// In words.
    fn detach(&self) -> Result<(), String>;
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
    #[error("{device} holds a leg of another array (UUID {found}): it is not touched")]
    Foreign {
        /// Which.
        device: String,
        /// Its array.
        found: String,
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
    may_copy_whole: bool,
    was_refused: bool,
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

    /// Starts an array that does not run, with its local leg alone: the other one comes back by its bitmap. False: it runs.
    ///
    /// # Errors
    /// mdadm says no, or another array is there.
    pub fn start(&self, record: &Record) -> Result<bool, HealError> {
        match self.ours(record) {
            Ok(_) => return Ok(false),
            Err(HealError::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
        // The local leg may have been put into an array by udev, which waits for the other one.
        if let Some(waiting) = self.blocks.holder(&record.local).filter(|array| !array.is_running()) {
            self.mdadm.run(&["--stop", &format!("/dev/{}", waiting.name)])?;
        }
        let uuid = format!("--uuid={}", record.uuid);
        self.mdadm
            .run(&["--assemble", "--run", &record.array, &uuid, &record.local])?;
        Ok(true)
    }
}

impl<'a> Healing<'a> {
    /// Of this leg. Nothing has been done yet.
    pub fn of(machine: &'a Machine, record: &'a Record, device: &'a dyn LegDevice, may_copy_whole: bool) -> Self {
        Self {
            machine,
            record,
            device,
            may_copy_whole,
            was_refused: false,
        }
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// The array does not run, or is not ours.
    pub fn next(&self) -> Result<Step, HealError> {
        let array = self.machine.ours(self.record)?;
        let leg = array.member(&self.record.device).map(|member| member.standing());
        let is_in = matches!(leg, Some(Standing::InSync | Standing::Syncing));
        Ok(heal::next(Seen {
            leg,
            // One that is in the array is not asked: it may be slow, and md knows best.
            device: if is_in { DeviceState::Alive } else { self.device.state() },
            was_refused: self.was_refused,
            may_copy_whole: self.may_copy_whole,
        }))
    }

    /// Does a step that [`next`](Self::next) has named.
    ///
    /// # Errors
    /// It could not be done.
    pub fn perform(&mut self, step: Step) -> Result<(), HealError> {
        let record = self.record;
        match step {
            Step::Nothing | Step::Wait | Step::AskBeforeCopyingWhole => {}
            Step::Remove => self.machine.remove(record)?,
            Step::Detach => self.device.detach().map_err(HealError::Device)?,
            Step::Attach => self.device.attach().map_err(HealError::Device)?,
            Step::ReAdd => self.re_add()?,
            Step::Add => {
                let [mostly, failfast] = Options::leg_arguments();
                let arguments = [record.array.as_str(), "--add", mostly, failfast, &record.device];
                self.machine.mdadm.run(&arguments)?;
            }
        }
        Ok(())
    }

    /// With its empty list of bad blocks taken away, should it have one: see [`Options::CONFIGURATION`].
    fn re_add(&mut self) -> Result<(), HealError> {
        let record = self.record;
        let on_it = self.machine.mdadm.examine(&record.device)?;
        if let Some(superblock) = on_it.filter(|superblock| superblock.uuid != record.uuid) {
            return Err(HealError::Foreign {
                device: record.device.clone(),
                found: superblock.uuid,
            });
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::md::scene::{Scene, UUID};

    /// A device that becomes what is done to it.
    struct Played {
        state: Cell<DeviceState>,
        done: RefCell<Vec<&'static str>>,
    }

    impl Played {
        fn new(state: DeviceState) -> Self {
            Self {
                state: Cell::new(state),
                done: RefCell::default(),
            }
        }
    }

    impl LegDevice for Played {
        fn state(&self) -> DeviceState {
            self.state.get()
        }
        fn attach(&self) -> Result<(), String> {
            self.done.borrow_mut().push("attach");
            self.state.set(DeviceState::Alive);
            Ok(())
        }
        fn detach(&self) -> Result<(), String> {
            self.done.borrow_mut().push("detach");
            self.state.set(DeviceState::Absent);
            Ok(())
        }
    }

    /// mdadm that knows the array, lets its leg go, and takes one (or does not).
    fn mdadm(scene: &Scene, uuid: &str, re_add: &str) {
        let folder = scene.path("block/md0/md/dev-nbd0");
        let leg = folder.display();
        scene.mdadm(&format!(
            "case \"$1 $2\" in
             '--detail --export') echo MD_UUID={uuid};;
             '--examine --export') echo MD_UUID={UUID};;
             'md0 --remove') rm -r {leg};;
             'md0 --re-add') {re_add};;
             'md0 --add') mkdir {leg}; echo spare > {leg}/state; echo none > {leg}/slot;;
             *) exit 1;;
             esac"
        ));
    }

    fn steps(healing: &mut Healing<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            let step = healing.next().unwrap();
            if matches!(step, Step::Nothing | Step::AskBeforeCopyingWhole) {
                return steps;
            }
            healing.perform(step).unwrap();
            steps.push(step);
            assert!(steps.len() < 10, "{steps:?}");
        }
    }

    #[test]
    fn a_failed_leg_comes_back_by_its_bitmap() {
        let scene = Scene::new();
        scene.array(Some("faulty,write_mostly\n"));
        let leg = scene.path("block/md0/md/dev-nbd0");
        let leg = leg.display();
        mdadm(
            &scene,
            UUID,
            &format!("mkdir {leg}; echo spare > {leg}/state; echo 1 > {leg}/slot"),
        );
        let (machine, record) = (scene.machine(), scene.record());
        let device = Played::new(DeviceState::Dead);
        let mut healing = Healing::of(&machine, &record, &device, false);
        assert_eq!(
            steps(&mut healing),
            [Step::Remove, Step::Detach, Step::Attach, Step::ReAdd]
        );
        assert_eq!(*device.done.borrow(), ["detach", "attach"]);
        let told = scene.told();
        assert!(told.contains(&"md0 --remove /dev/nbd0".to_owned()), "{told:?}");
        assert!(
            told.contains(&"md0 --re-add --update=no-bbl /dev/nbd0".to_owned()),
            "{told:?}"
        );
    }

    #[test]
    fn what_md_refuses_is_copied_whole_only_when_told() {
        let scene = Scene::new();
        let refuse = "echo 'mdadm: --re-add for /dev/nbd0 to /dev/md0 is not possible' >&2; exit 1";
        let (machine, record) = (scene.machine(), scene.record());
        for (may_copy_whole, last) in [(false, Step::AskBeforeCopyingWhole), (true, Step::Nothing)] {
            scene.array(None);
            mdadm(&scene, UUID, refuse);
            let device = Played::new(DeviceState::Alive);
            let mut healing = Healing::of(&machine, &record, &device, may_copy_whole);
            let expected: &[Step] = if may_copy_whole {
                &[Step::ReAdd, Step::Add]
            } else {
                &[Step::ReAdd]
            };
            assert_eq!(steps(&mut healing), expected);
            assert_eq!(healing.next().unwrap(), last);
        }
        let told = scene.told();
        let added: Vec<_> = told.iter().filter(|told| told.contains("--add")).collect();
        assert_eq!(added, ["md0 --add --write-mostly --failfast /dev/nbd0"]);
    }

    #[test]
    fn no_other_array_and_no_other_leg_is_touched() {
        let scene = Scene::new();
        scene.array(Some("faulty\n"));
        let (machine, record) = (scene.machine(), scene.record());
        let device = Played::new(DeviceState::Alive);
        mdadm(&scene, "9:9:9:9", "exit 1");
        let error = Healing::of(&machine, &record, &device, true).next().unwrap_err();
        assert!(matches!(error, HealError::NotOurs { .. }), "{error}");
        assert_eq!(scene.told(), ["--detail --export md0"]);

        scene.array(None);
        scene.mdadm(&format!(
            "case $1 in --detail) echo MD_UUID={UUID};; --examine) echo MD_UUID=8:8:8:8;; *) exit 1;; esac"
        ));
        let mut healing = Healing::of(&machine, &record, &device, true);
        let step = healing.next().unwrap();
        let error = healing.perform(step).unwrap_err();
        assert!(matches!(error, HealError::Foreign { .. }), "{error}");
        let told = scene.told();
        assert!(!told.iter().any(|told| told.contains("add")), "{told:?}");
    }

    #[test]
    fn an_array_starts_with_its_local_leg_alone() {
        let scene = Scene::new();
        let (machine, record) = (scene.machine(), scene.record());
        mdadm(&scene, UUID, "exit 1");
        scene.array(Some("in_sync\n"));
        assert!(!machine.start(&record).unwrap());
        // As udev leaves it when a leg is missing.
        scene.array(None);
        scene.put("md0/md", &[("array_state", "inactive\n")]);
        scene.told();
        scene.mdadm("exit 0");
        assert!(machine.start(&record).unwrap());
        let told = scene.told();
        assert_eq!(
            told,
            [
                "--stop /dev/md0".to_owned(),
                format!("--assemble --run md0 --uuid={UUID} /dev/vda")
            ]
        );
    }
}
