#![allow(clippy::unwrap_used, clippy::panic)]

mod golden;
mod hostile;
mod roundtrip;

use alloc::string::String;
use alloc::vec;

use super::*;
use crate::config::PEERS_MAX;
use crate::identity::{HISTORY_MAX, Meeting, NodeIdentity, Role, VolumeIdentity, WITHDRAWN_MAX};
use crate::state::LocalDisk;

/// One frame of the bytes, which must be exactly that.
fn only(bytes: &[u8]) -> (Frame, Payload) {
    match decode(bytes) {
        Ok(Progress::Frame {
            frame,
            payload,
            consumed,
        }) if consumed == bytes.len() => (frame, payload),
        other => panic!("{other:?} of {bytes:02x?}"),
    }
}

/// A payload of this length.
fn payload(length: u64) -> Payload {
    Payload {
        length: u32::try_from(length).unwrap(),
        check: if length == 0 { 0 } else { 0xd00d_f00d },
    }
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, payload(payload_bytes(frame)), &mut bytes);
    bytes
}

/// One node with one volume.
fn node() -> NodeIdentity {
    NodeIdentity {
        node: "a".into(),
        incarnation: 0xc1,
        revision: 3,
        role: Role::Primary,
        discard_my_data: true,
        primary_since: 0xc2,
        bits_tell: true,
        was_primary: false,
        answers_lost: true,
        volumes: [VolumeIdentity {
            name: "db".into(),
            size: 1 << 30,
            fresh: false,
            current: 0xa1,
            for_peer: 0xa2,
            for_others: [0xa3].into(),
            history: [0xa4, 0xa5].into(),
            withdrawn: [0xa6].into(),
            disk: LocalDisk::UpToDate,
            crashed_primary: true,
            dirty_bytes: 4096,
            sync: 5,
            acks_wait: true,
            met: Meeting { count: 7, token: 0xb1 },
            met_before: Meeting { count: 6, token: 0xb2 },
        }]
        .into(),
    }
}

/// As long as an identity can be.
fn longest_identity() -> NodeIdentity {
    let name: String = core::iter::repeat_n('n', NAME_BYTES_MAX).collect();
    let volume = VolumeIdentity {
        name: name.clone(),
        size: u64::MAX,
        fresh: true,
        current: 1,
        for_peer: 2,
        for_others: vec![3; PEERS_MAX],
        history: vec![4; HISTORY_MAX],
        withdrawn: vec![11; WITHDRAWN_MAX],
        disk: LocalDisk::Diskless,
        crashed_primary: true,
        dirty_bytes: 5,
        sync: 10,
        acks_wait: true,
        met: Meeting { count: 6, token: 7 },
        met_before: Meeting { count: 8, token: 9 },
    };
    NodeIdentity {
        node: name,
        incarnation: u64::MAX,
        revision: u32::MAX,
        primary_since: u64::MAX,
        volumes: vec![volume; crate::stream::intake::VOLUMES_MAX],
        ..node()
    }
}
