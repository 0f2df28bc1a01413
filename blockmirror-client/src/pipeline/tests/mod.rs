#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod extended;
mod misbehaviour;
mod model;
mod status;
mod toy;

use nbd_proto::client::Negotiated;
use nbd_proto::reply::simple_reply;
use nbd_proto::{BlockSizes, Command, Context, NbdError, ReplyStyle, Request, TransmissionFlags};

use super::*;

const READ: Command = Command::Read { df: false };
const WRITE: Command = Command::Write { fua: false };

fn all_flags() -> TransmissionFlags {
    TransmissionFlags::all() - TransmissionFlags::READ_ONLY
}

/// Numbers of the metadata contexts that are selected where replies have chunks.
const CONTEXTS: [u32; 2] = [9, 3];

fn negotiated(size: u64, replies: ReplyStyle) -> Negotiated {
    let contexts = CONTEXTS.map(|id| Context {
        id,
        name: format!("x:{id}"),
    });
    Negotiated {
        size,
        flags: all_flags(),
        block_sizes: None,
        replies,
        contexts: if replies.has_chunks() { contexts.into() } else { vec![] },
        name: None,
        description: None,
    }
}

fn start<T>(pipeline: &mut Pipeline<T>, command: Command, offset: u64, length: u64, tag: T) -> Request {
    let header = pipeline.start(Duration::ZERO, command, offset, length, tag).unwrap();
    Request::read(pipeline.limits().replies, &header).unwrap().unwrap()
}

fn receive<T>(pipeline: &mut Pipeline<T>, bytes: &[u8]) -> Result<Vec<Event<T>>, PeerMisbehaved> {
    let mut events = Vec::new();
    assert_eq!(pipeline.receive(bytes, &mut events)?, bytes.len());
    Ok(events)
}

fn done<T>(tag: T) -> Event<T> {
    Event::Done {
        tag,
        outcome: Ok(()),
        message: None,
        data: None,
        statuses: vec![],
    }
}

#[test]
fn requests_are_on_the_wire_what_was_asked() {
    let mut pipeline = Pipeline::new(&negotiated(1 << 40, ReplyStyle::Structured), 8);
    let request = start(
        &mut pipeline,
        Command::WriteZeroes {
            fua: true,
            no_hole: true,
            fast: false,
        },
        1 << 39,
        4096,
        (),
    );
    assert_eq!((request.command, request.flags.bits()), (6, 0b11));
    assert_eq!((request.offset, request.length), (1 << 39, 4096));
    let flush = start(&mut pipeline, Command::Flush, 7, 7, ());
    assert_eq!((flush.command, flush.offset, flush.length), (3, 0, 0));
    assert_ne!(flush.cookie, request.cookie);
    let goodbye = Request::read(ReplyStyle::Structured, &pipeline.disconnect())
        .unwrap()
        .unwrap();
    assert_eq!((goodbye.command, goodbye.offset, goodbye.length), (2, 0, 0));
    assert_eq!(pipeline.check(WRITE, 0, 1), Err(StartError::Closing));
    // What was in flight is answered all the same.
    assert_eq!(
        receive(&mut pipeline, &simple_reply(flush.cookie, None)),
        Ok(vec![done(())])
    );
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut pipeline = Pipeline::new(&negotiated(100, ReplyStyle::Simple), 2);
    let first = start(&mut pipeline, WRITE, 0, 1, 'a');
    start(&mut pipeline, WRITE, 1, 1, 'b');
    assert!(!pipeline.has_room());
    assert_eq!(pipeline.check(WRITE, 2, 1), Err(StartError::WindowFull { window: 2 }));
    receive(&mut pipeline, &simple_reply(first.cookie, None)).unwrap();
    assert!(pipeline.has_room());
    let third = start(&mut pipeline, WRITE, 2, 1, 'c');
    assert_ne!(third.cookie, first.cookie, "a place is used again, a cookie is not");
    assert_eq!(pipeline.drain(), ['b', 'c']);
    assert_eq!((pipeline.in_flight(), pipeline.oldest()), (0, None));
    assert_eq!(pipeline.check(WRITE, 2, 1), Err(StartError::Closing));
}

#[test]
fn the_window_is_clamped() {
    assert_eq!(
        Pipeline::<()>::new(&negotiated(1, ReplyStyle::Structured), 0).window(),
        1
    );
    assert_eq!(
        Pipeline::<()>::new(&negotiated(1, ReplyStyle::Structured), usize::MAX).window(),
        MAX_WINDOW
    );
}

#[test]
fn oldest_is_the_first_started_of_those_in_flight() {
    let mut pipeline = Pipeline::new(&negotiated(100, ReplyStyle::Simple), 4);
    let requests: Vec<Request> = (1..=3u64)
        .map(|at| {
            let header = pipeline.start(Duration::from_secs(at), WRITE, at, 1, at).unwrap();
            Request::read(ReplyStyle::Simple, &header).unwrap().unwrap()
        })
        .collect();
    for (answered, oldest) in [(1, Some(1)), (0, Some(3)), (2, None)] {
        receive(&mut pipeline, &simple_reply(requests[answered].cookie, None)).unwrap();
        assert_eq!(pipeline.oldest(), oldest.map(Duration::from_secs));
    }
}

#[test]
fn an_unknown_errno_is_einval() {
    let mut pipeline = Pipeline::new(&negotiated(100, ReplyStyle::Simple), 4);
    let request = start(&mut pipeline, WRITE, 0, 1, ());
    let mut reply = simple_reply(request.cookie, Some(NbdError::Io));
    reply[4..8].copy_from_slice(&4711u32.to_be_bytes());
    let expected = Event::Done {
        tag: (),
        outcome: Err(NbdError::Invalid),
        message: None,
        data: None,
        statuses: vec![],
    };
    assert_eq!(receive(&mut pipeline, &reply), Ok(vec![expected]));
}

#[test]
fn limits_follow_the_negotiation() {
    let mut plain = negotiated(1000, ReplyStyle::Structured);
    let limits = Limits::new(&plain);
    assert_eq!(
        (limits.minimum_block, limits.preferred_block, limits.maximum_payload),
        (1, 4096, MAX_PAYLOAD)
    );
    plain.block_sizes = Some(BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum_payload: u32::MAX,
    });
    assert_eq!(Limits::new(&plain).maximum_payload, MAX_PAYLOAD);
    plain.block_sizes = Some(BlockSizes {
        minimum: 512,
        preferred: 65536,
        maximum_payload: 1 << 20,
    });
    let limits = Limits::new(&plain);
    assert_eq!(
        (limits.minimum_block, limits.preferred_block, limits.maximum_payload),
        (512, 65536, 1 << 20)
    );
}

#[test]
fn what_cannot_be_asked_is_not_sent() {
    let mut server = negotiated(1 << 30, ReplyStyle::Simple);
    server.block_sizes = Some(BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum_payload: 1 << 20,
    });
    let limits = Limits::new(&server);
    let size = 1 << 30;
    let trim = Command::Trim { fua: false };
    let zero = Command::WriteZeroes {
        fua: false,
        no_hole: false,
        fast: false,
    };
    let out_of_range = |offset, length| Err(StartError::OutOfRange { offset, length, size });
    let misaligned = |offset, length| {
        Err(StartError::Misaligned {
            offset,
            length,
            block: 512,
        })
    };
    for (command, offset, length, expected) in [
        (WRITE, size - 512, 512, Ok(())),
        (WRITE, size - 512, 1024, out_of_range(size - 512, 1024)),
        (READ, u64::MAX - 511, 512, out_of_range(u64::MAX - 511, 512)),
        (READ, 0, 0, Err(StartError::Empty)),
        (READ, 1, 512, misaligned(1, 512)),
        (WRITE, 512, 100, misaligned(512, 100)),
        (
            WRITE,
            0,
            (1 << 20) + 512,
            Err(StartError::TooLong {
                length: (1 << 20) + 512,
                maximum: 1 << 20,
            }),
        ),
        (zero, 0, 1 << 30, Ok(())),
        (trim, 0, 1 << 30, Ok(())),
        (Command::Flush, 1, 1, Ok(())),
        (Command::Disconnect, 0, 0, Err(StartError::Disconnect)),
    ] {
        assert_eq!(
            limits.check(command, offset, length),
            expected,
            "{command:?} {offset} {length}"
        );
    }
}

#[test]
fn what_is_not_offered_is_not_asked() {
    let mut server = negotiated(1 << 20, ReplyStyle::Simple);
    server.flags = TransmissionFlags::HAS_FLAGS;
    let bare = Limits::new(&server);
    let fua = Command::Write { fua: true };
    let zero = Command::WriteZeroes {
        fua: false,
        no_hole: false,
        fast: false,
    };
    for (command, name) in [
        (fua, "FUA"),
        (Command::Flush, "FLUSH"),
        (Command::Trim { fua: false }, "TRIM"),
        (zero, "WRITE_ZEROES"),
        (Command::Cache, "CACHE"),
        (Command::Read { df: true }, "READ with DF"),
        (Command::BlockStatus { one: true }, "BLOCK_STATUS"),
    ] {
        assert_eq!(bare.check(command, 0, 1), Err(StartError::NotOffered(name)));
    }
    assert_eq!((bare.check(READ, 0, 1), bare.check(WRITE, 0, 1)), (Ok(()), Ok(())));
    server.flags = TransmissionFlags::all();
    let read_only = Limits::new(&server);
    for command in [WRITE, zero, Command::Trim { fua: false }] {
        assert_eq!(read_only.check(command, 0, 1), Err(StartError::ReadOnly));
    }
    assert_eq!(read_only.check(Command::Flush, 0, 0), Ok(()));
}

#[test]
fn cookies_of_another_connection_are_not_known() {
    let mut old = Pipeline::numbered(&negotiated(100, ReplyStyle::Simple), 4, 1);
    let mut new = Pipeline::numbered(&negotiated(100, ReplyStyle::Simple), 4, 2);
    let stray = start(&mut old, WRITE, 0, 1, ());
    start(&mut new, WRITE, 0, 1, ());
    let result = receive(&mut new, &simple_reply(stray.cookie, None));
    assert_eq!(result, Err(PeerMisbehaved::UnknownCookie(stray.cookie)));
}
