//! Header and records of a branch file, byte by byte; little-endian. See `docs/BRANCHES.md`.
//!
//! ```text
//!  header:  magic "BMBRANCH" │ version u32 │ generation u64 │ size u64 │ created u64
//!           │ volume, node, reason: length u16, bytes, each │ zeroes │ CRC-32 of all before
//!  record:  magic "REC1" │ kind u32 │ sequence u64 │ offset u64 │ length u64 │ CRC-32 of the data │ header's tag
//!           │ CRC-32 of all before
//! ```

use std::ops::Range;

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 4096;
/// Bytes of a record before its data.
pub(super) const RECORD_BYTES: usize = 44;
/// Unit that is saved.
pub(super) const BLOCK: u64 = 4096;
/// Most bytes of data of one record.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"BMBRANCH";
const VERSION: u32 = 1;
const RECORD_MAGIC: &[u8; 4] = b"REC1";
const CRC_BYTES: usize = 4;

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The volume, by its export's name.
    pub volume: String,
    /// The generation that was lost.
    pub generation: u64,
    /// Bytes of the volume.
    pub size: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// The node.
    pub node: String,
    /// Why it was made.
    pub reason: String,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Foreign,
    TooNew(u32),
    Damaged,
}

/// What a record says of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its bytes follow.
    Data,
    /// It reads as zeroes.
    Hole,
    /// It could not be read.
    Lost,
    /// Everything was saved.
    End,
}

/// A record without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) crc: u32,
}

impl Header {
    /// `None`: the names are too long.
    pub(super) fn encode(&self) -> Option<[u8; HEADER_BYTES]> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.generation, self.size, self.created] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for text in [&self.volume, &self.node, &self.reason] {
            bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        if bytes.len() > HEADER_BYTES - CRC_BYTES {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        header[..bytes.len()].copy_from_slice(&bytes);
        let crc = crc32fast::hash(&header[..HEADER_BYTES - CRC_BYTES]);
        header[HEADER_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_le_bytes());
        Some(header)
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderFault> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(HeaderFault::Foreign)?;
        let mut fields = Fields(rest);
        let version = fields.u32().ok_or(HeaderFault::Damaged)?;
        if version > VERSION {
            return Err(HeaderFault::TooNew(version));
        }
        if tag(bytes) != crc32fast::hash(&bytes[..HEADER_BYTES - CRC_BYTES]) {
            return Err(HeaderFault::Damaged);
        }
        fields.header().ok_or(HeaderFault::Damaged)
    }
}

/// What ties records to this header: its CRC.
pub(super) fn tag(header: &[u8; HEADER_BYTES]) -> u32 {
    let mut crc = [0; CRC_BYTES];
    crc.copy_from_slice(&header[HEADER_BYTES - CRC_BYTES..]);
    u32::from_le_bytes(crc)
}

/// Bytes being read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<String> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn header(&mut self) -> Option<Header> {
        let (generation, size, created) = (self.u64()?, self.u64()?, self.u64()?);
        Some(Header {
            generation,
            size,
            created,
            volume: self.text()?,
            node: self.text()?,
            reason: self.text()?,
        })
    }
}

impl Record {
    pub(super) fn encode(&self, tag: u32) -> [u8; RECORD_BYTES] {
        let kind: u32 = match self.kind {
            Kind::Data => 1,
            Kind::Hole => 2,
            Kind::Lost => 3,
            Kind::End => 4,
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.crc.to_le_bytes());
        bytes[36..40].copy_from_slice(&tag.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..RECORD_BYTES - CRC_BYTES]);
        bytes[RECORD_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None`: torn, damaged, of another file, or not of a volume of `size` bytes.
    pub(super) fn decode(bytes: &[u8; RECORD_BYTES], tag: u32, size: u64) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(fields.strip_prefix(RECORD_MAGIC)?);
        let kind = match fields.u32()? {
            1 => Kind::Data,
            2 => Kind::Hole,
            3 => Kind::Lost,
            4 => Kind::End,
            _ => return None,
        };
        let record = Self {
            kind,
            sequence: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u64()?,
            crc: fields.u32()?,
        };
        let within = record.offset.checked_add(record.length).is_some_and(|end| end <= size);
        let bounded = kind != Kind::Data || record.length <= PIECE_BYTES;
        (fields.u32()? == tag && within && bounded).then_some(record)
    }

    /// Bytes of data behind it in the file.
    pub(super) fn data_bytes(&self) -> u64 {
        match self.kind {
            Kind::Data => self.length,
            Kind::Hole | Kind::Lost | Kind::End => 0,
        }
    }
}

/// The blocks under the range, cut at the end of the volume.
pub(super) fn in_blocks(range: &Range<u64>, size: u64) -> Range<u64> {
    let start = (range.start / BLOCK * BLOCK).min(size);
    let end = range.end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX).min(size);
    start..end.max(start)
}
