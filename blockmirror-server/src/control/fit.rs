//! Whether a peer's export can hold the remote leg of a volume.

use nbd_proto::TransmissionFlags;
use nbd_proto::client::Negotiated;

/// Largest minimum block size that fits: a block of the dirty bitmap is the unit of resync.
const BLOCK: u32 = 4096;

/// The volume a peer's export has to fit.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    /// Its export, for messages.
    pub(super) export: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Smallest block hosts may address.
    pub(super) minimum_block: u32,
}

/// Nothing, or what is wrong with the peer's export, with the remedy.
pub(super) fn check(leg: &Leg, peer: &Negotiated) -> Result<(), String> {
    let Leg {
        export,
        size,
        minimum_block,
    } = leg;
    if peer.size < *size {
        return Err(format!(
            "the peer's export is too small: it has {} bytes, volume \"{export}\" has {size}; make it larger, the \
             volume goes on without it",
            peer.size
        ));
    }
    if peer.flags.contains(TransmissionFlags::READ_ONLY) {
        return Err("the peer's export is read-only; make it writable there".to_owned());
    }
    if !peer.flags.contains(TransmissionFlags::SEND_FLUSH) {
        return Err(
            "the peer's export has no flush: it could never promise that data is durable; use another server or \
             export there"
                .to_owned(),
        );
    }
    let needed = peer.block_sizes.map_or(1, |sizes| sizes.minimum);
    if needed > BLOCK {
        return Err(format!(
            "the peer's minimum block size is {needed} bytes, at most {BLOCK} fit; change it there"
        ));
    }
    if needed > *minimum_block {
        return Err(format!(
            "the peer's minimum block size is {needed} bytes, but hosts may write blocks of {minimum_block} to \
             \"{export}\"; set minimum_block = {needed} for that volume"
        ));
    }
    if !size.is_multiple_of(u64::from(needed.max(1))) {
        return Err(format!(
            "volume \"{export}\" has {size} bytes, not a multiple of the peer's minimum block size of {needed}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nbd_proto::{BlockSizes, ReplyStyle};

    fn leg(size: u64, minimum_block: u32) -> Leg {
        Leg {
            export: "db".to_owned(),
            size,
            minimum_block,
        }
    }

    fn peer(size: u64, minimum: u32) -> Negotiated {
        Negotiated {
            size,
            flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH,
            block_sizes: Some(BlockSizes {
                minimum,
                preferred: 4096.max(minimum),
                maximum_payload: 1 << 20,
            }),
            replies: ReplyStyle::Structured,
            contexts: Vec::new(),
            name: None,
            description: None,
        }
    }

    fn refusal(leg: &Leg, peer: &Negotiated) -> String {
        check(leg, peer).err().unwrap_or_default()
    }

    #[test]
    fn what_fits() {
        assert_eq!(check(&leg(8192, 1), &peer(8192, 1)), Ok(()));
        assert_eq!(check(&leg(8192, 1), &peer(1 << 30, 1)), Ok(()), "larger");
        assert_eq!(check(&leg(8192, 4096), &peer(8192, 512)), Ok(()));
        let untold = Negotiated {
            block_sizes: None,
            ..peer(8192, 1)
        };
        assert_eq!(check(&leg(8192, 1), &untold), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_numbers() {
        let small = refusal(&leg(8192, 1), &peer(4096, 1));
        assert!(small.contains("4096") && small.contains("8192"), "{small}");
        let blocks = refusal(&leg(8192, 1), &peer(8192, 512));
        assert!(blocks.contains("minimum_block = 512"), "{blocks}");
        let large = refusal(&leg(1 << 20, 4096), &peer(1 << 20, 65_536));
        assert!(large.contains("65536") && large.contains("4096"), "{large}");
        let ragged = refusal(&leg(4608, 4096), &peer(8192, 4096));
        assert!(ragged.contains("multiple"), "{ragged}");
        let mut read_only = peer(8192, 1);
        read_only.flags |= TransmissionFlags::READ_ONLY;
        assert!(refusal(&leg(8192, 1), &read_only).contains("read-only"));
        let mut no_flush = peer(8192, 1);
        no_flush.flags = TransmissionFlags::HAS_FLAGS;
        assert!(refusal(&leg(8192, 1), &no_flush).contains("flush"));
    }
}
