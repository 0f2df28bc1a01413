//! Extended headers: 64-bit lengths out, and replies that repeat the offset.

use nbd_proto::{CommandFlags, ReplyTo};

use super::*;

const SIZE: u64 = 1 << 50;
const TRIM: Command = Command::Trim { fua: false };

fn pipeline() -> Pipeline<&'static str> {
    Pipeline::new(&negotiated(SIZE, ReplyStyle::Extended), 8)
}

fn reply_to(request: &Request) -> ReplyTo {
    ReplyTo {
        style: ReplyStyle::Extended,
        cookie: request.cookie,
        offset: request.offset,
    }
}

#[test]
fn lengths_have_64_bits() {
    let mut pipeline = pipeline();
    let trim = start(&mut pipeline, TRIM, 512, SIZE - 512, "trim");
    assert_eq!((trim.offset, trim.length), (512, SIZE - 512));
    assert_eq!(trim.flags, CommandFlags::empty());
    let write = start(&mut pipeline, WRITE, 0, 512, "write");
    assert_eq!(write.flags, CommandFlags::PAYLOAD_LEN);
    let goodbye = Request::read(ReplyStyle::Extended, &pipeline.disconnect());
    assert_eq!(goodbye.unwrap().unwrap().command, 2);
    let replies = [reply_to(&write).none(), reply_to(&trim).none()];
    assert_eq!(
        receive(&mut pipeline, &replies.map(|reply| reply.to_vec()).concat()),
        Ok(vec![done("write"), done("trim")])
    );
}

#[test]
fn compact_headers_have_room_for_32() {
    let mut server = negotiated(SIZE, ReplyStyle::Structured);
    server.block_sizes = Some(BlockSizes {
        minimum: 512,
        ..BlockSizes::default()
    });
    let limits = Limits::new(&server);
    // Servers before 2020 fail above 2 GiB; which this one is cannot be known.
    assert_eq!(limits.longest_effect(), 1 << 30);
    let (length, maximum) = (1 << 32, u64::from(u32::MAX));
    assert_eq!(limits.check(TRIM, 0, length - 512), Ok(()));
    assert_eq!(
        limits.check(TRIM, 0, length),
        Err(StartError::TooLong { length, maximum })
    );
    server.replies = ReplyStyle::Extended;
    assert_eq!(Limits::new(&server).longest_effect(), u64::MAX - 511);
}

#[test]
fn a_read_comes_in_pieces_that_repeat_its_offset() {
    let mut pipeline = pipeline();
    let read = start(&mut pipeline, READ, 1 << 40, 16, "read");
    let reply = reply_to(&read);
    let more = nbd_proto::ReplyFlags::empty();
    let bytes = [
        &reply.offset_data(more, (1 << 40) + 8, 8)[..],
        &[7; 8],
        &reply.hole(more, 1 << 40, 8),
        &reply.none(),
    ];
    let expected = Event::Done {
        tag: "read",
        outcome: Ok(()),
        message: None,
        data: Some([[0; 8], [7; 8]].concat()),
        statuses: vec![],
    };
    assert_eq!(receive(&mut pipeline, &bytes.concat()), Ok(vec![expected]));
}

/// The fault of a reply to a TRIM of 8 bytes at 512.
fn fault(style: ReplyStyle, reply: impl Fn(&Request) -> Vec<u8>) -> PeerMisbehaved {
    let mut pipeline = Pipeline::new(&negotiated(SIZE, style), 8);
    let request = start(&mut pipeline, TRIM, 512, 8, "trim");
    receive(&mut pipeline, &reply(&request)).unwrap_err()
}

#[test]
fn each_style_has_its_replies() {
    let extended = |request: &Request| reply_to(request).none().to_vec();
    let structured = |request: &Request| ReplyTo::structured(request.cookie).none().to_vec();
    let simple = |request: &Request| simple_reply(request.cookie, None).to_vec();
    assert_eq!(
        fault(ReplyStyle::Simple, extended),
        PeerMisbehaved::ExtendedNotNegotiated
    );
    assert_eq!(
        fault(ReplyStyle::Structured, extended),
        PeerMisbehaved::ExtendedNotNegotiated
    );
    assert_eq!(
        fault(ReplyStyle::Simple, structured),
        PeerMisbehaved::StructuredNotNegotiated
    );
    assert_eq!(fault(ReplyStyle::Extended, structured), PeerMisbehaved::CompactReply);
    assert_eq!(fault(ReplyStyle::Extended, simple), PeerMisbehaved::CompactReply);
}

#[test]
fn another_offset_than_the_requests_is_a_fault() {
    let other = fault(ReplyStyle::Extended, |request| {
        ReplyTo {
            offset: 0,
            ..reply_to(request)
        }
        .none()
        .to_vec()
    });
    assert_eq!(other, PeerMisbehaved::OtherOffset { got: 0, asked: 512 });
}
