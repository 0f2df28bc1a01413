//! The branch files that are there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::format::{HEADER_BYTES, Header};
use super::replay::{BranchError, Replayed, read_header, replay};

/// How the name of a branch file ends.
pub(super) const EXTENSION: &str = "branch";

/// A branch file, as an operator is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchInfo {
    /// Its file name without the ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The volume, by its export's name.
    pub volume: String,
    /// The node that made it.
    pub node: String,
    /// The generation that was lost.
    pub generation: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes of the file without its header.
    pub saved_bytes: u64,
    /// Bytes of the volume.
    pub size: u64,
    /// Why it was made.
    pub reason: String,
}

/// The branches in these directories, the latest first; what cannot be read is left out. Blocks.
pub fn list(directories: &[PathBuf]) -> Vec<BranchInfo> {
    let mut all: Vec<BranchInfo> = directories
        .iter()
        .flat_map(|directory| headers(directory))
        .filter_map(|(path, header)| {
            Some(BranchInfo {
                name: path.file_stem()?.to_str()?.to_owned(),
                volume: header.volume,
                node: header.node,
                generation: header.generation,
                created: header.created,
                saved_bytes: fs::metadata(&path).ok()?.len().saturating_sub(HEADER_BYTES as u64),
                size: header.size,
                reason: header.reason,
                path,
            })
        })
        .collect();
    all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
    all.dedup_by(|a, b| a.path == b.path);
    all
}

/// Remove a branch file. Blocks.
///
/// # Errors
/// `WouldBlock`: it is being written. Or the operating system refuses.
pub fn remove(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::remove_file(path)
}

/// Read a branch file to serve it; it stays locked against removal for as long as the file is open. Blocks.
///
/// # Errors
/// It is being written, or cannot be read.
pub fn load(path: &Path) -> Result<(File, Replayed), BranchError> {
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(BranchError::InUse),
        Err(error) => return Err(BranchError::Io(error.into())),
    }
    let replayed = replay(BufReader::new(&file))?;
    Ok((file, replayed))
}

/// Every branch file of a directory.
pub(super) fn headers(directory: &Path) -> Vec<(PathBuf, Header)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = paths.filter(|path| path.extension() == Some(OsStr::new(EXTENSION)));
    ours.filter_map(|path| {
        // Opening a fifo would wait for whoever writes to it.
        let kind = fs::metadata(&path).ok()?.file_type();
        if !kind.is_file() {
            return None;
        }
        let (header, _) = read_header(&mut File::open(&path).ok()?).ok()?;
        Some((path, header))
    })
    .collect()
}
