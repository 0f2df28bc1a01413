//! Properties over random input: round trips, both ends of the handshake against each other in arbitrary pieces, and
//! the bodies of the fuzz targets on streams that are nearly right.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod decoders;

use decoders::{Shelf, export};
use nbd_proto::reply::{self, ReplyHeader};
use nbd_proto::{
    BlockSizes, ChunkKind, Command, CommandFlags, Context, ContextQuery, ErrorChunk, NbdError, ReplyFlags, ReplyStyle,
    ReplyTo, Request, StatusFilter, client, server, validate,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Both ends talk over a wire that cuts at will; returns how each saw the end. TLS is taken as done when both ask for it.
fn negotiate(
    mut server: server::Handshake,
    mut client: client::Handshake,
    cuts: &[usize],
) -> (server::Step, Result<client::Step, client::HandshakeError>) {
    let (mut to_client, mut to_server) = (server.greeting().to_vec(), Vec::new());
    let (mut server_end, mut client_end) = (server::Step::NeedMore, Ok(client::Step::NeedMore));
    let mut cuts = cuts.iter().copied().cycle();
    while !to_client.is_empty() || !to_server.is_empty() {
        let piece = cuts.next().unwrap().min(to_client.len());
        if client_end == Ok(client::Step::NeedMore) && piece > 0 {
            client_end = client
                .handle(&to_client[..piece], &mut to_server)
                .map(|(consumed, step)| {
                    assert_eq!(consumed, piece);
                    step
                });
        }
        to_client.drain(..piece);
        let piece = cuts.next().unwrap().min(to_server.len());
        if server_end == server::Step::NeedMore && piece > 0 {
            let (consumed, step) = server.handle(&to_server[..piece], &Shelf, &mut to_client);
            assert_eq!(consumed, piece);
            server_end = step;
        }
        to_server.drain(..piece);
        if (&server_end, &client_end) == (&server::Step::StartTls, &Ok(client::Step::StartTls)) {
            server.secured();
            client.secured(&mut to_server);
            (server_end, client_end) = (server::Step::NeedMore, Ok(client::Step::NeedMore));
        }
    }
    (server_end, client_end)
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        any::<bool>().prop_map(|df| Command::Read { df }),
        any::<bool>().prop_map(|fua| Command::Write { fua }),
        any::<bool>().prop_map(|fua| Command::Trim { fua }),
        any::<(bool, bool, bool)>().prop_map(|(fua, no_hole, fast)| Command::WriteZeroes { fua, no_hole, fast }),
        Just(Command::Cache),
        any::<bool>().prop_map(|one| Command::BlockStatus { one }),
    ]
}

fn any_goal() -> impl Strategy<Value = client::Goal> {
    prop_oneof![
        Just(client::Goal::Go),
        Just(client::Goal::Info),
        Just(client::Goal::List),
        Just(client::Goal::Contexts)
    ]
}

fn any_style() -> impl Strategy<Value = ReplyStyle> {
    select(vec![ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended])
}

/// Pieces of a client's half of a handshake: mostly well-formed options, now and then rubbish.
fn client_stream() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![8 => select(vec![1_u32, 3, 6, 7, 8, 9, 10, 11]), 2 => 0_u32..16, 1 => any::<u32>()];
    let option = (code, option_data()).prop_map(|(option, data)| {
        let length = u32::try_from(data.len()).unwrap();
        [
            b"IHAVEOPT".as_slice(),
            &option.to_be_bytes(),
            &length.to_be_bytes(),
            &data,
        ]
        .concat()
    });
    let part = prop_oneof![20 => option, 1 => vec(any::<u8>(), 0..40)];
    (
        any::<u8>(),
        prop_oneof![9 => 0_u32..4, 1 => any::<u32>()],
        vec(part, 0..12),
    )
        .prop_map(|(cut, flags, parts)| [[cut].as_slice(), &flags.to_be_bytes(), &parts.concat()].concat())
}

fn option_data() -> impl Strategy<Value = Vec<u8>> {
    let request = (select(vec!["", "a", "db", "none"]), vec(0_u16..6, 0..6)).prop_map(|(name, infos)| {
        let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        data.extend_from_slice(name.as_bytes());
        data.extend_from_slice(&u16::try_from(infos.len()).unwrap().to_be_bytes());
        data.extend(infos.into_iter().flat_map(u16::to_be_bytes));
        data
    });
    let contexts = (
        select(vec!["", "a", "none"]),
        vec(select(vec!["base:", "base:allocation", "x-test:a", "y:", "z"]), 0..4),
    )
        .prop_map(|(export, queries)| {
            let queries = queries.into_iter().map(Into::into).collect();
            ContextQuery {
                export: export.into(),
                queries,
            }
            .encode()
        });
    prop_oneof![2 => Just(Vec::new()), 5 => request, 5 => contexts, 2 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 8190..8200)]
}

/// Pieces of a server's half of a handshake: mostly proper replies to one option, now and then to another.
fn server_stream() -> impl Strategy<Value = Vec<u8>> {
    let goals = select(vec![(0_u8, 7_u32), (0, 7), (4, 7), (2, 6), (3, 3)]);
    let replies = vec(
        (
            prop_oneof![30 => Just(None), 1 => (0_u32..12).prop_map(Some)],
            info_body(),
            listed_body(),
        ),
        0..8,
    );
    // The answer to EXPORT_NAME, for streams that come to it.
    let size_and_flags = [[1; 10].as_slice(), &[0; 130]].concat();
    let tail = prop_oneof![Just(size_and_flags), vec(any::<u8>(), 0..200)];
    (goals, any::<u8>(), select(vec![0_u16, 1, 3, 3, 3]), replies, tail).prop_map(
        |((goal, option), cut, flags, replies, tail)| {
            let mut stream = [[goal, cut].as_slice(), b"NBDMAGICIHAVEOPT", &flags.to_be_bytes()].concat();
            if goal & 4 != 0 {
                stream.extend(reply_bytes(8, 1, &[]));
            }
            for (other, info, listed) in replies {
                let (kind, data) = if option == 3 { listed } else { info };
                stream.extend(reply_bytes(other.unwrap_or(option), kind, &data));
            }
            stream.extend(tail);
            stream
        },
    )
}

fn reply_bytes(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let magic = nbd_proto::constants::OPTION_REPLY_MAGIC.to_be_bytes();
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [
        magic.as_slice(),
        &option.to_be_bytes(),
        &kind.to_be_bytes(),
        &length,
        data,
    ]
    .concat()
}

/// Type and data of a reply to GO or INFO.
fn info_body() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let export = any::<[u8; 10]>().prop_map(|mut fields| {
        fields[9] |= 1;
        (3, [[0, 0].as_slice(), &fields].concat())
    });
    let sizes = (0_u32..4, 9_u32..13, 20_u32..26).prop_map(|(minimum, preferred, maximum)| {
        let powers = [minimum, preferred, maximum].map(|power| (1_u32 << power).to_be_bytes());
        (3, [[0, 3].as_slice(), powers.as_flattened()].concat())
    });
    prop_oneof![4 => Just((1, vec![])), 8 => export, 3 => sizes, 2 => refusal_or_rubbish()]
}

/// Type and data of a reply to LIST.
fn listed_body() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let listed = "[a-z]{0,9}".prop_map(|name| (2, [[0, 0, 0, 3].as_slice(), b"abc", name.as_bytes()].concat()));
    prop_oneof![4 => Just((1, vec![])), 8 => listed, 2 => refusal_or_rubbish()]
}

fn refusal_or_rubbish() -> impl Strategy<Value = (u32, Vec<u8>)> {
    prop_oneof![
        (0x8000_0000_u32..0x8000_000b, vec(any::<u8>(), 0..9)),
        (0_u32..6, vec(any::<u8>(), 0..40))
    ]
}

proptest! {
    #[test]
    fn both_ends_agree_however_the_bytes_are_cut(
        goal in any_goal(), style in any_style(), inside_tls: bool, cuts in vec(1_usize..70, 2..20),
        wanted in prop::sample::subsequence(vec!["base:allocation", "x-test:a", "x-test:none"], 0..=3),
    ) {
        let client = client::Handshake::new(goal, "db", style).selecting(&wanted, false);
        let (client, tls) = match inside_tls {
            true => (client.inside_tls(), server::TlsMode::Require),
            false => (client, server::TlsMode::Allow),
        };
        let (server, client) = negotiate(server::Handshake::new(tls), client, &cuts);
        match (goal, server, client.unwrap()) {
            (client::Goal::Go, server::Step::Ready(served), client::Step::Ready(asked)) => {
                prop_assert_eq!(served.replies, style);
                prop_assert_eq!(asked.replies, style);
                prop_assert_eq!(&served.contexts, &asked.contexts);
                let names: Vec<&str> = asked.contexts.iter().map(|context| context.name.as_str()).collect();
                let there = wanted.iter().filter(|name| style.has_chunks() && **name != "x-test:none");
                prop_assert_eq!(names, there.copied().collect::<Vec<_>>());
                prop_assert_eq!(served.export.flags, asked.flags);
                prop_assert_eq!(served.export.size, asked.size);
                prop_assert_eq!(Some(served.export.block_sizes), asked.block_sizes);
                prop_assert_eq!(Some(served.export.name), asked.name);
                prop_assert_eq!(Some(served.export.description), asked.description);
            }
            (client::Goal::Info, server::Step::Aborted, client::Step::Ready(asked)) => {
                prop_assert_eq!(asked.size, 1 << 30);
            }
            (client::Goal::List, server::Step::Aborted, client::Step::Listed(names)) => {
                prop_assert_eq!(names, server::Exports::list(&Shelf));
            }
            (client::Goal::Contexts, server::Step::Aborted, client::Step::Contexts(names)) => {
                prop_assert_eq!(names, server::Exports::contexts(&Shelf, "db"));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn an_unknown_export_is_refused_softly(name in "[x-z]{1,20}", cuts in vec(1_usize..70, 2..20)) {
        let client = client::Handshake::new(client::Goal::Go, &name, ReplyStyle::Extended);
        let (server, client) = negotiate(server::Handshake::default(), client, &cuts);
        prop_assert_eq!(server, server::Step::Aborted);
        let refused = matches!(client, Err(client::HandshakeError::Refused { ref message, .. }) if message.contains(&name));
        prop_assert!(refused, "{:?}", client);
    }

    #[test]
    fn requests_survive_the_wire(flags: u16, command: u16, cookie: u64, offset: u64, length: u64) {
        let flags = CommandFlags::from_bits_retain(flags);
        let request = Request { flags, command, cookie, offset, length };
        prop_assert_eq!(Request::read(ReplyStyle::Extended, &request.encode_extended()), Ok(Some(request)));
        let request = Request { length: length >> 32, ..request };
        prop_assert_eq!(Request::read(ReplyStyle::Simple, &request.encode()), Ok(Some(request)));
    }

    #[test]
    fn a_command_inside_the_export_is_valid(
        command in any_command(), cookie: u64, block in 0_u64..1000, blocks in 1_u64..1000, extended: bool,
    ) {
        let flags = nbd_proto::TransmissionFlags::all().difference(nbd_proto::TransmissionFlags::READ_ONLY);
        let sizes = BlockSizes { minimum: 512, ..BlockSizes::default() };
        let replies = if extended { ReplyStyle::Extended } else { ReplyStyle::Structured };
        let contexts = vec![Context { id: 1, name: "base:allocation".into() }];
        let negotiated =
            server::Negotiated { export: export(flags, 2000 * 512, sizes), replies, contexts, block_sizes_known: true };
        let request = Request::new(command, cookie, block * 512, blocks * 512).in_style(replies);
        prop_assert_eq!(validate(&request, &negotiated), Ok(command));
    }

    #[test]
    fn replies_survive_the_wire(
        cookie: u64, echo: u64, offset: u64, length in 1_u32..1 << 26, code in 0_usize..8, text in ".{0,80}",
    ) {
        let error = NbdError::ALL[code];
        let decode = |bytes: &[u8]| ReplyHeader::decode(bytes).unwrap().unwrap().0;
        prop_assert_eq!(decode(&reply::simple_reply(cookie, None)), ReplyHeader::Simple { cookie, error: None });
        let failed = ReplyHeader::Simple { cookie, error: Some(error) };
        prop_assert_eq!(decode(&reply::simple_reply(cookie, Some(error))), failed);
        let flags = ReplyFlags::DONE;
        for (style, echo) in [(ReplyStyle::Structured, None), (ReplyStyle::Extended, Some(echo))] {
            let reply = ReplyTo { style, cookie, offset: echo.unwrap_or(7) };
            let data = reply.offset_data(flags, offset, length);
            let expected =
                ReplyHeader::Chunk { flags, kind: ChunkKind::OffsetData, cookie, length: length + 8, offset: echo };
            prop_assert_eq!(decode(&data), expected);
            prop_assert_eq!(reply::decode_offset(data.last_chunk().unwrap()), offset);
            let hole = reply.hole(flags, offset, length);
            prop_assert_eq!(reply::decode_hole(hole.last_chunk().unwrap()), Ok((offset, length)));
            for offset in [None, Some(offset)] {
                let chunk = reply.error(error, &text, offset);
                let kind = if offset.is_some() { ChunkKind::ErrorOffset } else { ChunkKind::Error };
                let header = style.chunk_header_length();
                let length = u32::try_from(chunk.len() - header).unwrap();
                prop_assert_eq!(decode(&chunk), ReplyHeader::Chunk { flags, kind, cookie, length, offset: echo });
                let expected = ErrorChunk { error, message: text.clone(), offset };
                prop_assert_eq!(ErrorChunk::decode(kind, &chunk[header..]), Ok(expected));
            }
        }
    }

    #[test]
    fn server_handshake_on_nearly_right_streams(stream in client_stream()) {
        decoders::server_handshake(&stream);
    }

    #[test]
    fn client_handshake_on_nearly_right_streams(stream in server_stream()) {
        decoders::client_handshake(&stream);
    }

    #[test]
    fn every_decoder_on_rubbish(data in vec(any::<u8>(), 0..300)) {
        decoders::server_handshake(&data);
        decoders::client_handshake(&data);
        decoders::request(&data);
        decoders::replies(&data);
    }

    #[test]
    fn request_on_likely_fields(
        advertised in prop_oneof![1 => any::<u16>(), 3 => Just(0x0dfd)],
        shape in prop_oneof![4 => 0x90_u8..0xff, 1 => any::<u8>()],
        command in 0_u16..9,
        bits in prop_oneof![2 => Just(0), 4 => 0_u16..6, 1 => 0_u16..64, 1 => Just(32)],
        filter in (any::<u64>(), vec(0_u32..8, 0..4)),
        offset in prop_oneof![4 => (0_u64..1 << 12).prop_map(|block| block << 16), 1 => any::<u64>()],
        length in prop_oneof![4 => (0_u64..600).prop_map(|blocks| blocks << 16), 1 => any::<u32>().prop_map(u64::from)],
    ) {
        let flags = CommandFlags::from_bits_retain(bits);
        let request = Request { flags, command, cookie: 1, offset, length };
        decoders::request(&[advertised.to_be_bytes().as_slice(), &[shape], &request.encode()].concat());
        decoders::request(&[advertised.to_be_bytes().as_slice(), &[shape], &request.encode_extended()].concat());
        let filter = StatusFilter { length: filter.0 >> 30 << 16, contexts: filter.1 }.encode();
        let request = Request { command: 7, flags: flags | CommandFlags::PAYLOAD_LEN, length: filter.len() as u64, ..request };
        decoders::request(&[0x1dfd_u16.to_be_bytes().as_slice(), &[shape], &request.encode_extended(), &filter].concat());
    }

    #[test]
    fn replies_on_nearly_right_streams(chunks in vec((0_u16..2, prop_oneof![0_u16..7, 0x8001_u16..0x8004], vec(any::<u8>(), 0..30)), 0..6)) {
        let stream = chunks.into_iter().fold(Vec::new(), |mut stream, (flags, kind, payload)| {
            stream.extend_from_slice(&nbd_proto::constants::CHUNK_MAGIC.to_be_bytes());
            stream.extend_from_slice(&flags.to_be_bytes());
            stream.extend_from_slice(&kind.to_be_bytes());
            stream.extend_from_slice(&7_u64.to_be_bytes());
            stream.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
            stream.extend_from_slice(&payload);
            stream
        });
        decoders::replies(&stream);
    }
}
