//! A server that breaks a rule: which one is said, whatever way the bytes are cut.

use nbd_proto::{ChunkKind, ReplyFlags, ReplyTo};

use super::*;

const DONE: ReplyFlags = ReplyFlags::DONE;
const MORE: ReplyFlags = ReplyFlags::empty();

/// The READ of 64 bytes at 1000 that most cases answer, and a WRITE of as many at 0.
struct Asked {
    read: u64,
    write: u64,
}

/// Feeds the reply whole and byte by byte; both must end alike.
fn judge(
    style: ReplyStyle,
    df: bool,
    reply: impl Fn(&Asked) -> Vec<u8>,
) -> Result<Vec<Event<&'static str>>, PeerMisbehaved> {
    let mut ends = Vec::new();
    for size in [usize::MAX, 1] {
        let mut pipeline = Pipeline::new(&negotiated(4096, style), 4);
        let read = start(&mut pipeline, Command::Read { df }, 1000, 64, "read").cookie;
        let write = start(&mut pipeline, WRITE, 0, 64, "write").cookie;
        let bytes = reply(&Asked { read, write });
        let mut events = Vec::new();
        let result = bytes.chunks(size.min(bytes.len())).try_for_each(|part| {
            assert_eq!(pipeline.receive(part, &mut events)?, part.len());
            Ok(())
        });
        if let Err(fault) = &result {
            assert_eq!(
                pipeline.receive(&[], &mut events).as_ref(),
                Err(fault),
                "the fault stays"
            );
            assert_eq!(pipeline.check(READ, 0, 1), Err(StartError::Closing));
        }
        ends.push(result.map(|()| events));
    }
    assert_eq!(ends[0], ends[1]);
    ends.remove(0)
}

fn data_chunk(cookie: u64, flags: ReplyFlags, offset: u64, length: u32) -> Vec<u8> {
    [
        &ReplyTo::structured(cookie).offset_data(flags, offset, length)[..],
        &vec![7; length as usize],
    ]
    .concat()
}

fn fault(reply: impl Fn(&Asked) -> Vec<u8>) -> PeerMisbehaved {
    judge(ReplyStyle::Structured, false, reply).expect_err("the rule is broken")
}

#[test]
fn cookies() {
    let unknown = fault(|_| ReplyTo::structured(0xffff_ffff_ffff_ffff).none().to_vec());
    assert_eq!(unknown, PeerMisbehaved::UnknownCookie(u64::MAX));
    let twice = fault(|asked| ReplyTo::structured(asked.write).none().repeat(2));
    assert!(matches!(twice, PeerMisbehaved::UnknownCookie(_)));
    let twice = judge(ReplyStyle::Simple, false, |asked| {
        [simple_reply(asked.write, None), simple_reply(asked.write, None)].concat()
    });
    assert!(matches!(twice, Err(PeerMisbehaved::UnknownCookie(_))));
}

#[test]
fn framing() {
    assert_eq!(fault(|_| vec![0; 4]), PeerMisbehaved::BadReplyMagic(0));
    let not_agreed = judge(ReplyStyle::Simple, false, |asked| {
        ReplyTo::structured(asked.write).none().to_vec()
    });
    assert_eq!(not_agreed, Err(PeerMisbehaved::StructuredNotNegotiated));
    let simple = fault(|asked| simple_reply(asked.read, None).to_vec());
    assert_eq!(simple, PeerMisbehaved::SimpleReplyToRead);
    let mixed = fault(|asked| {
        [
            data_chunk(asked.read, MORE, 1000, 8),
            simple_reply(asked.read, Some(NbdError::Io)).to_vec(),
        ]
        .concat()
    });
    assert_eq!(mixed, PeerMisbehaved::SimpleReplyToRead);
    let content = fault(|asked| data_chunk(asked.write, DONE, 0, 64));
    assert_eq!(content, PeerMisbehaved::UnexpectedContent { kind: 1 });
    let hole = fault(|asked| ReplyTo::structured(asked.write).hole(DONE, 0, 64).to_vec());
    assert_eq!(hole, PeerMisbehaved::UnexpectedContent { kind: 2 });
}

#[test]
fn coverage() {
    let outside = |offset, length| PeerMisbehaved::ContentOutsideRequest { offset, length };
    assert_eq!(fault(|asked| data_chunk(asked.read, DONE, 999, 64)), outside(999, 64));
    assert_eq!(fault(|asked| data_chunk(asked.read, DONE, 1000, 65)), outside(1000, 65));
    assert_eq!(
        fault(|asked| ReplyTo::structured(asked.read).hole(DONE, 1063, 2).to_vec()),
        outside(1063, 2)
    );
    assert_eq!(
        fault(|asked| ReplyTo::structured(asked.read).hole(DONE, u64::MAX, 2).to_vec()),
        outside(u64::MAX, 2)
    );
    // Four gigabytes are claimed: refused by the header's word, before any memory is taken for it.
    let huge = fault(|asked| {
        ReplyTo::structured(asked.read)
            .offset_data(DONE, 1000, u32::MAX - 8)
            .to_vec()
    });
    assert_eq!(huge, outside(1000, u64::from(u32::MAX - 8)));
    let twice = fault(|asked| {
        [
            data_chunk(asked.read, MORE, 1000, 8),
            data_chunk(asked.read, MORE, 1007, 8),
        ]
        .concat()
    });
    assert_eq!(
        twice,
        PeerMisbehaved::ContentOverlaps {
            offset: 1007,
            length: 8
        }
    );
    let short = fault(|asked| data_chunk(asked.read, DONE, 1001, 63));
    assert_eq!(short, PeerMisbehaved::ContentMissing { missing: 1, length: 64 });
    let nothing = fault(|asked| ReplyTo::structured(asked.read).none().to_vec());
    assert_eq!(
        nothing,
        PeerMisbehaved::ContentMissing {
            missing: 64,
            length: 64
        }
    );
}

#[test]
fn fragments_of_a_read_that_forbids_them() {
    let halves = |asked: &Asked| {
        [
            data_chunk(asked.read, MORE, 1000, 32),
            data_chunk(asked.read, DONE, 1032, 32),
        ]
        .concat()
    };
    assert_eq!(
        judge(ReplyStyle::Structured, true, halves),
        Err(PeerMisbehaved::Fragmented)
    );
    assert!(judge(ReplyStyle::Structured, false, halves).is_ok());
}

#[test]
fn errors() {
    let outside = fault(|asked| ReplyTo::structured(asked.read).error(NbdError::Io, "x", Some(1064)));
    assert_eq!(
        outside,
        PeerMisbehaved::ContentOutsideRequest {
            offset: 1064,
            length: 0
        }
    );
    let no_error = fault(|asked| {
        [
            &ReplyTo::structured(asked.write).chunk_header(DONE, ChunkKind::Error, 6)[..],
            &[0; 6],
        ]
        .concat()
    });
    assert_eq!(no_error, PeerMisbehaved::ErrorChunkWithoutError);
    let too_long = fault(|asked| {
        ReplyTo::structured(asked.write)
            .chunk_header(DONE, ChunkKind::Error, 1 << 20)
            .to_vec()
    });
    assert_eq!(
        too_long,
        PeerMisbehaved::WrongChunkLength {
            kind: 0x8001,
            length: 1 << 20
        }
    );
}

#[test]
fn errors_that_keep_the_rules_fail_only_their_request() {
    let failed = |error, message: &str| Event::Done {
        tag: "read",
        outcome: Err(error),
        message: Some(message.to_owned()),
        data: None,
        statuses: vec![],
    };
    let at_offset = judge(ReplyStyle::Structured, false, |asked| {
        let parts = [
            data_chunk(asked.read, MORE, 1000, 8),
            ReplyTo::structured(asked.read).error(NbdError::Io, "sector", Some(1008)),
        ];
        [parts.concat(), ReplyTo::structured(asked.write).none().to_vec()].concat()
    });
    assert_eq!(at_offset, Ok(vec![failed(NbdError::Io, "sector"), done("write")]));
    // The first error counts, and a kind of error we do not know is still an error.
    let unknown_kind = judge(ReplyStyle::Structured, false, |asked| {
        let text = b"\0\0\0\x1c\0\x04late then more";
        let header =
            ReplyTo::structured(asked.read).chunk_header(MORE, ChunkKind::UnknownError(0x8123), text.len() as u32);
        [
            &header[..],
            text,
            &ReplyTo::structured(asked.read).error(NbdError::Io, "second", None),
        ]
        .concat()
    });
    assert_eq!(unknown_kind, Ok(vec![failed(NbdError::NoSpace, "late")]));
    // nbd-server answers a READ that fails early simply, structured replies or not.
    let simple = judge(ReplyStyle::Structured, false, |asked| {
        simple_reply(asked.read, Some(NbdError::Io)).to_vec()
    });
    assert_eq!(
        simple,
        Ok(vec![Event::Done {
            tag: "read",
            outcome: Err(NbdError::Io),
            message: None,
            data: None,
            statuses: vec![],
        }])
    );
}
