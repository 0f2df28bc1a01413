//! Every frame, byte for byte, as docs/STREAM.md has it; the bytes were made by another program than this one.

use alloc::format;
use alloc::string::String;

use super::*;
use crate::event::{Failure, VolumeMessage};
use crate::identity::Role;
use crate::range::ByteRange;
use crate::state::LocalDisk;

fn req(sequence: Sequence, volume: u16, request: Request) -> Frame {
    Frame::Request {
        sequence,
        volume,
        request,
    }
}

fn message(message: VolumeMessage) -> Frame {
    req(1, 0, Request::Message(message))
}

fn range(offset: u64, length: u64) -> ByteRange {
    ByteRange::new(offset, length)
}

/// Payload, where there is one: 512 times an x, checked as the first release did.
fn check(frame: &Frame, golden: &str) {
    let carried = match payload_bytes(frame) {
        0 => Payload::NONE,
        length => Payload::of(Checksum::Crc32, &[b'x'; 512][..usize::try_from(length).unwrap()]),
    };
    let mut bytes = Vec::new();
    encode(frame, carried, &mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden: String = golden.split_whitespace().collect();
    assert_eq!(hex, golden, "{frame:?}");
    assert_eq!(only(&bytes), (frame.clone(), carried));
}

#[test]
fn golden_host_requests() {
    check(
        &req(
            1,
            2,
            Request::Write {
                range: range(0x1000, 512),
                fua: true,
            },
        ),
        "0c000000010102000100000000000000000200005d6d0b3bfd4f62ad \
         001000000000000000020000",
    );
    check(
        &req(
            2,
            2,
            Request::Zero {
                range: range(0x1000, 512),
                no_hole: true,
                fua: false,
            },
        ),
        "0c000000020202000200000000000000000000000000000054ab94d1 \
         001000000000000000020000",
    );
    check(
        &req(
            3,
            0,
            Request::Trim {
                range: range(0, 4096),
                fua: true,
            },
        ),
        "0c0000000301000003000000000000000000000000000000551f46fb \
         000000000000000000100000",
    );
    check(
        &req(4, 1, Request::Flush),
        "0000000004000100040000000000000000000000000000001fdb4fd6",
    );
    check(
        &req(5, 0, Request::Barrier),
        "00000000050000000500000000000000000000000000000029c712f2",
    );
}

#[test]
fn golden_resync_requests() {
    check(
        &req(
            6,
            0,
            Request::Compare {
                range: range(4096, 5000),
                digests: [0x11, 0x22].into(),
            },
        ),
        "20000000060000000600000000000000000000000000000091f078ca \
         0010000000000000881300000200000011000000000000002200000000000000",
    );
    check(
        &req(
            7,
            0,
            Request::Fetch {
                range: range(4096, 4096),
                digests: [0x11].into(),
            },
        ),
        "180000000700000007000000000000000000000000000000d62ccbeb \
         001000000000000000100000010000001100000000000000",
    );
    check(
        &req(
            8,
            0,
            Request::CopyWrite {
                range: range(4096, 512),
            },
        ),
        "0c000000080000000800000000000000000200005d6d0b3b374590c5 \
         001000000000000000020000",
    );
    check(
        &req(
            9,
            0,
            Request::CopyZero {
                range: range(4096, 4096),
            },
        ),
        "0c0000000900000009000000000000000000000000000000dc18428e \
         001000000000000000100000",
    );
    check(
        &req(10, 0, Request::Read { range: range(0, 1) }),
        "0c0000000a0000000a0000000000000000000000000000009a17ef4f \
         000000000000000001000000",
    );
}

#[test]
fn golden_messages() {
    check(
        &message(VolumeMessage::Generation {
            current: 2,
            earlier: [1, 7].into(),
            in_step: ["c".into()].into(),
        }),
        "240000000b0000000100000000000000000000000000000065367b73 \
         0102000000000000000200000001000000000000000700000000000000010000 \
         00010063",
    );
    check(
        &message(VolumeMessage::GenerationDone { current: 2 }),
        "090000000b000000010000000000000000000000000000009c3ae7e2 \
         020200000000000000",
    );
    check(
        &message(VolumeMessage::SyncBegin),
        "010000000b00000001000000000000000000000000000000ed8f070c \
         03",
    );
    check(
        &message(VolumeMessage::SyncBeginDone),
        "010000000b000000010000000000000000000000000000004e1a6392 \
         04",
    );
    check(
        &message(VolumeMessage::SyncEnd {
            current: 2,
            history: [1].into(),
        }),
        "150000000b00000001000000000000000000000000000000bc3632e1 \
         050200000000000000010000000100000000000000",
    );
    check(
        &message(VolumeMessage::SyncEndDone { current: 2 }),
        "090000000b00000001000000000000000000000000000000906b0bbf \
         060200000000000000",
    );
    check(
        &message(VolumeMessage::InStep { current: 2 }),
        "090000000b00000001000000000000000000000000000000d37f70a8 \
         070200000000000000",
    );
    check(
        &message(VolumeMessage::AlsoInStep {
            node: "carl".into(),
            current: 2,
        }),
        "0f0000000b0000000100000000000000000000000000000051be90d1 \
         09020000000000000004006361726c",
    );
    check(
        &message(VolumeMessage::Leg {
            disk: LocalDisk::Outdated,
        }),
        "020000000b00000001000000000000000000000000000000d82318f3 \
         0802",
    );
}

#[test]
fn golden_answers() {
    check(
        &Frame::Answer(Answer::Done([3, 1].into_iter().collect())),
        "1400000020000000000000000000000000000000000000002ac887f9 \
         0200000003000000000000000100000000000000",
    );
    check(
        &Frame::Answer(Answer::Failed {
            sequence: 9,
            failure: Failure::NoSpace,
        }),
        "01000000210000000900000000000000000000000000000036ddeecb \
         02",
    );
    check(
        &Frame::Answer(Answer::Differs {
            sequence: 9,
            ranges: [range(0, 4096)].into(),
        }),
        "100000002200000009000000000000000000000000000000c250e855 \
         01000000000000000000000000100000",
    );
    check(
        &Frame::Answer(Answer::Contents {
            sequence: 9,
            ranges: [range(0, 4608)].into(),
            holes: [range(512, 4096)].into(),
        }),
        "20000000230000000900000000000000000200005d6d0b3baeae4b3e \
         0100000000000000000000000012000001000000000200000000000000100000",
    );
}

#[test]
fn golden_handshake_frames() {
    check(
        &Frame::Control(Control::Identity(node())),
        "980000004000000000000000000000000000000000000000d091b6f4 \
         010061c100000000000000030000000101c20000000000000005010000000200 \
         646200000040000000000603a100000000000000a20000000000000001000000 \
         a30000000000000002000000a400000000000000a50000000000000001000000 \
         a600000000000000001000000000000005000000000000000700000000000000 \
         b1000000000000000600000000000000b200000000000000",
    );
    check(
        &Frame::Control(Control::Verdict {
            my_revision: 1,
            your_revision: 2,
            verdicts: [1, 9].into(),
            text: "so".into(),
        }),
        "1200000041000000000000000000000000000000000000004ff918e7 \
         01000000020000000200000001090200736f",
    );
    check(
        &Frame::Control(Control::Bitmap {
            volume: 1,
            blocks: [4..5, 7..9].into(),
            last: true,
        }),
        "250000004200010000000000000000000000000000000000f8b22cb1 \
         0102000000040000000000000005000000000000000700000000000000090000 \
         0000000000",
    );
    check(
        &Frame::Control(Control::State {
            role: Role::Secondary,
            disks: [LocalDisk::Diskless, LocalDisk::UpToDate].into(),
        }),
        "070000004300000000000000000000000000000000000000c951d713 \
         02020000000003",
    );
}

#[test]
fn golden_role_frames() {
    check(
        &Frame::Control(Control::AskDemote),
        "0000000044000000000000000000000000000000000000006f81d4d8",
    );
    check(
        &Frame::Control(Control::Demoted),
        "00000000450000000000000000000000000000000000000029bab3bd",
    );
    check(
        &Frame::Control(Control::DemoteRefused("no".into())),
        "04000000460000000000000000000000000000000000000013d93c9c \
         02006e6f",
    );
    check(
        &Frame::Control(Control::Promoting),
        "000000004700000000000000000000000000000000000000a5cc7d77",
    );
    check(
        &Frame::Control(Control::PromoteGranted),
        "00000000480000000000000000000000000000000000000084bce20b",
    );
    check(
        &Frame::Control(Control::PromoteRefused("no".into())),
        "040000004900000000000000000000000000000000000000dad2297f \
         02006e6f",
    );
}

#[test]
fn golden_growth_frames() {
    check(
        &Frame::Control(Control::Grow { volume: 1, size: 8192 }),
        "080000004a0001000000000000000000000000000000000060ab05b1 \
         0020000000000000",
    );
    check(
        &Frame::Control(Control::Grown { volume: 1, size: 8192 }),
        "080000004b000100000000000000000000000000000000007d56b0b0 \
         0020000000000000",
    );
    check(
        &Frame::Control(Control::GrowRefused {
            volume: 1,
            why: "no".into(),
        }),
        "040000004c00010000000000000000000000000000000000624d2280 \
         02006e6f",
    );
    check(
        &Frame::Control(Control::Resize {
            volume: 1,
            size: 8192,
            assume_clean: true,
        }),
        "090000004d00010000000000000000000000000000000000a622922c \
         002000000000000001",
    );
    check(
        &Frame::Control(Control::Resized { volume: 1, size: 8192 }),
        "080000004e00010000000000000000000000000000000000145fd2b7 \
         0020000000000000",
    );
}

#[test]
fn golden_life_frames() {
    check(
        &Frame::Control(Control::Heartbeat {
            sent_us: 1,
            lag_us: 2,
            bytes: 3,
            flushes: 4,
            head: 5,
        }),
        "280000004f000000000000000000000000000000000000004508edf6 \
         0100000000000000020000000000000003000000000000000400000000000000 \
         0500000000000000",
    );
    check(
        &Frame::Control(Control::HeartbeatAck { sent_us: 1 }),
        "080000005000000000000000000000000000000000000000f7f79440 \
         0100000000000000",
    );
    check(
        &Frame::Control(Control::Credit {
            bytes: 4096,
            requests: 2,
        }),
        "0c0000005100000000000000000000000000000000000000cb875fbf \
         001000000000000002000000",
    );
    check(
        &Frame::Control(Control::Meet { salt: 7 }),
        "0800000052000000000000000000000000000000000000004a049085 \
         0700000000000000",
    );
    check(
        &Frame::Control(Control::Met { salt: 7 }),
        "08000000530000000000000000000000000000000000000057f92584 \
         0700000000000000",
    );
    check(
        &Frame::Control(Control::Goodbye {
            stand_alone: true,
            reason: "so".into(),
        }),
        "050000005400000000000000000000000000000000000000783fcc69 \
         010200736f",
    );
    check(
        &Frame::Control(Control::Again { reason: "so".into() }),
        "0400000055000000000000000000000000000000000000001a632544 \
         0200736f",
    );
}
