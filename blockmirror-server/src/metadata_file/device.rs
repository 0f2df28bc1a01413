//! What names a block device from one boot to the next.

use std::fs;
use std::path::{Path, PathBuf};

use mirror_core::metadata::ImageIdentity;
use rustix::fs::{major, minor};

/// Files of sysfs that name what is behind a block device, the most telling first.
const NAMES: [&str; 7] = [
    "dm/uuid",
    "md/uuid",
    "wwid",
    "device/wwid",
    "serial",
    "device/serial",
    "loop/backing_file",
];

/// The identity of the block device with this number.
pub(super) fn identity(number: u64, size: u64) -> ImageIdentity {
    let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let name = fs::canonicalize(link).ok().and_then(|place| stable_name(&place));
    match name {
        Some(name) => ImageIdentity {
            size,
            device: hash(name.as_bytes()),
            inode: 0,
            born_ns: 0,
        },
        // Numbers of devices may change from boot to boot, but there is nothing better.
        None => ImageIdentity {
            size,
            device: 0,
            inode: number,
            born_ns: 0,
        },
    }
}

/// The name of the device at this place of sysfs; of a partition, that of the whole device and its number.
fn stable_name(place: &Path) -> Option<String> {
    if let Some(partition) = read(&place.join("partition")) {
        return Some(format!("{} partition {partition}", whole_name(place.parent()?)?));
    }
    whole_name(place)
}

fn whole_name(place: &Path) -> Option<String> {
    let path = |name: &&str| -> PathBuf { place.join(name) };
    NAMES
        .iter()
        .find_map(|name| Some(format!("{name} {}", read(&path(name))?)))
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// FNV-1a: fixed for ever, since it stands in metadata files.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hash_is_fixed() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_of_devices_and_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("vda");
        fs::create_dir_all(disk.join("vda1")).unwrap();
        assert_eq!(stable_name(&disk), None);
        fs::write(disk.join("serial"), "S-1\n").unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        assert_eq!(stable_name(&disk).unwrap(), "serial S-1");
        assert_eq!(stable_name(&disk.join("vda1")).unwrap(), "serial S-1 partition 1");
        fs::write(disk.join("wwid"), "naa.1\n").unwrap();
        assert_eq!(stable_name(&disk).unwrap(), "wwid naa.1");
    }

    #[test]
    fn an_unnamed_device_is_known_by_its_number() {
        let found = identity(0xfff_ffff, 4096);
        assert_eq!(
            found,
            ImageIdentity {
                size: 4096,
                device: 0,
                inode: 0xfff_ffff,
                born_ns: 0
            }
        );
    }
}
