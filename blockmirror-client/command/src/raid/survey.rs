//! What is known of two devices before they become an array: their sizes, who uses them, what they hold, how long the leg takes.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use raid1_glue::md::check::Candidate;
use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::side::Side;

/// So much at the beginning and the end of a device tells whether it is empty: filesystems, arrays, partitions and volume
/// managers all leave something there.
const EDGE: u64 = 1 << 20;
/// The leg is asked so often; the median counts.
const PROBES: u64 = 16;
/// Of one such question.
const BLOCK: u64 = 4096;

/// What can be told by its first bytes: where, which, what.
const KNOWN: [(usize, &[u8], &str); 9] = [
    (0x438, &[0x53, 0xef], "an ext2, ext3 or ext4 filesystem"),
    (0, b"XFSB", "an XFS filesystem"),
    (0x10040, b"_BHRfS_M", "a btrfs filesystem"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a leg of an array of md"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a leg of an array of md"),
    (0, b"LUKS", "an encrypted device (LUKS)"),
    (512, b"LABELONE", "a physical volume of LVM"),
    (512, b"EFI PART", "a partition table (GPT)"),
    (510, &[0x55, 0xaa], "a partition table or a boot sector"),
];

/// The local device.
pub fn local(path: &Path) -> Result<Candidate, Failure> {
    let name = path.display().to_string();
    let failed = |error: io::Error| Failure::Failed(format!("{name}: {error}"));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.file_type().is_block_device() {
        return Err(Failure::Failed(format!(
            "{name} is no block device: an array needs one"
        )));
    }
    let mut device = File::open(path).map_err(failed)?;
    let size = device.seek(SeekFrom::End(0)).map_err(failed)?;
    let edge = |offset: u64| {
        let mut bytes = vec![0; EDGE.min(size) as usize];
        device.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    let begin = edge(0).map_err(failed)?;
    let end = edge(size.saturating_sub(EDGE)).map_err(failed)?;
    Ok(Candidate {
        name,
        size,
        used_by: used_by(path),
        holds: held(&begin, &end),
    })
}

/// Who has it open: the kernel lets nobody else have it alone then.
fn used_by(path: &Path) -> Vec<String> {
    let alone = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(path);
    match alone {
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => who(path),
        Err(error) => vec![error.to_string()],
    }
}

fn who(path: &Path) -> Vec<String> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let holders = std::fs::read_dir(Path::new("/sys/class/block").join(&name).join("holders"));
    let mut who: Vec<String> = holders
        .into_iter()
        .flatten()
        .flatten()
        .map(|holder| format!("part of /dev/{}", holder.file_name().to_string_lossy()))
        .collect();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let real = real.display().to_string();
    who.extend(mounts.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        (device == real).then(|| format!("mounted on {}", rest.split(' ').next().unwrap_or_default()))
    }));
    if who.is_empty() {
        who.push("something has it open for itself".to_owned());
    }
    who
}

/// The export that is to be the leg. Nothing is written to it.
pub async fn leg(side: &Side) -> Result<Candidate, Failure> {
    let length = EDGE.min(side.size);
    let begin = side.read(0, length).await?;
    let end = side.read(side.size - length, length).await?;
    Ok(Candidate {
        name: side.uri.clone(),
        size: side.size,
        used_by: Vec::new(),
        holds: held(&begin, &end),
    })
}

/// How long the leg takes: the larger one of the medians of reads and of flushes. When what it holds may be lost anyway, each
/// flush has something to do: the block that has just been read is written again, as it was.
pub async fn latency(side: &Side, may_write: bool) -> Result<Duration, Failure> {
    let (mut reads, mut flushes) = (Vec::new(), Vec::new());
    let blocks = side.size / BLOCK;
    for probe in 0..PROBES {
        let offset = blocks * probe / PROBES * BLOCK;
        let begin = Instant::now();
        let block = side.read(offset, BLOCK.min(side.size)).await?;
        reads.push(begin.elapsed());
        let begin = Instant::now();
        if may_write {
            side.write(offset, &block).await?;
        }
        side.flush().await?;
        flushes.push(begin.elapsed());
    }
    Ok(median(&mut reads).max(median(&mut flushes)))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// In words; `None`: zeroes.
fn held(begin: &[u8], end: &[u8]) -> Option<String> {
    let known = KNOWN
        .iter()
        .find(|(at, magic, _)| begin.get(*at..).is_some_and(|bytes| bytes.starts_with(magic)));
    if let Some((_, _, what)) = known {
        return Some((*what).to_owned());
    }
    if let Some(at) = begin.iter().position(|&byte| byte != 0) {
        return Some(format!("data (the first at byte {at})"));
    }
    let at = end.iter().rposition(|&byte| byte != 0)?;
    Some(format!("data (the last {} bytes before its end)", end.len() - at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_on_a_device_is_named() {
        let zeroes = vec![0; EDGE as usize];
        assert_eq!(held(&zeroes, &zeroes), None);
        for (at, magic, what) in KNOWN {
            let mut bytes = zeroes.clone();
            bytes[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(held(&bytes, &zeroes).unwrap(), what);
        }
        let mut bytes = zeroes.clone();
        bytes[77] = 1;
        assert_eq!(held(&bytes, &zeroes).unwrap(), "data (the first at byte 77)");
        let mut bytes = zeroes.clone();
        bytes[EDGE as usize - 3] = 1;
        assert_eq!(held(&zeroes, &bytes).unwrap(), "data (the last 3 bytes before its end)");
    }

    #[test]
    fn one_slow_answer_is_not_the_latency() {
        let of = |millis: &[u64]| {
            let mut times: Vec<_> = millis.iter().map(|&millis| Duration::from_millis(millis)).collect();
            median(&mut times).as_millis()
        };
        assert_eq!(of(&[1, 900, 2]), 2);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn a_file_is_no_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = local(file.path()).unwrap_err();
        assert!(failure.message().contains("no block device"));
    }
}
