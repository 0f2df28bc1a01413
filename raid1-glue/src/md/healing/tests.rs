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
    fn state(&self, was_member: bool) -> Result<DeviceState, String> {
        match self.state.get() {
            // Untold.
            DeviceState::Foreign if was_member => Ok(DeviceState::Dead),
            DeviceState::Foreign => Err("it is not touched".to_owned()),
            state => Ok(state),
        }
    }
    fn attach(&self) -> Result<(), String> {
        self.done.borrow_mut().push("attach");
        self.state.set(DeviceState::Alive);
        Ok(())
    }
    fn detach(&self, was_member: bool) -> Result<(), String> {
        self.state(was_member)?;
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
         '--zero-superblock /dev/nbd0') ;;
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
        let step = healing.next_step().unwrap();
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
    let mut healing = Healing::of(&machine, &record, &device, Copying::Changed);
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
fn a_device_of_somebody_else_is_let_go_when_it_was_the_leg_and_is_not_touched_else() {
    let scene = Scene::new();
    scene.array(Some("faulty\n"));
    let leg = scene.path("block/md0/md/dev-nbd0");
    let leg = leg.display();
    let taken = format!("mkdir {leg}; echo spare > {leg}/state; echo 1 > {leg}/slot");
    mdadm(&scene, UUID, &taken);
    let (machine, record) = (scene.machine(), scene.record());
    let device = Played::new(DeviceState::Foreign);
    let mut healing = Healing::of(&machine, &record, &device, Copying::Changed);
    assert_eq!(
        steps(&mut healing),
        [Step::Remove, Step::Detach, Step::Attach, Step::ReAdd]
    );

    scene.array(None);
    scene.told();
    let device = Played::new(DeviceState::Foreign);
    for copying in [Copying::Changed, Copying::WholeIfRefused, Copying::Whole] {
        let error = Healing::of(&machine, &record, &device, copying)
            .next_step()
            .unwrap_err();
        assert!(
            matches!(&error, HealError::Device(why) if why.contains("not touched")),
            "{error}"
        );
    }
    assert!(device.done.borrow().is_empty());
    assert!(!scene.told().iter().any(|told| told.contains("add")));
}

#[test]
fn what_md_refuses_is_copied_whole_only_when_told() {
    let scene = Scene::new();
    let refuse = "echo 'mdadm: --re-add for /dev/nbd0 to /dev/md0 is not possible' >&2; exit 1";
    let (machine, record) = (scene.machine(), scene.record());
    for (copying, last) in [
        (Copying::Changed, Step::AskBeforeCopyingWhole),
        (Copying::WholeIfRefused, Step::Nothing),
    ] {
        scene.array(None);
        mdadm(&scene, UUID, refuse);
        let device = Played::new(DeviceState::Alive);
        let mut healing = Healing::of(&machine, &record, &device, copying);
        let expected: &[Step] = if copying == Copying::WholeIfRefused {
            &[Step::ReAdd, Step::Add]
        } else {
            &[Step::ReAdd]
        };
        assert_eq!(steps(&mut healing), expected);
        assert_eq!(healing.next_step().unwrap(), last);
    }
    let told = scene.told();
    let added: Vec<_> = told.iter().filter(|told| told.contains("--add")).collect();
    assert_eq!(added, ["md0 --add --write-mostly --failfast /dev/nbd0"]);
}

#[test]
fn an_operator_who_wants_everything_copied_gets_no_copy_by_the_bitmap() {
    let scene = Scene::new();
    let (machine, record) = (scene.machine(), scene.record());
    let device = Played::new(DeviceState::Alive);
    // mdadm would take it back at once, since it knows it.
    mdadm(&scene, UUID, "exit 0");
    scene.array(None);
    let mut healing = Healing::of(&machine, &record, &device, Copying::Whole);
    assert_eq!(steps(&mut healing), [Step::Add]);
    let changes: Vec<_> = scene
        .told()
        .into_iter()
        .filter(|told| !told.contains("--export"))
        .collect();
    assert_eq!(
        changes,
        [
            "--zero-superblock /dev/nbd0",
            "md0 --add --write-mostly --failfast /dev/nbd0"
        ]
    );
}

#[test]
fn a_leg_that_was_the_array_without_us_is_not_given_back_by_the_bitmap() {
    let scene = Scene::new();
    let (machine, record) = (scene.machine(), scene.record());
    let device = Played::new(DeviceState::Alive);
    for (local, leg, seen, is_ahead) in [
        (100, 90, "AA", false),
        // Power was lost between two notes.
        (100, 101, "AA", false),
        (100, 102, "AA", true),
        // The local leg has overtaken it since.
        (200, 102, ".A", true),
        (200, 102, "A.", false),
        (200, 102, "", false),
    ] {
        scene.array(None);
        scene.mdadm(&format!(
            "case \"$*\" in
             '--detail --export'*) echo MD_UUID={UUID};;
             '--examine --export /dev/vda') echo MD_UUID={UUID}; echo MD_EVENTS={local};;
             '--examine --export /dev/nbd0') echo MD_UUID={UUID}; echo MD_EVENTS={leg};;
             '--examine /dev/nbd0') echo '   Array State : {seen} (A == active)';;
             esac"
        ));
        let mut healing = Healing::of(&machine, &record, &device, Copying::Changed);
        scene.told();
        let done = healing.perform(Step::ReAdd);
        let was_told = scene.told().iter().any(|told| told.contains("--re-add"));
        assert_eq!(was_told, !is_ahead, "{local} {leg} {seen:?}");
        match done {
            Ok(()) => assert!(!is_ahead, "{local} {leg} {seen:?}"),
            Err(error) => {
                assert!(matches!(error, HealError::Ahead { .. }), "{error}");
                let error = error.to_string();
                assert!(
                    error.contains("raid add NAME --full") && error.contains("--assemble"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn no_other_array_and_no_other_leg_is_touched() {
    let scene = Scene::new();
    scene.array(Some("faulty\n"));
    let (machine, record) = (scene.machine(), scene.record());
    let device = Played::new(DeviceState::Alive);
    mdadm(&scene, "9:9:9:9", "exit 1");
    let error = Healing::of(&machine, &record, &device, Copying::Whole)
        .next_step()
        .unwrap_err();
    assert!(matches!(error, HealError::NotOurs { .. }), "{error}");
    assert_eq!(scene.told(), ["--detail --export md0"]);

    scene.array(None);
    scene.mdadm(&format!(
        "case $1 in --detail) echo MD_UUID={UUID};; --examine) echo MD_UUID=8:8:8:8;; *) exit 1;; esac"
    ));
    for copying in [Copying::Changed, Copying::WholeIfRefused, Copying::Whole] {
        let mut healing = Healing::of(&machine, &record, &device, copying);
        let step = healing.next_step().unwrap();
        let error = healing.perform(step).unwrap_err();
        assert!(matches!(error, HealError::Foreign { .. }), "{error}");
        assert!(
            error.to_string().contains("mdadm --zero-superblock /dev/nbd0"),
            "{error}"
        );
    }
    let told = scene.told();
    let changed = |told: &String| told.contains("add") || told.starts_with("--zero");
    assert!(!told.iter().any(changed), "{told:?}");
}
