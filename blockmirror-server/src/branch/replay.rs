//! Reading a branch file from its beginning.

use std::io::{self, ErrorKind, Read};

use super::format::{HEADER_BYTES, Header, HeaderFault, Kind, RECORD_BYTES, Record, tag};
use super::index::{Index, Source};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 16;

/// What a branch file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// What it says of itself.
    pub header: Header,
    /// What it has of the volume.
    pub index: Index,
    /// The byte after its last whole record.
    pub end: u64,
    /// Number of the next record.
    pub sequence: u64,
    /// Everything was saved: the last record says so.
    pub finished: bool,
    pub(super) tag: u32,
}

/// Why a branch file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// It is something else.
    #[error("it is not a branch file")]
    Foreign,
    /// It is of a later release.
    #[error("it has version {0}, which this release does not know: use the release that wrote it")]
    TooNew(u32),
    /// Its header is not what was written.
    #[error("its header is damaged: nothing can be said about the rest")]
    Damaged,
    /// It is being written.
    #[error("it is being written: wait until the resync that overwrites the volume has ended")]
    InUse,
    /// The operating system refuses.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Read all of it. What comes after a record that is not whole counts for nothing.
///
/// # Errors
/// The header is not one that can be used, or reading fails.
pub fn replay(mut from: impl Read) -> Result<Replayed, BranchError> {
    let (header, tag) = read_header(&mut from)?;
    let mut replayed = Replayed {
        header,
        index: Index::default(),
        end: HEADER_BYTES as u64,
        sequence: 0,
        finished: false,
        tag,
    };
    let mut bytes = [0; RECORD_BYTES];
    let mut scratch = vec![0; READ_BYTES];
    while !replayed.finished && filled(&mut from, &mut bytes)? {
        let Some(record) = Record::decode(&bytes, tag, replayed.header.size) else {
            break;
        };
        if record.sequence != replayed.sequence || !data_is_whole(&mut from, &record, &mut scratch)? {
            break;
        }
        replayed.take(&record);
    }
    Ok(replayed)
}

/// The header, and what ties records to it.
pub(super) fn read_header(from: &mut impl Read) -> Result<(Header, u32), BranchError> {
    let mut bytes = [0; HEADER_BYTES];
    if !filled(from, &mut bytes)? {
        return Err(BranchError::Foreign);
    }
    let header = Header::decode(&bytes).map_err(|fault| match fault {
        HeaderFault::Foreign => BranchError::Foreign,
        HeaderFault::TooNew(version) => BranchError::TooNew(version),
        HeaderFault::Damaged => BranchError::Damaged,
    })?;
    Ok((header, tag(&bytes)))
}

impl Replayed {
    fn take(&mut self, record: &Record) {
        let range = record.offset..record.offset + record.length;
        let data = self.end + RECORD_BYTES as u64;
        match record.kind {
            Kind::Data => self.index.insert(range, Source::File(data)),
            Kind::Hole => self.index.insert(range, Source::Zero),
            Kind::Lost => self.index.insert(range, Source::Lost),
            Kind::End => self.finished = true,
        }
        self.end = data + record.data_bytes();
        self.sequence += 1;
    }
}

fn data_is_whole(from: &mut impl Read, record: &Record, scratch: &mut [u8]) -> io::Result<bool> {
    let mut left = record.data_bytes();
    let mut crc = crc32fast::Hasher::new();
    while left > 0 {
        let part = left.min(scratch.len() as u64) as usize;
        if !filled(from, &mut scratch[..part])? {
            return Ok(false);
        }
        crc.update(&scratch[..part]);
        left -= part as u64;
    }
    Ok(crc.finalize() == record.crc || record.data_bytes() == 0)
}

/// False: the end came first.
fn filled(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
