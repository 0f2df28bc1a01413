//! Starting an array with its local leg alone, as at a boot.

use super::Machine;
use super::healing::HealError;
use super::record::Record;

impl Machine {
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
        self.is_local_leg(record)?;
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
    use crate::md::scene::{Scene, UUID};

    #[test]
    fn an_array_starts_with_its_local_leg_alone() {
        let scene = Scene::new();
        let (machine, record) = (scene.machine(), scene.record());
        scene.mdadm(&format!("echo MD_UUID={UUID}"));
        scene.array(Some("in_sync\n"));
        assert!(!machine.start(&record).unwrap());
        // As udev leaves it when a leg is missing.
        scene.array(None);
        scene.put("md0/md", &[("array_state", "inactive\n")]);
        scene.told();
        assert!(machine.start(&record).unwrap());
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
            let error = machine.start(&record).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!(scene.told(), ["--examine --export /dev/vda"]);
        }
    }
}
