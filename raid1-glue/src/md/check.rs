//! What keeps two devices from becoming an array, and an array from coming under our care.

use super::heal::DeviceState;
use super::sysfs::{Array, Standing};

/// Less than that is no array: metadata and a bitmap have to fit, too.
const SIZE_MIN: u64 = 8 << 20;
/// Part of the larger device that may be wasted without a word: one in so many.
const WASTE: u64 = 100;

/// A device that is to be a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As the operator names it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Who has it open, in words.
    pub used_by: Vec<String>,
    /// What is on it, in words; `None`: zeroes at its beginning and its end.
    pub holds: Option<String>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is open.
    #[error("{name} is used: {by}; a leg has to be free")]
    Used {
        /// The device.
        name: String,
        /// By whom.
        by: String,
    },
    /// It is not empty.
    #[error("{name} holds {what}; --force if that may be lost")]
    Holds {
        /// The device.
        name: String,
        /// What.
        what: String,
    },
    /// It has no room.
    #[error("{name} has {size} bytes: an array needs {SIZE_MIN} at least")]
    Small {
        /// The device.
        name: String,
        /// Bytes.
        size: u64,
    },
    /// The array would be smaller than the local device.
    #[error(
        "{leg} has {leg_size} bytes, {local} has {local_size}: the array would be as small as the leg; make it larger, or \
         --force to lose the rest"
    )]
    LegSmaller {
        /// The leg.
        leg: String,
        /// Its bytes.
        leg_size: u64,
        /// The local device.
        local: String,
        /// Its bytes.
        local_size: u64,
    },
    /// Only RAID1 has a copy on each leg.
    #[error("{array} is {level}: only raid1 can be adopted")]
    Level {
        /// The array.
        array: String,
        /// What it is.
        level: String,
    },
    /// It is not whole here.
    #[error("{array} has no local leg that is in sync")]
    NoLocal {
        /// The array.
        array: String,
    },
    /// What fails would have to be copied whole.
    #[error(
        "{array} has no bitmap, and every cut would cost a whole copy: `mdadm --grow --bitmap=internal {array}` first"
    )]
    NoBitmap {
        /// The array.
        array: String,
    },
}

/// Whether an array can be made of them; what an operator should know all the same.
///
/// # Errors
/// The first thing that forbids it.
pub fn create(local: &Candidate, leg: &Candidate, is_forced: bool) -> Result<Vec<String>, Refusal> {
    for device in [local, leg] {
        let name = || device.name.clone();
        if !device.used_by.is_empty() {
            let by = device.used_by.join(", ");
            return Err(Refusal::Used { name: name(), by });
        }
        if device.size < SIZE_MIN {
            let size = device.size;
            return Err(Refusal::Small { name: name(), size });
        }
    }
    for device in [local, leg] {
        if let (Some(what), false) = (&device.holds, is_forced) {
            return Err(Refusal::Holds {
                name: device.name.clone(),
                what: what.clone(),
            });
        }
    }
    let is_smaller = leg.size < local.size - local.size / WASTE;
    if is_smaller && !is_forced {
        return Err(Refusal::LegSmaller {
            leg: leg.name.clone(),
            leg_size: leg.size,
            local: local.name.clone(),
            local_size: local.size,
        });
    }
    let mut words = Vec::new();
    let larger = if leg.size > local.size { leg } else { local };
    let rest = leg.size.abs_diff(local.size);
    if rest > larger.size / WASTE {
        words.push(format!("the last {rest} bytes of {} are not used", larger.name));
    }
    let lost = [local, leg].into_iter().filter_map(|device| {
        let what = device.holds.as_ref()?;
        Some(format!("{} loses what it holds: {what}", device.name))
    });
    words.extend(lost);
    Ok(words)
}

/// The local leg of an array that is to be adopted, with its leg on `device`.
///
/// # Errors
/// The first thing that forbids it.
pub fn adopt(array: &Array, device: &str, has_bitmap: bool) -> Result<String, Refusal> {
    let name = format!("/dev/{}", array.name);
    if array.level != "raid1" {
        let level = array.level.clone();
        return Err(Refusal::Level { array: name, level });
    }
    let leg = array.member(device).map(|member| member.device.as_str());
    let local = array
        .members
        .iter()
        .find(|member| Some(member.device.as_str()) != leg && member.standing() == Standing::InSync);
    let Some(local) = local else {
        return Err(Refusal::NoLocal { array: name });
    };
    if !has_bitmap {
        return Err(Refusal::NoBitmap { array: name });
    }
    Ok(format!("/dev/{}", local.device))
}

/// What an adopted array lacks of the options that belong to one with such a leg.
pub fn advice(name: &str, array: &Array, device: &str, state: DeviceState) -> Vec<String> {
    let mut words = Vec::new();
    let Some(leg) = array.member(device) else {
        words.push(format!(
            "{device} is no part of /dev/{} yet: `blockmirror raid add {name}` brings it in",
            array.name
        ));
        return words;
    };
    let has = |flag: &str| leg.flags.iter().any(|own| own == flag);
    let state_file = format!("/sys/block/{}/md/dev-{}/state", array.name, leg.device);
    if !has("write_mostly") {
        words.push(format!(
            "reads go over the network, too; to keep them local: echo writemostly > {state_file}"
        ));
    }
    if leg.bad_blocks > 0 {
        words.push(format!(
            "md has noted {} bad stretches on it, whose data are on the local leg alone; to write them again: \
             echo repair > /sys/block/{}/md/sync_action",
            leg.bad_blocks, array.name
        ));
    }
    if state == DeviceState::Alive {
        words.push(format!(
            "{device} is attached by somebody else, which stays so until it fails; from then on we attach it"
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::scene::Scene;

    fn device(name: &str, size: u64) -> Candidate {
        Candidate {
            name: name.to_owned(),
            size,
            used_by: Vec::new(),
            holds: None,
        }
    }

    #[test]
    fn what_is_used_or_too_small_is_refused_whatever_is_forced() {
        let (local, leg) = (device("/dev/vdb", 1 << 30), device("nbd://b/leg", 1 << 30));
        assert_eq!(create(&local, &leg, false).unwrap(), Vec::<String>::new());
        let mounted = Candidate {
            used_by: vec!["mounted on /srv".to_owned()],
            ..local.clone()
        };
        let small = device("nbd://b/leg", 1 << 20);
        for is_forced in [false, true] {
            let refusal = create(&mounted, &leg, is_forced).unwrap_err().to_string();
            assert!(refusal.contains("/dev/vdb is used: mounted on /srv"), "{refusal}");
            assert!(matches!(create(&local, &small, is_forced), Err(Refusal::Small { .. })));
        }
    }

    #[test]
    fn what_holds_data_or_does_not_fit_needs_a_word() {
        let (local, leg) = (device("/dev/vdb", 1 << 30), device("nbd://b/leg", 1 << 30));
        let full = Candidate {
            holds: Some("ext4".to_owned()),
            ..leg.clone()
        };
        let refusal = create(&local, &full, false).unwrap_err().to_string();
        assert!(refusal.contains("nbd://b/leg holds ext4; --force"), "{refusal}");
        assert_eq!(
            create(&local, &full, true).unwrap(),
            ["nbd://b/leg loses what it holds: ext4"]
        );
        let short = device("nbd://b/leg", 1 << 29);
        assert!(matches!(create(&local, &short, false), Err(Refusal::LegSmaller { .. })));
        let words = create(&local, &short, true).unwrap();
        assert!(words[0].contains("536870912 bytes of /dev/vdb"), "{words:?}");
        let long = device("nbd://b/leg", 2 << 30);
        let words = create(&local, &long, false).unwrap();
        assert!(words[0].contains("1073741824 bytes of nbd://b/leg"), "{words:?}");
        let nearly = device("nbd://b/leg", (1 << 30) - (1 << 20));
        assert_eq!(create(&local, &nearly, false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn arrays_that_can_be_adopted() {
        let scene = Scene::new();
        let blocks = scene.machine().blocks;
        scene.array(Some("in_sync\n"));
        let array = blocks.array("md0").unwrap();
        assert_eq!(adopt(&array, "/dev/nbd0", true).unwrap(), "/dev/vda");
        let refusal = adopt(&array, "/dev/nbd0", false).unwrap_err().to_string();
        assert!(refusal.contains("mdadm --grow --bitmap=internal /dev/md0"), "{refusal}");
        let words = advice("data", &array, "/dev/nbd0", DeviceState::Absent);
        assert!(words.len() == 1 && words[0].contains("echo writemostly"), "{words:?}");
        scene.array(None);
        let array = blocks.array("md0").unwrap();
        assert_eq!(adopt(&array, "/dev/nbd0", true).unwrap(), "/dev/vda");
        let words = advice("data", &array, "/dev/nbd0", DeviceState::Absent);
        assert!(words[0].contains("raid add data"), "{words:?}");
        scene.put("md0/md/dev-vda", &[("state", "faulty\n")]);
        let array = blocks.array("md0").unwrap();
        assert!(matches!(adopt(&array, "/dev/nbd0", true), Err(Refusal::NoLocal { .. })));
        scene.put("md0/md", &[("level", "raid5\n")]);
        let array = blocks.array("md0").unwrap();
        assert!(matches!(adopt(&array, "/dev/nbd0", true), Err(Refusal::Level { .. })));
    }
}
