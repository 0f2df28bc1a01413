//! A branch file that is being written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Error, ErrorKind, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::date::stamp;
use super::format::{BLOCK, HEADER_BYTES, Header, Kind, RECORD_BYTES, Record, in_blocks, tag};
use super::index::{Index, Source};
use super::list::{EXTENSION, headers};
use super::replay::{BranchError, replay};
use crate::file_lock::{LOCK_PATIENCE, lock};
use crate::wall_clock::seconds_since_1970;

/// Bytes of a volume's name in a file name.
const NAME_MAX: usize = 128;
/// Files of one volume, generation and second.
const SAME_NAME_MAX: u32 = 16;

/// Where branches of a volume are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchPlace {
    /// The directory.
    pub directory: PathBuf,
    /// This node.
    pub node: String,
}

/// A branch file that is being written; locked for as long as it lives.
#[derive(Debug)]
pub struct BranchFile {
    path: PathBuf,
    file: File,
    header: Header,
    tag: u32,
    index: Index,
    /// Where the next record goes.
    end: u64,
    sequence: u64,
}

/// What is saved of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Saved<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// It reads as zeroes.
    Hole,
    /// It cannot be read.
    Lost,
}

impl BranchFile {
    /// Make a branch file, durably. Blocks.
    ///
    /// # Errors
    /// The operating system refuses, or the volume's name is too long.
    pub fn create(place: &BranchPlace, volume: &str, generation: u64, size: u64, reason: &str) -> io::Result<Self> {
        let header = Header {
            volume: volume.to_owned(),
            generation,
            size,
            created: seconds_since_1970(),
            node: place.node.clone(),
            reason: reason.to_owned(),
        };
        let too_long = || Error::new(ErrorKind::InvalidInput, "the volume's name is too long");
        let bytes = header.encode().ok_or_else(too_long)?;
        let (path, file) = new_file(&place.directory, &header)?;
        let made = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::from)
            .and_then(|()| file.write_all_at(&bytes, 0))
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(&place.directory)?.sync_all());
        if let Err(error) = made {
            // The error is what matters; what is left behind has no record.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            path,
            file,
            header,
            tag: tag(&bytes),
            index: Index::default(),
            end: HEADER_BYTES as u64,
            sequence: 0,
        })
    }

    /// The latest branch of the volume in the directory, if it was not finished: go on with it. What a crash has left
    /// behind its last whole record is cut off. Those of `others`, nodes that share the directory, are none of ours.
    /// Blocks, and reads all of it.
    ///
    /// # Errors
    /// There is one that cannot be read or is in use.
    pub fn resume(directory: &Path, volume: &str, others: &[String]) -> Result<Option<Self>, BranchError> {
        let found = headers(directory).into_iter();
        let latest = found
            .filter(|(_, header)| header.volume == volume && !others.contains(&header.node))
            .max_by_key(|(_, header)| header.created);
        let Some((path, _)) = latest else { return Ok(None) };
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let waits = || tracing::info!(branch = %path.display(), "waiting for another process to let go of it");
        lock(&file, false, LOCK_PATIENCE, waits).map_err(|error| match error {
            Errno::WOULDBLOCK => BranchError::InUse,
            error => BranchError::Io(error.into()),
        })?;
        file.seek(SeekFrom::Start(0))?;
        let replayed = replay(BufReader::new(&file))?;
        if replayed.finished {
            return Ok(None);
        }
        file.set_len(replayed.end)?;
        file.sync_all()?;
        Ok(Some(Self {
            path,
            file,
            header: replayed.header,
            tag: replayed.tag,
            index: replayed.index,
            end: replayed.end,
            sequence: replayed.sequence,
        }))
    }

    /// Nothing came of it: remove it.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(branch = %self.path.display(), %error, "an empty branch cannot be removed");
        }
    }

    /// Another handle of the file, for writing.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it has, durably.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The blocks under the range that it does not have. Behind the size the volume had then there is nothing to save.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let blocks = in_blocks(range, self.header.size);
        if blocks.is_empty() {
            return Vec::new();
        }
        self.index.missing(blocks)
    }

    /// The range, cut at the end of a block.
    pub(crate) fn cut(range: &Range<u64>, longest: u64) -> Range<u64> {
        let end = range.start.saturating_add(longest.max(BLOCK));
        let end = end - end % BLOCK;
        range.start..range.end.min(end)
    }

    /// Bytes of the next record, and where they go. It counts once it was [`kept`](Self::keep).
    pub(crate) fn record(&mut self, range: &Range<u64>, saved: Saved<'_>) -> (u64, Vec<u8>, Source) {
        let (kind, data) = match saved {
            Saved::Data(data) => (Kind::Data, data),
            Saved::Hole => (Kind::Hole, &[][..]),
            Saved::Lost => (Kind::Lost, &[][..]),
        };
        let at = self.end;
        let bytes = self.encode(kind, range, data);
        let source = match kind {
            Kind::Data => Source::File(at + RECORD_BYTES as u64),
            Kind::Hole | Kind::End => Source::Zero,
            Kind::Lost => Source::Lost,
        };
        (at, bytes, source)
    }

    /// Bytes of the last record, and where they go.
    pub(crate) fn last_record(&mut self) -> (u64, Vec<u8>) {
        let at = self.end;
        (at, self.encode(Kind::End, &(0..0), &[]))
    }

    /// A record is durable.
    pub(crate) fn keep(&mut self, range: Range<u64>, source: Source) {
        self.index.insert(range, source);
    }

    fn encode(&mut self, kind: Kind, range: &Range<u64>, data: &[u8]) -> Vec<u8> {
        let record = Record {
            kind,
            sequence: self.sequence,
            offset: range.start,
            length: range.end - range.start,
            crc: crc32fast::hash(data),
        };
        let mut bytes = Vec::with_capacity(RECORD_BYTES + data.len());
        bytes.extend_from_slice(&record.encode(self.tag));
        bytes.extend_from_slice(data);
        self.sequence += 1;
        self.end += bytes.len() as u64;
        bytes
    }
}

impl Drop for BranchFile {
    /// The kernel may hold another handle for a while after its last operation: the lock does not wait for that.
    fn drop(&mut self) {
        // Where unlocking fails the last handle unlocks.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn new_file(directory: &Path, header: &Header) -> io::Result<(PathBuf, File)> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let volume: String = header.volume.chars().map(plain).take(NAME_MAX).collect();
    let stem = format!("{volume}-{:016x}-{}", header.generation, stamp(header.created));
    let mut number = 1;
    loop {
        let name = match number {
            1 => format!("{stem}.{EXTENSION}"),
            _ => format!("{stem}-{number}.{EXTENSION}"),
        };
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < SAME_NAME_MAX => number += 1,
            opened => return Ok((path, opened?)),
        }
    }
}
