//! The one meaning of a driver token: kind in bits 56..64, index in 40..56, the owner's own value in 0..40.

const KIND_SHIFT: u32 = 56;
const INDEX_SHIFT: u32 = 40;
const INDEX_BITS: u32 = KIND_SHIFT - INDEX_SHIFT;
const VALUE_MASK: u64 = (1 << INDEX_SHIFT) - 1;

/// Largest number of connections, volumes or links a token can name.
pub(crate) const INDEX_MAX: usize = (1 << INDEX_BITS) - 1;

/// Whose operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Receive of a host connection; the index is the connection's slot.
    Receive = 1,
    /// Send of a host connection.
    Send = 2,
    /// I/O of a volume's image; the index is the volume.
    Image = 3,
    /// Write or sync of a volume's metadata file; the index is the volume.
    Metadata = 4,
    /// Receive of a connection to a peer; the index is the volume, the value the peer and the connection.
    LinkReceive = 5,
    /// Send of a connection to a peer.
    LinkSend = 6,
    /// Receive of a replication stream; the index is the resource, the value the peer and the connection.
    StreamReceive = 7,
    /// Send of a replication stream.
    StreamSend = 8,
    /// I/O of a branch file that is written or served; the index is the volume.
    Branch = 9,
}

/// A decoded token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) index: usize,
    pub(crate) value: u64,
}

impl Token {
    /// A token without a value of its own.
    pub(crate) const fn new(kind: Kind, index: usize) -> Self {
        Self { kind, index, value: 0 }
    }

    /// The token as the driver carries it.
    pub(crate) const fn encode(self) -> u64 {
        debug_assert!(self.index <= INDEX_MAX && self.value <= VALUE_MASK);
        (self.kind as u64) << KIND_SHIFT | (self.index as u64) << INDEX_SHIFT | self.value
    }

    /// `None`: no token of ours.
    pub(crate) const fn decode(token: u64) -> Option<Self> {
        let kind = match token >> KIND_SHIFT {
            1 => Kind::Receive,
            2 => Kind::Send,
            3 => Kind::Image,
            4 => Kind::Metadata,
            5 => Kind::LinkReceive,
            6 => Kind::LinkSend,
            7 => Kind::StreamReceive,
            8 => Kind::StreamSend,
            9 => Kind::Branch,
            _ => return None,
        };
        let index = (token >> INDEX_SHIFT) as usize & INDEX_MAX;
        Some(Self {
            kind,
            index,
            value: token & VALUE_MASK,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip_at_both_ends_of_its_fields() {
        for kind in [
            Kind::Receive,
            Kind::Send,
            Kind::Image,
            Kind::Metadata,
            Kind::LinkReceive,
            Kind::LinkSend,
            Kind::StreamReceive,
            Kind::StreamSend,
            Kind::Branch,
        ] {
            for index in [0, 1, INDEX_MAX] {
                for value in [0, 1, VALUE_MASK] {
                    let token = Token { kind, index, value };
                    assert_eq!(Token::decode(token.encode()), Some(token));
                }
            }
        }
    }

    #[test]
    fn foreign_tokens_are_refused() {
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
