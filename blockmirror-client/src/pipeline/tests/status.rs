//! BLOCK_STATUS: each context once, extents within what was asked.

use nbd_proto::{CommandFlags, Extent, ReplyFlags, ReplyTo, StatusFilter};

use super::*;

const SIZE: u64 = 8192;
const OFFSET: u64 = 1024;
const LENGTH: u64 = 4096;
const STYLES: [ReplyStyle; 2] = [ReplyStyle::Structured, ReplyStyle::Extended];

fn extents(lengths: &[u64]) -> Vec<Extent> {
    lengths.iter().map(|&length| Extent { length, flags: 1 }).collect()
}

/// What comes of these chunks, context and lengths of extents, in answer to a BLOCK_STATUS; whole and byte by byte.
fn answered(style: ReplyStyle, one: bool, chunks: &[(u32, &[u64])]) -> Result<Vec<Status>, PeerMisbehaved> {
    let mut ends = Vec::new();
    for size in [usize::MAX, 1] {
        let mut pipeline = Pipeline::new(&negotiated(SIZE, style), 2);
        let request = start(&mut pipeline, Command::BlockStatus { one }, OFFSET, LENGTH, ());
        let reply = ReplyTo {
            style,
            cookie: request.cookie,
            offset: OFFSET,
        };
        let mut bytes = Vec::new();
        for (context, lengths) in chunks {
            reply.put_status(ReplyFlags::empty(), *context, &extents(lengths), &mut bytes);
        }
        bytes.extend_from_slice(&reply.none());
        let mut events = Vec::new();
        let result = bytes.chunks(size.min(bytes.len())).try_for_each(|part| {
            pipeline.receive(part, &mut events)?;
            Ok(())
        });
        ends.push(result.map(|()| match events.pop() {
            Some(Event::Done {
                outcome: Ok(()),
                statuses,
                ..
            }) => statuses,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(ends[0], ends[1]);
    ends.remove(0)
}

#[test]
fn every_context_tells_its_extents() {
    for style in STYLES {
        // Less than the range, all of it, and more.
        for lengths in [
            &[512][..],
            &[LENGTH],
            &[512, LENGTH - 512],
            &[LENGTH - 1, 2],
            &[SIZE - OFFSET],
        ] {
            let told = answered(style, false, &[(9, lengths), (3, &[1])]);
            let status = |context, lengths| Status {
                context,
                extents: extents(lengths),
            };
            assert_eq!(told, Ok(vec![status(9, lengths), status(3, &[1])]));
        }
    }
}

#[test]
fn contexts_that_were_not_asked_for_come_twice_or_not_at_all() {
    for style in STYLES {
        let all: &[u64] = &[LENGTH];
        let unexpected = |context| Err(PeerMisbehaved::UnexpectedContext(context));
        assert_eq!(answered(style, false, &[(9, all), (4, all)]), unexpected(4));
        assert_eq!(answered(style, false, &[(9, all), (9, all)]), unexpected(9));
        let missing = |context| Err(PeerMisbehaved::ContextMissing(context));
        assert_eq!(answered(style, false, &[(9, all)]), missing(3));
        assert_eq!(answered(style, false, &[(3, all)]), missing(9));
        assert_eq!(answered(style, false, &[]), missing(9));
    }
}

#[test]
fn extents_end_where_they_may() {
    for style in STYLES {
        let told = |one, lengths| answered(style, one, &[(9, lengths), (3, &[1])]).err();
        let too_many = Some(PeerMisbehaved::ExtentsTooMany {
            offset: OFFSET,
            length: LENGTH,
        });
        assert_eq!(told(false, &[LENGTH, 1]), too_many);
        assert_eq!(told(true, &[1, 1]), too_many);
        assert_eq!(told(true, &[LENGTH + 1]), too_many);
        assert_eq!(told(true, &[LENGTH]), None);
        let described = SIZE - OFFSET + 1;
        let beyond = PeerMisbehaved::ExtentsBeyondEnd {
            offset: OFFSET,
            described,
        };
        assert_eq!(told(false, &[described]), Some(beyond));
    }
    let beyond = answered(ReplyStyle::Extended, false, &[(9, &[1, u64::MAX])]);
    assert!(matches!(beyond, Err(PeerMisbehaved::ExtentsBeyondEnd { .. })));
}

#[test]
fn a_status_comes_in_the_chunk_of_its_style_and_to_who_asked() {
    for style in STYLES {
        for (command, other) in [
            (READ, style),
            (
                Command::BlockStatus { one: false },
                STYLES[usize::from(style == STYLES[0])],
            ),
        ] {
            let mut pipeline = Pipeline::new(&negotiated(SIZE, style), 2);
            let request = start(&mut pipeline, command, OFFSET, LENGTH, ());
            let reply = ReplyTo {
                style,
                cookie: request.cookie,
                offset: OFFSET,
            };
            let mut status = Vec::new();
            let kind = ReplyTo { style: other, ..reply };
            kind.put_status(ReplyFlags::empty(), 9, &extents(&[1]), &mut status);
            // The chunk of the other style, behind a header of this one.
            let payload = status.split_off(other.chunk_header_length());
            let code = u16::from_be_bytes([status[6], status[7]]);
            let mut bytes = reply
                .chunk_header(ReplyFlags::empty(), nbd_proto::ChunkKind::None, payload.len() as u32)
                .to_vec();
            bytes[6..8].copy_from_slice(&code.to_be_bytes());
            bytes.extend(payload);
            let fault = receive(&mut pipeline, &bytes).unwrap_err();
            assert_eq!(fault, PeerMisbehaved::UnexpectedContent { kind: code });
        }
    }
}

#[test]
fn one_reply_cannot_make_us_hold_more_than_its_bound() {
    let limit = nbd_proto::constants::MAX_STATUS_EXTENTS as usize;
    let size = 1 << 40;
    let mut pipeline = Pipeline::new(&negotiated(size, ReplyStyle::Extended), 2);
    let request = start(&mut pipeline, Command::BlockStatus { one: false }, 0, size, ());
    let reply = ReplyTo {
        style: ReplyStyle::Extended,
        cookie: request.cookie,
        offset: 0,
    };
    let mut bytes = Vec::new();
    let many = vec![Extent { length: 1, flags: 0 }; limit];
    reply.put_status(ReplyFlags::empty(), 9, &many, &mut bytes);
    assert_eq!(receive(&mut pipeline, &bytes), Ok(vec![]));
    bytes.clear();
    reply.put_status(ReplyFlags::empty(), 3, &many[..1], &mut bytes);
    let fault = receive(&mut pipeline, &bytes).unwrap_err();
    assert!(matches!(fault, PeerMisbehaved::ExtentsTooMany { .. }));
}

#[test]
fn some_contexts_only() {
    let mut pipeline = Pipeline::new(&negotiated(SIZE, ReplyStyle::Extended), 2);
    let (header, payload) = pipeline
        .start_filtered(Duration::ZERO, true, (OFFSET, LENGTH), &[3], ())
        .unwrap();
    let request = Request::read(ReplyStyle::Extended, &header).unwrap().unwrap();
    assert_eq!(request.flags, CommandFlags::REQ_ONE | CommandFlags::PAYLOAD_LEN);
    assert_eq!((request.command, request.offset, request.length), (7, OFFSET, 12));
    let filter = StatusFilter {
        length: LENGTH,
        contexts: vec![3],
    };
    assert_eq!(StatusFilter::decode(&payload), Ok(filter));
    let reply = ReplyTo {
        style: ReplyStyle::Extended,
        cookie: request.cookie,
        offset: OFFSET,
    };
    let mut bytes = Vec::new();
    reply.put_status(ReplyFlags::DONE, 3, &extents(&[LENGTH]), &mut bytes);
    assert_eq!(receive(&mut pipeline, &bytes).unwrap().len(), 1);

    let mut filtered = |contexts| {
        pipeline
            .start_filtered(Duration::ZERO, false, (0, 1), contexts, ())
            .err()
    };
    assert_eq!(filtered(&[3, 4]), Some(StartError::NoSuchContext(4)));
    assert_eq!(filtered(&[]), Some(StartError::Empty));
    let mut server = negotiated(SIZE, ReplyStyle::Extended);
    server.flags.remove(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
    let refused = Pipeline::new(&server, 2).start_filtered(Duration::ZERO, false, (0, 1), &[3], ());
    assert!(matches!(refused, Err(StartError::NotOffered(_))));
}
