//! What a node has to serve so that a device that was made of one export can go on with it: the kernel keeps size, block size
//! and flags as they were when the device was attached, and a new connection does not change them.

use nbd_proto::TransmissionFlags;

use super::dial::Dialled;
use crate::nbd::sysfs::Shape;

/// What the kernel does only where the server has said that it can, and what it has to be able to do ever after.
const LASTING: [(TransmissionFlags, &str); 5] = [
    (TransmissionFlags::SEND_FLUSH, "flush"),
    (TransmissionFlags::SEND_FUA, "write durably (FUA)"),
    (TransmissionFlags::SEND_TRIM, "discard"),
    (TransmissionFlags::SEND_WRITE_ZEROES, "write zeroes"),
    (TransmissionFlags::CAN_MULTI_CONN, "serve several connections"),
];

/// In what `dialled` is another export than the one the device has; `None`: it can go on with it.
pub(super) fn difference(shape: &Shape, dialled: &Dialled) -> Option<String> {
    let (has, needs) = (dialled.size, shape.size);
    if has < needs {
        return Some(format!("it has {has} bytes, the device has {needs}"));
    }
    if dialled.minimum_block > shape.block_size {
        return Some(format!(
            "it takes no blocks of less than {} bytes, those of the device have {}",
            dialled.minimum_block, shape.block_size
        ));
    }
    let cannot: Vec<_> = LASTING
        .iter()
        .filter(|(flag, _)| shape.flags.contains(*flag) && !dialled.flags.contains(*flag))
        .filter(|(flag, _)| *flag != TransmissionFlags::CAN_MULTI_CONN || shape.connections > 1)
        .map(|(_, what)| *what)
        .collect();
    if !cannot.is_empty() {
        return Some(format!("it cannot {}, as the device was promised", cannot.join(", ")));
    }
    None
}

/// Bytes of an export that a device with these blocks can have: what is behind the last whole block is left out.
pub(super) fn whole_blocks(size: u64, block_size: u32) -> u64 {
    size - size % u64::from(block_size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FLAGS: TransmissionFlags = TransmissionFlags::SEND_FLUSH
        .union(TransmissionFlags::SEND_FUA)
        .union(TransmissionFlags::SEND_TRIM);

    fn shape(connections: usize, flags: TransmissionFlags) -> Shape {
        Shape {
            size: 1 << 20,
            block_size: 512,
            connections,
            flags,
        }
    }

    fn dialled(size: u64, minimum_block: u32, flags: TransmissionFlags) -> Dialled {
        Dialled {
            sockets: Vec::new(),
            size,
            flags,
            minimum_block,
            uri: "nbd://bravo/db".parse().unwrap(),
        }
    }

    #[test]
    fn the_same_and_a_larger_one_fit() {
        for size in [1 << 20, 2 << 20] {
            assert_eq!(difference(&shape(1, FLAGS), &dialled(size, 1, FLAGS)), None);
        }
        let more = FLAGS | TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::CAN_MULTI_CONN;
        assert_eq!(difference(&shape(1, FLAGS), &dialled(1 << 20, 512, more)), None);
    }

    #[test]
    fn what_is_less_is_another_export() {
        let several = FLAGS | TransmissionFlags::CAN_MULTI_CONN;
        for (shape, dialled, word) in [
            (shape(1, FLAGS), dialled((1 << 20) - 512, 1, FLAGS), "bytes"),
            (shape(1, FLAGS), dialled(1 << 20, 4096, FLAGS), "4096"),
            (
                shape(1, FLAGS),
                dialled(1 << 20, 1, FLAGS - TransmissionFlags::SEND_FUA),
                "FUA",
            ),
            (shape(4, several), dialled(1 << 20, 1, FLAGS), "several connections"),
        ] {
            let why = difference(&shape, &dialled).unwrap();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn one_connection_asks_for_no_more() {
        let several = FLAGS | TransmissionFlags::CAN_MULTI_CONN;
        assert_eq!(difference(&shape(1, several), &dialled(1 << 20, 1, FLAGS)), None);
    }

    #[test]
    fn a_rest_is_left_out() {
        assert_eq!((whole_blocks(4096 + 511, 512), whole_blocks(8191, 4096)), (4096, 4096));
    }
}
