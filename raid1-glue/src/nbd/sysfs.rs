//! What the kernel shows of an nbd device in `/sys/block` and `/proc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nbd_proto::TransmissionFlags;

/// Bytes of the unit in which the kernel counts sizes.
const SECTOR: u64 = 512;

/// A device by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NbdIndex(pub u32);

/// What a path has to look like.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no nbd device: write /dev/nbd0, /dev/nbd1 ...")]
pub struct NotNbd(String);

impl std::str::FromStr for NbdIndex {
    type Err = NotNbd;

    /// `/dev/nbd7`, or `nbd7`.
    fn from_str(text: &str) -> Result<Self, NotNbd> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        let digits = name
            .strip_prefix("nbd")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NotNbd(text.to_owned()))
    }
}

impl std::fmt::Display for NbdIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/dev/nbd{}", self.0)
    }
}

/// How far a device is from being free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has attached it.
    Free,
    /// Attached, to what is said here by who did it; `None`: nothing is said (Linux before 5.14, or another program).
    Attached(Option<String>),
}

/// What a device was made with: the kernel holds on to it for as long as the device is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Connections, dead ones too. Of a device that somebody else has attached: at least so many, for the kernel shows a queue
    /// for each of them, and no more queues than there are processors.
    pub connections: usize,
    /// What it may ask of a server.
    pub flags: TransmissionFlags,
}

/// Requests as the kernel counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Finished since the device is there.
    pub finished: u64,
    /// Under way.
    pub under_way: u64,
}

/// Where the kernel shows itself.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl System {
    /// This machine.
    pub fn here() -> Self {
        Self::at(Path::new("/"))
    }

    /// Another root, with `sys` and `proc` in it.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What is under this path of `/`.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn folder(&self, index: NbdIndex) -> PathBuf {
        self.root.join(format!("sys/block/nbd{}", index.0))
    }

    fn word(&self, index: NbdIndex, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder(index).join(file)).ok()?;
        Some(text.trim_end().to_owned())
    }

    fn number(&self, index: NbdIndex, file: &str) -> Option<u64> {
        self.word(index, file)?.trim().parse().ok()
    }

    /// Its size in bytes; 0 when it is not attached, or does not exist.
    pub fn size(&self, index: NbdIndex) -> u64 {
        self.number(index, "size").unwrap_or_default() * SECTOR
    }

    /// Whether it is attached, and to what. Somebody who merely has it open does not attach it. A device that was detached
    /// while somebody had it open counts as attached until that is closed.
    pub fn standing(&self, index: NbdIndex) -> Standing {
        // The kernel shows the process that attached it, and hides the file afterwards.
        if self.word(index, "pid").is_none() {
            return Standing::Free;
        }
        // nbd-client says that it is attached to nothing.
        Standing::Attached(self.word(index, "backend").filter(|backend| !backend.is_empty()))
    }

    /// Whether the kernel has let it go altogether, which takes a moment once it was detached.
    pub fn is_gone(&self, index: NbdIndex) -> bool {
        self.standing(index) == Standing::Free && self.size(index) == 0
    }

    /// What it was made with.
    ///
    /// # Errors
    /// There is no such device, or the kernel shows less of it than is needed.
    pub fn shape(&self, index: NbdIndex) -> io::Result<Shape> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the kernel does not describe {index}"));
        let block_size = self.number(index, "queue/logical_block_size").ok_or_else(missing)?;
        let connections = fs::read_dir(self.folder(index).join("mq"))?.flatten().count();
        let mut flags = TransmissionFlags::empty();
        let has = |file| self.number(index, file).is_some_and(|value| value > 0);
        flags.set(TransmissionFlags::READ_ONLY, has("ro"));
        let cached = self.word(index, "queue/write_cache");
        flags.set(TransmissionFlags::SEND_FLUSH, cached.as_deref() == Some("write back"));
        flags.set(TransmissionFlags::SEND_FUA, has("queue/fua"));
        flags.set(TransmissionFlags::SEND_TRIM, has("queue/discard_max_bytes"));
        flags.set(
            TransmissionFlags::SEND_WRITE_ZEROES,
            has("queue/write_zeroes_max_bytes"),
        );
        flags.set(TransmissionFlags::CAN_MULTI_CONN, connections > 1);
        Ok(Shape {
            size: self.size(index),
            block_size: u32::try_from(block_size).map_err(io::Error::other)?,
            connections,
            flags,
        })
    }

    /// How its requests get on; `None`: the kernel does not say.
    pub fn progress(&self, index: NbdIndex) -> Option<Progress> {
        let text = self.word(index, "stat")?;
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        // Documentation/block/stat.rst: reads, writes, under way, discards, flushes.
        let finished = [0, 4, 11, 15].iter().filter_map(|at| numbers.get(*at)).sum();
        Some(Progress {
            finished,
            under_way: *numbers.get(8)?,
        })
    }

    /// Devices that are made of it: md arrays, device mapper.
    pub fn holders(&self, index: NbdIndex) -> Vec<String> {
        let Ok(holders) = fs::read_dir(self.folder(index).join("holders")) else {
            return Vec::new();
        };
        holders
            .flatten()
            .map(|holder| holder.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// What it is used for: mounted where, held by what, swapped to. In words for people.
    pub fn users(&self, index: NbdIndex) -> Vec<String> {
        let mounts = fs::read_to_string(self.path("proc/self/mounts")).unwrap_or_default();
        let mounted = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (device, place) = (words.next()?, words.next()?);
            is_or_has(index, device).then(|| format!("{device} is mounted on {place}"))
        });
        let held = self.holders(index).into_iter();
        let held = held.map(|holder| format!("it is part of /dev/{holder}"));
        let swapped = self.swaps(index).into_iter();
        let swapped = swapped.map(|device| format!("{device} is swapped to"));
        mounted.chain(held).chain(swapped).collect()
    }

    /// The device, or partitions of it, that the kernel swaps to.
    pub fn swaps(&self, index: NbdIndex) -> Vec<String> {
        let swaps = fs::read_to_string(self.path("proc/swaps")).unwrap_or_default();
        let devices = swaps.lines().filter_map(|line| line.split_whitespace().next());
        devices
            .filter(|device| is_or_has(index, device))
            .map(str::to_owned)
            .collect()
    }
}

/// The device itself, or a partition of it.
fn is_or_has(index: NbdIndex, device: &str) -> bool {
    device.strip_prefix(&index.to_string()).is_some_and(|rest| {
        let partition = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        rest.is_empty() || rest.strip_prefix('p').is_some_and(partition)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nbd::tests::Fake;

    #[test]
    fn names() {
        for (text, number) in [("/dev/nbd0", 0), ("nbd15", 15)] {
            assert_eq!(text.parse::<NbdIndex>().unwrap(), NbdIndex(number));
        }
        for text in ["", "/dev/nbd", "/dev/sda", "/dev/nbd0p1", "nbd-1", "nbd99999999999"] {
            let error = text.parse::<NbdIndex>().unwrap_err();
            assert!(error.to_string().contains("write /dev/nbd0"), "{error}");
        }
        assert_eq!(NbdIndex(3).to_string(), "/dev/nbd3");
    }

    #[test]
    fn users_of_the_device_and_its_partitions() {
        let fake = Fake::new();
        fake.put(
            "proc/self/mounts",
            "/dev/nbd1 /data ext4 rw 0 0\n/dev/nbd1p2 /more xfs rw 0 0\n/dev/nbd11 /other ext4 rw 0 0\nproc /proc proc rw 0 0\n",
        );
        fake.put(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/nbd1p3 partition 1 0 -2\n",
        );
        fake.put("sys/block/nbd1/holders/md0/size", "8");
        assert_eq!(
            fake.system().users(NbdIndex(1)),
            [
                "/dev/nbd1 is mounted on /data",
                "/dev/nbd1p2 is mounted on /more",
                "it is part of /dev/md0",
                "/dev/nbd1p3 is swapped to",
            ]
        );
        assert_eq!(fake.system().swaps(NbdIndex(1)), ["/dev/nbd1p3"]);
        assert!(fake.system().users(NbdIndex(2)).is_empty());
    }

    #[test]
    fn who_has_it_open_does_not_attach_it() {
        let fake = Fake::new();
        let system = fake.system();
        assert_eq!(
            (system.standing(NbdIndex(0)), system.size(NbdIndex(0))),
            (Standing::Free, 0)
        );
        assert!(system.is_gone(NbdIndex(0)));
        fake.put("sys/block/nbd0/size", "0\n");
        assert_eq!(system.standing(NbdIndex(0)), Standing::Free);
        fake.put("sys/block/nbd0/pid", "17\n");
        assert_eq!(system.standing(NbdIndex(0)), Standing::Attached(None));
        fake.put("sys/block/nbd0/backend", "\n");
        assert_eq!(system.standing(NbdIndex(0)), Standing::Attached(None));
        fake.put("sys/block/nbd0/backend", "nbd://alpha/db\n");
        assert_eq!(
            system.standing(NbdIndex(0)),
            Standing::Attached(Some("nbd://alpha/db".to_owned()))
        );
    }

    #[test]
    fn the_shape_of_an_attached_device() {
        let fake = Fake::new();
        assert!(fake.system().shape(NbdIndex(0)).is_err());
        fake.attached(NbdIndex(0), 64 << 20, 4);
        let shape = fake.system().shape(NbdIndex(0)).unwrap();
        assert_eq!((shape.size, shape.block_size, shape.connections), (64 << 20, 4096, 4));
        assert_eq!(
            shape.flags,
            TransmissionFlags::SEND_FLUSH
                | TransmissionFlags::SEND_FUA
                | TransmissionFlags::SEND_TRIM
                | TransmissionFlags::CAN_MULTI_CONN
        );
        fake.put("sys/block/nbd0/queue/write_cache", "write through\n");
        fake.put("sys/block/nbd0/queue/fua", "0\n");
        fake.put("sys/block/nbd0/ro", "1\n");
        let flags = fake.system().shape(NbdIndex(0)).unwrap().flags;
        assert!(!flags.intersects(TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA));
        assert!(flags.contains(TransmissionFlags::READ_ONLY));
    }

    #[test]
    fn requests_that_finish_and_requests_under_way() {
        let fake = Fake::new();
        assert_eq!(fake.system().progress(NbdIndex(0)), None);
        fake.put("sys/block/nbd0/stat", "  10 0 80 5 20 0 160 9 3 12 14 4 0 32 1 6 2\n");
        let progress = fake.system().progress(NbdIndex(0)).unwrap();
        assert_eq!((progress.finished, progress.under_way), (10 + 20 + 4 + 6, 3));
    }
}
