//! Golden bytes of extended headers and block status, written down from the protocol's own text.
#![allow(clippy::unwrap_used)]

use nbd_proto::reply::decode_status;
use nbd_proto::{
    ChunkKind, Command, Extent, NbdError, ReplyFlags, ReplyHeader, ReplyStyle, ReplyTo, Request, StatusFilter,
};

#[test]
fn extended_requests() {
    let cookie = 0x1122_3344_5566_7788;
    let request = Request::new(Command::Write { fua: true }, cookie, 1 << 40, 4096).in_style(ReplyStyle::Extended);
    let bytes = b"\x21\xe4\x1c\x71\x00\x21\x00\x01\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00";
    assert_eq!(&request.encode_extended(), bytes);
    assert_eq!(Request::decode_extended(bytes), Ok(request));
    let trim = Request::new(Command::Trim { fua: false }, cookie, 0, 1 << 42).in_style(ReplyStyle::Extended);
    let bytes = b"\x21\xe4\x1c\x71\x00\x00\x00\x04\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    assert_eq!(&trim.encode_extended(), bytes);
    let filter = StatusFilter {
        length: 1 << 42,
        contexts: vec![2, 0x8000_0000],
    };
    assert_eq!(
        filter.encode(),
        b"\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x02\x80\x00\x00\x00"
    );
}

#[test]
fn extended_replies() {
    let reply = ReplyTo {
        style: ReplyStyle::Extended,
        cookie: 0x1122_3344_5566_7788,
        offset: 1 << 40,
    };
    let none = b"\x6e\x8a\x27\x8c\x00\x01\x00\x00\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    assert_eq!(*reply.none(), *none);
    assert_eq!(*reply.success(), *none);
    assert_eq!(
        *reply.offset_data(ReplyFlags::empty(), 0x100_0000_2000, 0x1000),
        *b"\x6e\x8a\x27\x8c\x00\x00\x00\x01\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x08\
        \x00\x00\x01\x00\x00\x00\x20\x00"
    );
    assert_eq!(
        *reply.hole(ReplyFlags::DONE, 0x100_0000_2000, 0x1000),
        *b"\x6e\x8a\x27\x8c\x00\x01\x00\x02\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0c\
        \x00\x00\x01\x00\x00\x00\x20\x00\x00\x00\x10\x00"
    );
    assert_eq!(
        reply.error(NbdError::NotSupported, "no", None),
        b"\x6e\x8a\x27\x8c\x00\x01\x80\x01\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\
        \x00\x00\x00\x5f\x00\x02no"
    );
}

#[test]
fn block_status() {
    let extents = [
        Extent {
            length: 0x1000,
            flags: 3,
        },
        Extent {
            length: 0x1_0000_0000,
            flags: 0,
        },
    ];
    let structured = ReplyTo::structured(0x1122_3344_5566_7788);
    let mut output = b"before".to_vec();
    structured.put_status(ReplyFlags::DONE, 9, &extents, &mut output);
    assert_eq!(
        output,
        b"before\x66\x8e\x33\xef\x00\x01\x00\x05\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x1c\
        \x00\x00\x00\x09\
        \x00\x00\x10\x00\x00\x00\x00\x03\
        \xff\xff\x00\x00\x00\x00\x00\x00\
        \x00\x01\x00\x00\x00\x00\x00\x00"
    );
    let extended = ReplyTo {
        style: ReplyStyle::Extended,
        offset: 0x2000,
        ..structured
    };
    output.clear();
    extended.put_status(ReplyFlags::empty(), 9, &extents, &mut output);
    assert_eq!(
        output,
        b"\x6e\x8a\x27\x8c\x00\x00\x00\x06\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x28\
        \x00\x00\x00\x09\x00\x00\x00\x02\
        \x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x03\
        \x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    );
    let header = ReplyHeader::decode(&output).unwrap();
    let expected = ReplyHeader::Chunk {
        flags: ReplyFlags::empty(),
        kind: ChunkKind::BlockStatusExt,
        cookie: extended.cookie,
        length: 40,
        offset: Some(0x2000),
    };
    assert_eq!(header, Some((expected, 32)));
    assert_eq!(
        decode_status(ChunkKind::BlockStatusExt, &output[32..]),
        Ok((9, extents.to_vec()))
    );
}
