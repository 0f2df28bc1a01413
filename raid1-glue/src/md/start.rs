//! Starting an array with its local leg alone, as at a boot.

use super::Machine;
use super::healing::HealError;
use super::record::Record;
use super::sysfs::{Array, Member, Standing};

impl Array {
    /// Whether the leg alone has everything; `None`: that cannot be told without it.
    pub fn is_local_behind(&self, record: &Record) -> Option<bool> {
        let leg = self.member(&record.device)?;
        if leg.standing() != Standing::InSync {
            return None;
        }
        // A device may have got another name since it was noted; any local leg that is whole will do then.
        let others = || self.members.iter().filter(|member| member.device != leg.device);
        let local = self.member(&record.local);
        let has_everything = |member: &Member| member.standing() == Standing::InSync;
        Some(!local.map_or_else(|| others().any(has_everything), has_everything))
    }
}

impl Machine {
    /// Starts an array that does not run, with its local leg alone: the other one comes back by its bitmap. `may_be_behind`:
    /// an operator gives up what only the other one has. False: it runs.
    ///
    /// # Errors
    /// mdadm says no, another array is there, or the local leg has old data.
    pub fn start(&self, record: &Record, may_be_behind: bool) -> Result<bool, HealError> {
        match self.ours(record) {
            Ok(_) => return Ok(false),
            Err(HealError::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
        self.is_local_leg(record)?;
        if record.is_local_behind && !may_be_behind {
            return Err(HealError::Behind {
                array: record.array.clone(),
                uuid: record.uuid.clone(),
                local: record.local.clone(),
                uris: record.uris.clone(),
                device: record.device.clone(),
            });
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

    /// The local leg is there, and one of this array: names of devices are given anew at every boot.
    fn is_local_leg(&self, record: &Record) -> Result<(), HealError> {
        let what = match self.mdadm.examine(&record.local)? {
            Some(own) if own.uuid == record.uuid => return Ok(()),
            Some(other) => format!("holds a leg of another array (UUID {})", other.uuid),
            None => "is not there, or holds no leg of an array".to_owned(),
        };
        Err(HealError::NotLocal {
            device: record.local.clone(),
            what,
            uuid: record.uuid.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::scene::{Scene, UUID};

    #[test]
    fn an_array_starts_with_its_local_leg_alone() {
        let scene = Scene::new();
        let (machine, record) = (scene.machine(), scene.record());
        scene.mdadm(&format!("echo MD_UUID={UUID}"));
        scene.array(Some("in_sync\n"));
        assert!(!machine.start(&record, false).unwrap());
        // As udev leaves it when a leg is missing.
        scene.array(None);
        scene.put("md0/md", &[("array_state", "inactive\n")]);
        scene.told();
        assert!(machine.start(&record, false).unwrap());
        let told = scene.told();
        assert_eq!(
            told,
            [
                "--examine --export /dev/vda".to_owned(),
                "--stop /dev/md0".to_owned(),
                format!("--assemble --run md0 --uuid={UUID} /dev/vda")
            ]
        );
    }

    #[test]
    fn an_array_is_not_started_with_a_leg_that_has_old_data_without_a_word() {
        let scene = Scene::new();
        let machine = scene.machine();
        let record = Record {
            is_local_behind: true,
            ..scene.record()
        };
        scene.mdadm(&format!("echo MD_UUID={UUID}"));
        let refused = machine.start(&record, false).unwrap_err().to_string();
        assert!(refused.contains("/dev/vda has old data"), "{refused}");
        assert!(refused.contains("--assemble --run md0"), "{refused}");
        assert_eq!(scene.told(), ["--examine --export /dev/vda"]);
        assert!(machine.start(&record, true).unwrap());
        assert!(scene.told().iter().any(|told| told.starts_with("--assemble")));
    }

    #[test]
    fn the_local_leg_is_behind_while_the_other_one_alone_has_everything() {
        let scene = Scene::new();
        let record = scene.record();
        let look = |local: &str, leg: Option<&str>| {
            scene.array(leg);
            scene.put("md0/md/dev-vda", &[("state", local)]);
            scene.machine().blocks.array("md0").unwrap().is_local_behind(&record)
        };
        let whole = Some("in_sync,write_mostly\n");
        assert_eq!(look("in_sync\n", whole), Some(false));
        assert_eq!(look("faulty\n", whole), Some(true));
        assert_eq!(look("spare\n", whole), Some(true));
        // It may have been put together without the other one, which has everything.
        for leg in [None, Some("faulty\n"), Some("spare\n")] {
            assert_eq!(look("in_sync\n", leg), None, "{leg:?}");
        }
        let elsewhere = Record {
            local: "/dev/vdz".to_owned(),
            ..scene.record()
        };
        scene.array(whole);
        let array = scene.machine().blocks.array("md0").unwrap();
        assert_eq!(array.is_local_behind(&elsewhere), Some(false));
        std::fs::remove_dir_all(scene.path("block/md0/md/dev-vda")).unwrap();
        let array = scene.machine().blocks.array("md0").unwrap();
        assert_eq!(array.is_local_behind(&record), Some(true));
    }

    #[test]
    fn no_other_array_is_stopped_though_it_has_the_device_of_the_local_leg() {
        let scene = Scene::new();
        let (machine, record) = (scene.machine(), scene.record());
        scene.array(None);
        scene.put("md0/md", &[("array_state", "inactive\n")]);
        for (said, word) in [
            ("echo MD_UUID=8:8:8:8", "leg of another array (UUID 8:8:8:8)"),
            ("exit 1", "no leg of an array"),
        ] {
            scene.mdadm(said);
            let error = machine.start(&record, false).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(scene.told(), ["--examine --export /dev/vda"]);
        }
    }
}
