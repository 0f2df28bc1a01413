//! HELLO: what the two nodes say before the first frame, as the data of the vendor option and of its reply.
//!
//! ```text
//!  magic "BMSTREAM" │ version min u16 │ version max u16 │ fields ... │ CRC-32 of all before
//!  field: tag u16 │ length u32 │ value
//! ```
//! Little-endian. A field that is not known is passed over, so that a newer release can add some; a field that is
//! missing has the value it had before there was one. What changes the meaning of frames is a new version, what both
//! may do or leave is a feature: both use what both have.

use alloc::string::String;
use alloc::vec::Vec;

use super::codec::NAME_BYTES_MAX;
use super::codec::wire::{Malformed, Reader, Sink};
use super::credit::Credit;
use super::frame::{VERSION, VERSION_MIN};
use super::intake::VOLUMES_MAX;

/// Longest HELLO, with room for what newer releases add.
pub const HELLO_BYTES_MAX: usize = 32 << 10;
/// Features this build has.
pub const FEATURES: u64 = FEATURE_XXH3;
/// Payloads are checked by XXH3 instead of CRC-32. (Bit 0 is reserved: docs/STREAM.md.)
pub const FEATURE_XXH3: u64 = 1 << 1;

const MAGIC: &[u8; 8] = b"BMSTREAM";
const CRC_BYTES: usize = 4;

/// Tags of fields.
mod tag {
    pub(super) const NODE: u16 = 1;
    pub(super) const INCARNATION: u16 = 2;
    pub(super) const SALT: u16 = 3;
    pub(super) const RESOURCE: u16 = 4;
    pub(super) const CREDIT: u16 = 5;
    pub(super) const FEATURES: u16 = 6;
    pub(super) const VOLUME: u16 = 7;
}

/// What one node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version it speaks.
    pub version_min: u16,
    /// Newest version it speaks.
    pub version_max: u16,
    /// Its name.
    pub node: String,
    /// Random, new at every start of the daemon.
    pub incarnation: u64,
    /// Random, new for every connection.
    pub salt: u64,
    /// The resource it wants to connect.
    pub resource: String,
    /// What the other may have in flight to it at first.
    pub credit: Credit,
    /// What it can do besides; bits that are not known are ignored.
    pub features: u64,
    /// Its volumes, by name; frames name them by their place in the HELLO of the node that dialled.
    pub volumes: Vec<HelloVolume>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloVolume {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Offsets and lengths of requests to it are multiples of this.
    pub minimum_block: u32,
}

/// What both came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the frames.
    pub version: u16,
    /// Features that both have.
    pub features: u64,
    /// Seed of the digests.
    pub digest_seed: u64,
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not a HELLO.
    #[error("the HELLO is malformed: {0}")]
    Malformed(&'static str),
    /// No version in common.
    #[error(
        "no common version of the stream: here {mine_min} to {mine_max}, there {theirs_min} to {theirs_max}; bring the \
         older node to a release in between first"
    )]
    Version {
        /// Oldest here.
        mine_min: u16,
        /// Newest here.
        mine_max: u16,
        /// Oldest there.
        theirs_min: u16,
        /// Newest there.
        theirs_max: u16,
    },
    /// Another resource.
    #[error("the other node has resource {theirs:?} where this one has {mine:?}: make the names equal")]
    Resource {
        /// Here.
        mine: String,
        /// There.
        theirs: String,
    },
    /// Two nodes of one name.
    #[error("both nodes are called {0:?}: every node needs a name of its own")]
    SameNode(String),
}

impl Hello {
    /// A HELLO of this build.
    pub fn new(node: String, incarnation: u64, salt: u64, resource: String, credit: Credit) -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION,
            node,
            incarnation,
            salt,
            resource,
            credit: credit.clamped(),
            features: FEATURES,
            volumes: Vec::new(),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.volumes.len() <= VOLUMES_MAX,
            "I8: a resource has at most {VOLUMES_MAX} volumes"
        );
        let mut bytes = Vec::new();
        bytes.put(MAGIC);
        bytes.u16(self.version_min);
        bytes.u16(self.version_max);
        field(&mut bytes, tag::NODE, |value| value.name(&self.node));
        field(&mut bytes, tag::INCARNATION, |value| value.u64(self.incarnation));
        field(&mut bytes, tag::SALT, |value| value.u64(self.salt));
        field(&mut bytes, tag::RESOURCE, |value| value.name(&self.resource));
        field(&mut bytes, tag::CREDIT, |value| {
            value.u64(self.credit.bytes);
            value.u32(self.credit.requests);
        });
        field(&mut bytes, tag::FEATURES, |value| value.u64(self.features));
        for volume in &self.volumes {
            field(&mut bytes, tag::VOLUME, |value| {
                value.name(&volume.name);
                value.u64(volume.size);
                value.u32(volume.minimum_block);
            });
        }
        let crc = crc32fast::hash(&bytes);
        bytes.u32(crc);
        bytes
    }

    /// Reads what [`encode`](Self::encode) of this or another release has made.
    ///
    /// # Errors
    /// It is no HELLO, it is damaged, or a field that must be there is not.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        if bytes.len() > HELLO_BYTES_MAX {
            return Err(HelloError::Malformed("it is longer than any HELLO"));
        }
        let Some((fields, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else {
            return Err(HelloError::Malformed("it is too short"));
        };
        let Some(fields) = fields.strip_prefix(MAGIC) else {
            return Err(HelloError::Malformed("it does not begin with its magic"));
        };
        let whole = bytes.get(..bytes.len() - CRC_BYTES).unwrap_or_default();
        if crc32fast::hash(whole) != u32::from_le_bytes(*crc) {
            return Err(HelloError::Malformed("its CRC is wrong: it was damaged on its way"));
        }
        Self::decode_fields(fields).map_err(|Malformed(what)| HelloError::Malformed(what))
    }

    fn decode_fields(fields: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(fields);
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        let mut hello = Self {
            version_min,
            version_max,
            ..Self::new(String::new(), 0, 0, String::new(), Credit::DEFAULT)
        };
        hello.features = 0;
        while !reader.is_empty() {
            let (tag, length) = (reader.u16()?, reader.u32()?);
            let value = reader.take(usize::try_from(length).unwrap_or(usize::MAX))?;
            hello.set(tag, &mut Reader::new(value))?;
        }
        let named = |name: &str| !name.is_empty() && !name.contains('\0');
        if !named(&hello.node) || !named(&hello.resource) {
            return Err(Malformed("it does not name its node and resource"));
        }
        if hello.version_min > hello.version_max {
            return Err(Malformed("its oldest version is newer than its newest"));
        }
        if !hello.volumes.is_sorted_by(|a, b| a.name < b.name) {
            return Err(Malformed("its volumes are not in the order of their names"));
        }
        Ok(hello)
    }

    /// One field; what a newer release has put behind its value is ignored.
    fn set(&mut self, tag: u16, value: &mut Reader<'_>) -> Result<(), Malformed> {
        match tag {
            tag::NODE => self.node = value.name()?,
            tag::INCARNATION => self.incarnation = value.u64()?,
            tag::SALT => self.salt = value.u64()?,
            tag::RESOURCE => self.resource = value.name()?,
            tag::CREDIT => {
                self.credit = Credit {
                    bytes: value.u64()?,
                    requests: value.u32()?,
                }
                .clamped();
            }
            tag::FEATURES => self.features = value.u64()?,
            tag::VOLUME if self.volumes.len() >= VOLUMES_MAX => {
                return Err(Malformed("it has more volumes than a resource may have"));
            }
            tag::VOLUME => self.volumes.push(HelloVolume {
                name: value.name()?,
                size: value.u64()?,
                minimum_block: value.u32()?,
            }),
            _ => {}
        }
        Ok(())
    }

    /// The place in this HELLO of a volume.
    pub fn volume(&self, name: &str) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.name == name)
    }
}

/// What two HELLOs come to; the same on both nodes.
///
/// # Errors
/// They do not fit; the text is for both operators.
pub fn agree(mine: &Hello, theirs: &Hello) -> Result<Agreed, HelloError> {
    let version = mine.version_max.min(theirs.version_max);
    if version < mine.version_min.max(theirs.version_min) {
        return Err(HelloError::Version {
            mine_min: mine.version_min,
            mine_max: mine.version_max,
            theirs_min: theirs.version_min,
            theirs_max: theirs.version_max,
        });
    }
    if mine.resource != theirs.resource {
        return Err(HelloError::Resource {
            mine: mine.resource.clone(),
            theirs: theirs.resource.clone(),
        });
    }
    if mine.node == theirs.node {
        return Err(HelloError::SameNode(mine.node.clone()));
    }
    Ok(Agreed {
        version,
        features: mine.features & theirs.features,
        digest_seed: mine.salt ^ theirs.salt,
    })
}

/// Decodes arbitrary bytes, as they are and with the CRC put right, and panics when the decoder does what it must not:
/// for fuzzing.
pub fn read_any(bytes: &[u8]) {
    let mut patched = bytes.to_vec();
    let crc = crc32fast::hash(bytes);
    patched.u32(crc);
    for bytes in [bytes, &patched] {
        if let Ok(hello) = Hello::decode(bytes) {
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello), "what was read is said again");
        }
    }
}

fn field(bytes: &mut Vec<u8>, tag: u16, value: impl FnOnce(&mut Vec<u8>)) {
    bytes.u16(tag);
    let length_at = bytes.len();
    bytes.u32(0);
    let start = bytes.len();
    value(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(length_at..start) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

const _: () = assert!(
    VOLUMES_MAX * (NAME_BYTES_MAX + 24) + 1024 <= HELLO_BYTES_MAX,
    "I8: the longest HELLO of this build is not too long"
);

#[cfg(test)]
mod tests;
