//! Whatever can be said is understood.

use alloc::string::String;
use alloc::vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::PEERS_MAX;
use crate::event::{Failure, VolumeMessage};
use crate::identity::{EARLIER_MAX, HISTORY_MAX, Meeting, NodeIdentity, Role, VolumeIdentity, WITHDRAWN_MAX};
use crate::range::ByteRange;
use crate::state::LocalDisk;
use crate::stream::credit::Credit;

proptest! {
    #[test]
    fn every_frame_survives_the_wire(frames in vec(any_frame(), 1..5)) {
        let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
        let mut rest = &bytes[..];
        for frame in &frames {
            let Progress::Frame { frame: got, payload: carried, consumed } = decode(rest).unwrap() else {
                panic!("incomplete");
            };
            prop_assert_eq!(&got, frame);
            prop_assert_eq!(carried, payload(payload_bytes(frame)));
            for shorter in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, consumed - 1].into_iter().filter(|s| *s < consumed) {
                let total = (shorter >= HEADER_BYTES).then_some(consumed);
                prop_assert_eq!(decode(&rest[..shorter]), Ok(Progress::NeedMore { total }));
            }
            rest = &rest[consumed..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_small_request_is_the_same_bytes(sequence: u64, volume: u16, request in any_request()) {
        let carried = payload(request.payload_bytes());
        let mut long = Vec::new();
        encode_request(sequence, volume, &request, carried, &mut long);
        let small = small_request(sequence, volume, &request, carried);
        prop_assert_eq!(small.is_some(), long.len() <= SMALL_BYTES);
        if let Some(small) = small {
            prop_assert_eq!(small.as_slice(), &long[..]);
        }
    }

    #[test]
    fn done_is_split_where_it_is_too_long(count in 0..3 * DONE_MAX) {
        let done: Vec<u64> = (0..count as u64).collect();
        let mut bytes = Vec::new();
        encode_done(&done, &mut bytes);
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        while let Progress::Frame { frame: Frame::Answer(Answer::Done(batch)), consumed, .. } = decode(rest).unwrap() {
            prop_assert!((1..=DONE_MAX).contains(&batch.len()));
            got.extend(batch);
            rest = &rest[consumed..];
        }
        prop_assert_eq!(got, done);
    }

    #[test]
    fn a_payload_is_known_by_its_checksum(
        bytes in vec(any::<u8>(), 1..5000),
        cut: prop::sample::Index,
        flip: prop::sample::Index,
        xxh3: bool,
    ) {
        let checksum = if xxh3 { Checksum::Xxh3 } else { Checksum::Crc32 };
        let whole = Payload::of(checksum, &bytes);
        let (a, b) = bytes.split_at(cut.index(bytes.len()));
        let mut pieces = PayloadHasher::new(checksum);
        pieces.update(a);
        pieces.update(b);
        prop_assert_eq!(pieces.finish(), whole);
        prop_assert!(whole.matches(checksum, &bytes));
        let mut damaged = bytes.clone();
        damaged[flip.index(bytes.len())] ^= 0x10;
        prop_assert!(!whole.matches(checksum, &damaged));
        prop_assert!(!whole.matches(checksum, &bytes[1..]));
    }
}

#[test]
fn requests_of_a_host_are_small() {
    let range = ByteRange::new(u64::MAX - (64 << 20), 64 << 20);
    let (no_hole, fua) = (true, true);
    for request in [
        Request::Write { range, fua },
        Request::Zero { range, no_hole, fua },
        Request::Trim { range, fua },
        Request::Flush,
        Request::Barrier,
        Request::CopyWrite { range },
        Request::CopyZero { range },
        Request::Read { range },
    ] {
        assert!(small_request(u64::MAX, u16::MAX, &request, payload(request.payload_bytes())).is_some());
    }
}

#[test]
fn the_longest_frames_fit() {
    let range = ByteRange::new(0, RANGE_BYTES_MAX);
    let digests = vec![u64::MAX; DIGESTS_MAX];
    let other = |block: usize| ByteRange::new(2 * block as u64 * BLOCK_BYTES, BLOCK_BYTES);
    let ranges: Vec<ByteRange> = (0..RANGES_MAX).map(other).collect();
    let answer = Answer::Contents {
        sequence: 1,
        holes: ranges.clone(),
        ranges,
    };
    let identity = longest_identity();
    for frame in [
        Frame::Request {
            sequence: 1,
            volume: 0,
            request: Request::Fetch { range, digests },
        },
        Frame::Answer(answer),
        Frame::Control(Control::Identity(identity)),
    ] {
        let bytes = encoded(&frame);
        assert!(bytes.len() <= FRAME_BYTES_MAX);
        assert_eq!(only(&bytes).0, frame);
    }
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    let long: String = core::iter::repeat_n('é', TEXT_BYTES_MAX).collect();
    let frame = Frame::Control(Control::PromoteRefused(long));
    let (Frame::Control(Control::PromoteRefused(text)), _) = only(&encoded(&frame)) else {
        panic!("another frame");
    };
    assert_eq!(text.len(), TEXT_BYTES_MAX);
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u64>(), any::<u16>(), any_request()).prop_map(|(sequence, volume, request)| Frame::Request {
            sequence,
            volume,
            request
        }),
        any_answer().prop_map(Frame::Answer),
        any_control().prop_map(Frame::Control),
    ]
}

fn any_range() -> impl Strategy<Value = ByteRange> {
    (0..u64::MAX - RANGE_BYTES_MAX, 1..=RANGE_BYTES_MAX).prop_map(|(offset, length)| ByteRange::new(offset, length))
}

fn any_request() -> impl Strategy<Value = Request> {
    let compared = || {
        (any::<u32>(), vec(any::<u64>(), 1..40), 0..BLOCK_BYTES).prop_map(|(block, digests, short)| {
            let length = digests.len() as u64 * BLOCK_BYTES - short;
            (ByteRange::new(u64::from(block) * BLOCK_BYTES, length), digests)
        })
    };
    prop_oneof![
        (any_range(), any::<bool>()).prop_map(|(range, fua)| Request::Write { range, fua }),
        (any_range(), any::<bool>(), any::<bool>()).prop_map(|(range, no_hole, fua)| Request::Zero {
            range,
            no_hole,
            fua
        }),
        (any_range(), any::<bool>()).prop_map(|(range, fua)| Request::Trim { range, fua }),
        Just(Request::Flush),
        Just(Request::Barrier),
        compared().prop_map(|(range, digests)| Request::Compare { range, digests }),
        compared().prop_map(|(range, digests)| Request::Fetch { range, digests }),
        any_range().prop_map(|range| Request::CopyWrite { range }),
        any_range().prop_map(|range| Request::CopyZero { range }),
        any_range().prop_map(|range| Request::Read { range }),
        any_message().prop_map(Request::Message),
    ]
}

fn any_message() -> impl Strategy<Value = VolumeMessage> {
    let number = any::<u64>;
    prop_oneof![
        (number(), vec(number(), 0..=EARLIER_MAX), vec(".{0,20}", 0..PEERS_MAX)).prop_map(|message| {
            let (current, earlier, in_step) = message;
            VolumeMessage::Generation {
                current,
                earlier,
                in_step,
            }
        }),
        number().prop_map(|current| VolumeMessage::GenerationDone { current }),
        Just(VolumeMessage::SyncBegin),
        Just(VolumeMessage::SyncBeginDone),
        (number(), vec(number(), 0..=HISTORY_MAX))
            .prop_map(|(current, history)| VolumeMessage::SyncEnd { current, history }),
        number().prop_map(|current| VolumeMessage::SyncEndDone { current }),
        number().prop_map(|current| VolumeMessage::InStep { current }),
        any_disk().prop_map(|disk| VolumeMessage::Leg { disk }),
        (".{0,20}", number()).prop_map(|(node, current)| VolumeMessage::AlsoInStep { node, current }),
    ]
}

fn any_disk() -> impl Strategy<Value = LocalDisk> {
    prop_oneof![
        Just(LocalDisk::Diskless),
        Just(LocalDisk::Inconsistent),
        Just(LocalDisk::Outdated),
        Just(LocalDisk::UpToDate),
    ]
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Primary), Just(Role::Secondary)]
}

/// Ranges in order, each with a part of it as a hole or not.
fn any_ranges() -> impl Strategy<Value = (Vec<ByteRange>, Vec<ByteRange>)> {
    vec((1..1_000_000_u64, 2..100_000_u64, any::<bool>()), 0..30).prop_map(|parts| {
        let (mut at, mut ranges, mut holes) = (0, Vec::new(), Vec::new());
        for (gap, length, hole) in parts {
            ranges.push(ByteRange::new(at + gap, length));
            if hole {
                holes.push(ByteRange::new(at + gap + length / 2, length - length / 2));
            }
            at += gap + length;
        }
        (ranges, holes)
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let failure = prop_oneof![Just(Failure::Io), Just(Failure::NoSpace)];
    prop_oneof![
        vec(any::<u64>(), 0..40).prop_map(|done| Answer::Done(done.into())),
        (any::<u64>(), failure).prop_map(|(sequence, failure)| Answer::Failed { sequence, failure }),
        (any::<u64>(), any_ranges()).prop_map(|(sequence, (ranges, _))| Answer::Differs { sequence, ranges }),
        (any::<u64>(), any_ranges()).prop_map(|(sequence, (ranges, holes))| Answer::Contents {
            sequence,
            ranges,
            holes
        }),
    ]
}

fn any_volume() -> impl Strategy<Value = VolumeIdentity> {
    let numbers = any::<[u64; 9]>();
    let numbers_to = |max| vec(any::<u64>(), 0..max);
    let lists = (
        numbers_to(PEERS_MAX),
        numbers_to(HISTORY_MAX),
        numbers_to(WITHDRAWN_MAX),
    );
    (".{0,30}", numbers, lists, any::<[bool; 3]>(), any_disk()).prop_map(|(name, numbers, lists, flags, disk)| {
        let [
            size,
            current,
            for_peer,
            dirty_bytes,
            count,
            token,
            earlier,
            before,
            sync,
        ] = numbers;
        VolumeIdentity {
            name,
            size,
            fresh: flags[0],
            current,
            for_peer,
            for_others: lists.0,
            history: lists.1,
            withdrawn: lists.2,
            disk,
            crashed_primary: flags[1],
            dirty_bytes,
            sync,
            acks_wait: flags[2],
            met: Meeting { count, token },
            met_before: Meeting {
                count: earlier,
                token: before,
            },
        }
    })
}

fn any_identity() -> impl Strategy<Value = NodeIdentity> {
    let volumes = vec(any_volume(), 0..4);
    (".{0,30}", any::<(u64, u32, bool, u64, bool)>(), any_role(), volumes).prop_map(|(node, numbers, role, volumes)| {
        NodeIdentity {
            node,
            incarnation: numbers.0,
            revision: numbers.1,
            role,
            discard_my_data: numbers.2,
            primary_since: numbers.3,
            bits_tell: numbers.4,
            was_primary: !numbers.4,
            answers_lost: numbers.0 % 2 == 0,
            volumes,
        }
    })
}

fn any_control() -> impl Strategy<Value = Control> {
    let runs = vec((1..1000_u64, 1..1000_u64), 0..30).prop_map(|parts| {
        let mut at = 0;
        parts
            .into_iter()
            .map(|(gap, length)| {
                let run = at + gap..at + gap + length;
                at = run.end;
                run
            })
            .collect()
    });
    let text = || ".{0,60}";
    prop_oneof![
        any_identity().prop_map(Control::Identity),
        (any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..9), text()).prop_map(
            |(my_revision, your_revision, verdicts, text)| {
                Control::Verdict {
                    my_revision,
                    your_revision,
                    verdicts,
                    text,
                }
            }
        ),
        (any::<u16>(), runs, any::<bool>()).prop_map(|(volume, blocks, last)| Control::Bitmap { volume, blocks, last }),
        (any_role(), vec(any_disk(), 0..9)).prop_map(|(role, disks)| Control::State { role, disks }),
        any_word(),
        text().prop_map(Control::DemoteRefused),
        text().prop_map(Control::PromoteRefused),
        any_growth(),
        any::<[u64; 5]>().prop_map(|[sent_us, lag_us, bytes, flushes, head]| Control::Heartbeat {
            sent_us,
            lag_us,
            bytes,
            flushes,
            head
        }),
        any::<u64>().prop_map(|sent_us| Control::HeartbeatAck { sent_us }),
        (0..=Credit::BYTES_MAX, 0..=Credit::REQUESTS_MAX)
            .prop_map(|(bytes, requests)| Control::Credit { bytes, requests }),
        any::<u64>().prop_map(|salt| Control::Meet { salt }),
        any::<u64>().prop_map(|salt| Control::Met { salt }),
        (any::<bool>(), text()).prop_map(|(stand_alone, reason)| Control::Goodbye { stand_alone, reason }),
        text().prop_map(|reason| Control::Again { reason }),
    ]
}

fn any_word() -> impl Strategy<Value = Control> {
    prop_oneof![
        Just(Control::AskDemote),
        Just(Control::Demoted),
        Just(Control::Promoting),
        Just(Control::PromoteGranted),
    ]
}

fn any_growth() -> impl Strategy<Value = Control> {
    prop_oneof![
        any::<(u16, u64)>().prop_map(|(volume, size)| Control::Grow { volume, size }),
        any::<(u16, u64)>().prop_map(|(volume, size)| Control::Grown { volume, size }),
        any::<(u16, u64)>().prop_map(|(volume, size)| Control::Resized { volume, size }),
        (any::<u16>(), ".{0,60}").prop_map(|(volume, why)| Control::GrowRefused { volume, why }),
        any::<(u16, u64, bool)>().prop_map(|(volume, size, assume_clean)| Control::Resize {
            volume,
            size,
            assume_clean
        }),
    ]
}
