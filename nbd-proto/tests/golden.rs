//! Golden bytes: what goes over the wire, byte for byte, written down from the protocol's own text.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nbd_proto::reply::simple_reply;
use nbd_proto::{
    BlockSizes, Command, CommandFlags, ExportInfo, NbdError, OptionError, ReplyFlags, ReplyStyle, ReplyTo, Request,
    TransmissionFlags, client, server,
};

struct OneExport;

impl server::Exports for OneExport {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name == "db").then(|| ExportInfo {
            name: "db".into(),
            description: "disk".into(),
            size: 0x0102_0304_0506,
            flags: TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA | TransmissionFlags::CAN_MULTI_CONN,
            block_sizes: BlockSizes {
                minimum: 512,
                preferred: 4096,
                maximum_payload: 32 << 20,
            },
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![("db".into(), "disk".into()), ("log".into(), String::new())]
    }

    fn contexts(&self, _export: &str) -> Vec<String> {
        vec!["base:allocation".into()]
    }

    fn upgrade(&self, hello: &[u8]) -> Result<Vec<u8>, (OptionError, String)> {
        assert_eq!(hello, b"HELLO");
        Ok(b"hello yourself".to_vec())
    }
}

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const CLIENT_FLAGS: &[u8] = b"\x00\x00\x00\x03";
const ASK_STRUCTURED: &[u8] = b"IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00";
const ACK_STRUCTURED: &[u8] = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00";
const ASK_GO: &[u8] = b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0e\
    \x00\x00\x00\x02db\x00\x03\x00\x01\x00\x02\x00\x03";
/// EXPORT, NAME, DESCRIPTION, BLOCK_SIZE, ACK.
const ANSWER_GO: &[u8] = b"\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\
    \x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x01\x8d\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x04\
    \x00\x01db\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x06\
    \x00\x02disk\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0e\
    \x00\x03\x00\x00\x02\x00\x00\x00\x10\x00\x02\x00\x00\x00\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00";
const ASK_LIST: &[u8] = b"IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00";
const ANSWER_LIST: &[u8] = b"\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x0a\x00\x00\x00\x02dbdisk\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x07\x00\x00\x00\x03log\
    \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00";
const ASK_ABORT: &[u8] = b"IHAVEOPT\x00\x00\x00\x02\x00\x00\x00\x00";
const ACK_ABORT: &[u8] = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00";
const ASK_EXPORT_NAME: &[u8] = b"IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x02db";
const ANSWER_EXPORT_NAME: &[u8] = b"\x00\x00\x01\x02\x03\x04\x05\x06\x01\x0d";

/// The vendor option is `bmrs`, and so is the type of its reply.
const ASK_UPGRADE: &[u8] = b"IHAVEOPTbmrs\x00\x00\x00\x05HELLO";
const ANSWER_UPGRADE: &[u8] = b"\x00\x03\xe8\x89\x04\x55\x65\xa9bmrsbmrs\x00\x00\x00\x0ehello yourself";

/// Gives the server `input`, expects it all consumed and `expected` sent.
fn serve(handshake: &mut server::Handshake, input: &[u8], expected: &[u8]) -> server::Step {
    let mut output = Vec::new();
    let (consumed, step) = handshake.handle(input, &OneExport, &mut output);
    assert_eq!(consumed, input.len());
    assert_eq!(output, expected);
    step
}

/// Gives the client `input`, expects it all consumed and `expected` sent.
fn ask(handshake: &mut client::Handshake, input: &[u8], expected: &[&[u8]]) -> client::Step {
    let mut output = Vec::new();
    let (consumed, step) = handshake.handle(input, &mut output).unwrap();
    assert_eq!(consumed, input.len());
    assert_eq!(output, expected.concat());
    step
}

#[test]
fn the_servers_end() {
    let mut handshake = server::Handshake::default();
    assert_eq!(handshake.greeting(), GREETING);
    assert_eq!(serve(&mut handshake, CLIENT_FLAGS, b""), server::Step::NeedMore);
    assert_eq!(serve(&mut handshake, ASK_LIST, ANSWER_LIST), server::Step::NeedMore);
    assert_eq!(
        serve(&mut handshake, ASK_STRUCTURED, ACK_STRUCTURED),
        server::Step::NeedMore
    );
    let server::Step::Ready(negotiated) = serve(&mut handshake, ASK_GO, ANSWER_GO) else {
        panic!("not ready")
    };
    assert!(negotiated.replies.has_chunks() && negotiated.block_sizes_known);
    assert_eq!(negotiated.export.flags.bits(), 0x018d);
}

#[test]
fn the_servers_end_by_export_name_and_abort() {
    let mut handshake = server::Handshake::default();
    serve(&mut handshake, CLIENT_FLAGS, b"");
    assert!(matches!(
        serve(&mut handshake, ASK_EXPORT_NAME, ANSWER_EXPORT_NAME),
        server::Step::Ready(_)
    ));
    let mut handshake = server::Handshake::default();
    serve(&mut handshake, CLIENT_FLAGS, b"");
    assert_eq!(serve(&mut handshake, ASK_ABORT, ACK_ABORT), server::Step::Aborted);
}

#[test]
fn the_servers_refusal_of_an_unknown_option() {
    let mut handshake = server::Handshake::default();
    serve(&mut handshake, CLIENT_FLAGS, b"");
    let refusal = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0c\x80\x00\x00\x01\x00\x00\x00\x25\
        this server does not know this option";
    let starttls = b"IHAVEOPT\x00\x00\x00\x0c\x00\x00\x00\x00";
    assert_eq!(serve(&mut handshake, starttls, refusal), server::Step::NeedMore);
}

#[test]
fn both_ends_of_an_upgrade() {
    let mut handshake = server::Handshake::default();
    serve(&mut handshake, CLIENT_FLAGS, b"");
    let hello = b"HELLO".to_vec();
    assert_eq!(
        serve(&mut handshake, ASK_UPGRADE, ANSWER_UPGRADE),
        server::Step::Upgraded { hello: hello.clone() }
    );
    let mut handshake = client::Handshake::upgrade(hello);
    let step = ask(&mut handshake, GREETING, &[CLIENT_FLAGS, ASK_UPGRADE]);
    assert_eq!(step, client::Step::NeedMore);
    let step = ask(&mut handshake, ANSWER_UPGRADE, &[]);
    assert_eq!(step, client::Step::Upgraded(b"hello yourself".to_vec()));
}

#[test]
fn the_clients_end() {
    let mut handshake = client::Handshake::new(client::Goal::Go, "db", ReplyStyle::Structured);
    assert_eq!(
        ask(&mut handshake, GREETING, &[CLIENT_FLAGS, ASK_STRUCTURED]),
        client::Step::NeedMore
    );
    assert_eq!(ask(&mut handshake, ACK_STRUCTURED, &[ASK_GO]), client::Step::NeedMore);
    let client::Step::Ready(negotiated) = ask(&mut handshake, ANSWER_GO, &[]) else {
        panic!("not ready")
    };
    assert_eq!(negotiated.size, 0x0102_0304_0506);
    assert_eq!(negotiated.flags.bits(), 0x018d);
    let sizes = BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum_payload: 32 << 20,
    };
    assert_eq!(negotiated.block_sizes, Some(sizes));
    assert_eq!(
        (negotiated.name.as_deref(), negotiated.description.as_deref()),
        (Some("db"), Some("disk"))
    );
}

#[test]
fn the_clients_list() {
    let mut handshake = client::Handshake::new(client::Goal::List, "", ReplyStyle::Structured);
    ask(&mut handshake, GREETING, &[CLIENT_FLAGS, ASK_LIST]);
    let expected = vec![("db".into(), "disk".into()), ("log".into(), String::new())];
    assert_eq!(
        ask(&mut handshake, ANSWER_LIST, &[ASK_ABORT]),
        client::Step::Listed(expected)
    );
}

#[test]
fn the_clients_fall_back_to_export_name() {
    let mut handshake = client::Handshake::new(client::Goal::Go, "db", ReplyStyle::Simple);
    ask(&mut handshake, GREETING, &[CLIENT_FLAGS, ASK_GO]);
    let unsupported = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x80\x00\x00\x01\x00\x00\x00\x00";
    ask(&mut handshake, unsupported, &[ASK_EXPORT_NAME]);
    assert!(matches!(
        ask(&mut handshake, ANSWER_EXPORT_NAME, &[]),
        client::Step::Ready(_)
    ));
}

#[test]
fn requests() {
    let request = Request::new(
        Command::WriteZeroes {
            fua: true,
            no_hole: true,
            fast: true,
        },
        0x1122_3344_5566_7788,
        1 << 40,
        4096,
    );
    let bytes = b"\x25\x60\x95\x13\x00\x13\x00\x06\x11\x22\x33\x44\x55\x66\x77\x88\
        \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x10\x00";
    assert_eq!(&request.encode(), bytes);
    assert_eq!(Request::decode(bytes), Ok(request));
    let codes: Vec<(u16, CommandFlags)> = [
        Command::Read { df: true },
        Command::Write { fua: true },
        Command::Disconnect,
        Command::Flush,
        Command::Trim { fua: false },
        Command::Cache,
        Command::BlockStatus { one: true },
    ]
    .map(|command| (command.code(), command.flags()))
    .into();
    let none = CommandFlags::empty();
    assert_eq!(
        codes,
        [
            (0, CommandFlags::DF),
            (1, CommandFlags::FUA),
            (2, none),
            (3, none),
            (4, none),
            (5, none),
            (7, CommandFlags::REQ_ONE),
        ]
    );
}

#[test]
fn replies() {
    let cookie = 0x1122_3344_5566_7788;
    assert_eq!(
        &simple_reply(cookie, None),
        b"\x67\x44\x66\x98\x00\x00\x00\x00\x11\x22\x33\x44\x55\x66\x77\x88"
    );
    assert_eq!(
        &simple_reply(cookie, Some(NbdError::Shutdown)),
        b"\x67\x44\x66\x98\x00\x00\x00\x6c\x11\x22\x33\x44\x55\x66\x77\x88"
    );
    assert_eq!(
        *ReplyTo::structured(cookie).none(),
        *b"\x66\x8e\x33\xef\x00\x01\x00\x00\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x00"
    );
    assert_eq!(
        *ReplyTo::structured(cookie).offset_data(ReplyFlags::DONE, 0x2000, 0x1000),
        *b"\x66\x8e\x33\xef\x00\x01\x00\x01\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x10\x08\
        \x00\x00\x00\x00\x00\x00\x20\x00"
    );
    assert_eq!(
        *ReplyTo::structured(cookie).hole(ReplyFlags::empty(), 0x2000, 0x1000),
        *b"\x66\x8e\x33\xef\x00\x00\x00\x02\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x0c\
        \x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x10\x00"
    );
    assert_eq!(
        ReplyTo::structured(cookie).error(NbdError::Invalid, "no", None),
        b"\x66\x8e\x33\xef\x00\x01\x80\x01\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x08\
        \x00\x00\x00\x16\x00\x02no"
    );
    assert_eq!(
        ReplyTo::structured(cookie).error(NbdError::Io, "bad sector", Some(0x2200)),
        b"\x66\x8e\x33\xef\x00\x01\x80\x02\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x18\
        \x00\x00\x00\x05\x00\x0abad sector\x00\x00\x00\x00\x00\x00\x22\x00"
    );
}

#[test]
fn the_servers_starttls() {
    let mut handshake = server::Handshake::new(server::TlsMode::Allow);
    serve(&mut handshake, CLIENT_FLAGS, b"");
    let ack = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x05\x00\x00\x00\x01\x00\x00\x00\x00";
    let ask = b"IHAVEOPT\x00\x00\x00\x05\x00\x00\x00\x00";
    assert_eq!(serve(&mut handshake, ask, ack), server::Step::StartTls);
    handshake.secured();
    assert_eq!(serve(&mut handshake, ASK_ABORT, ACK_ABORT), server::Step::Aborted);
}

#[test]
fn the_servers_contexts() {
    let mut handshake = server::Handshake::default();
    serve(&mut handshake, CLIENT_FLAGS, b"");
    let ask = b"IHAVEOPT\x00\x00\x00\x0b\x00\x00\x00\x00";
    let ack = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x00";
    serve(&mut handshake, ask, ack);
    let query = nbd_proto::ContextQuery {
        export: "db".into(),
        queries: vec!["base:allocation".into()],
    };
    let data = b"\x00\x00\x00\x02db\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation";
    assert_eq!(query.encode(), data);
    let ask = [b"IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x1d".as_slice(), data].concat();
    let answer = b"\
        \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0a\x00\x00\x00\x04\x00\x00\x00\x13\
        \x00\x00\x00\x01base:allocation\
        \x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00";
    assert_eq!(serve(&mut handshake, &ask, answer), server::Step::NeedMore);
}
