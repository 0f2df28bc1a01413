//! One function per decoder: takes any bytes, and panics if the decoder does what it must never do.
//!
//! The fuzz targets in `fuzz/` and the property tests in `tests/properties.rs` run the same functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nbd_proto::constants::{EXTENDED_REQUEST_MAGIC, MAX_STRING, REPLY_BYTES_PER_CALL, REQUEST_MAGIC};
use nbd_proto::reply::{self, ReplyHeader};
use nbd_proto::{
    BlockSizes, ChunkKind, Command, CommandFlags, Context, ErrorChunk, ExportInfo, NbdError, OptionError,
    PeerMisbehaved, ReplyStyle, ReplyTo, Request, TransmissionFlags, client, has_filter, server, validate,
    validate_filtered,
};

/// Two exports with everything on, and a default one.
pub struct Shelf;

impl server::Exports for Shelf {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        matches!(name, "" | "a" | "db").then(|| export(TransmissionFlags::all(), 1 << 30, BlockSizes::default()))
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![("a".into(), "first".into()), ("db".into(), String::new())]
    }

    fn contexts(&self, _export: &str) -> Vec<String> {
        vec!["base:allocation".into(), "x-test:a".into()]
    }

    fn upgrade(&self, hello: &[u8]) -> Result<Vec<u8>, (OptionError, String)> {
        match hello.len() {
            0 => Err((OptionError::Invalid, "nothing said".into())),
            length => Ok(vec![0; length]),
        }
    }
}

/// An export named `db`.
pub fn export(flags: TransmissionFlags, size: u64, block_sizes: BlockSizes) -> ExportInfo {
    ExportInfo {
        name: "db".into(),
        description: "disk".into(),
        size,
        flags,
        block_sizes,
    }
}

/// The server's handshake: the same bytes must come to the same end in any pieces, with bounded replies.
pub fn server_handshake(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let whole = serve_in_pieces(stream, stream.len().max(1));
    let pieces = serve_in_pieces(stream, usize::from(*cut) + 1);
    assert_eq!(whole, pieces, "the pieces make no difference");
    if let (_, _, server::Step::Ready(negotiated)) = whole {
        let flags = negotiated.export.flags;
        assert!(flags.contains(TransmissionFlags::HAS_FLAGS));
        assert_eq!(
            flags.contains(TransmissionFlags::SEND_DF),
            negotiated.replies.has_chunks()
        );
    }
}

/// Consumed bytes, replies, and the last step.
pub fn serve_in_pieces(stream: &[u8], piece: usize) -> (usize, Vec<u8>, server::Step) {
    let mut handshake = server::Handshake::default();
    let mut output = Vec::new();
    let mut consumed = 0;
    for piece in stream.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let before = output.len();
            let (taken, step) = handshake.handle(rest, &Shelf, &mut output);
            assert!(
                output.len() - before < REPLY_BYTES_PER_CALL + 3 * MAX_STRING,
                "replies are bounded"
            );
            consumed += taken;
            rest = &rest[taken..];
            if step != server::Step::NeedMore {
                return (consumed, output, step);
            }
            assert!(taken > 0, "some byte is consumed as long as the handshake goes on");
        }
    }
    (consumed, output, server::Step::NeedMore)
}

type Asked = (usize, Vec<u8>, Result<client::Step, client::HandshakeError>);

/// The client's handshake: the same bytes must come to the same end in any pieces, with bounded memory.
pub fn client_handshake(data: &[u8]) {
    let [goal, cut, stream @ ..] = data else { return };
    let whole = ask_in_pieces(*goal, stream, stream.len().max(1));
    let pieces = ask_in_pieces(*goal, stream, usize::from(*cut) + 1);
    assert_eq!(whole.1, pieces.1, "the pieces make no difference");
    assert_eq!(whole.2, pieces.2, "the pieces make no difference");
    if let Ok(client::Step::Ready(negotiated)) = &whole.2 {
        assert_eq!(whole.0, pieces.0);
        assert!(negotiated.flags.contains(TransmissionFlags::HAS_FLAGS));
        let has_chunks = negotiated.replies.has_chunks();
        assert!(has_chunks || negotiated.contexts.is_empty());
        assert!(has_chunks || !negotiated.flags.contains(TransmissionFlags::SEND_DF));
        assert!(
            negotiated
                .block_sizes
                .is_none_or(|sizes| sizes.are_valid(negotiated.size))
        );
    }
}

/// Consumed bytes, what was sent, and the last step or error.
///
/// TLS is taken as done when it is asked for.
pub fn ask_in_pieces(shape: u8, stream: &[u8], piece: usize) -> Asked {
    let mut handshake = wishes(shape);
    let mut output = Vec::new();
    let mut consumed = 0;
    for piece in stream.chunks(piece) {
        match handshake.handle(piece, &mut output) {
            Ok((taken, client::Step::NeedMore)) => {
                assert_eq!(taken, piece.len(), "nothing is left over while more is needed");
                consumed += taken;
            }
            Ok((taken, client::Step::StartTls)) => {
                assert_eq!(
                    taken,
                    piece.len(),
                    "what comes behind the answer in the clear is refused"
                );
                consumed += taken;
                handshake.secured(&mut output);
            }
            Ok((taken, step)) => return (consumed + taken, output, Ok(step)),
            Err(error) => return (consumed, output, Err(error)),
        }
    }
    (consumed, output, Ok(client::Step::NeedMore))
}

/// Goal, style, contexts and TLS, by the bits of `shape`.
fn wishes(shape: u8) -> client::Handshake {
    let goal = match shape & 7 {
        3 => client::Goal::List,
        2 => client::Goal::Info,
        4 => client::Goal::Contexts,
        7 => return client::Handshake::upgrade(b"hello".to_vec()),
        _ => client::Goal::Go,
    };
    let style = match shape >> 3 & 3 {
        0 => ReplyStyle::Simple,
        1 => ReplyStyle::Structured,
        _ => ReplyStyle::Extended,
    };
    let contexts: &[&str] = if shape & 32 != 0 {
        &["base:allocation", "x:y"]
    } else {
        &[]
    };
    let handshake = client::Handshake::new(goal, "db", style).selecting(contexts, shape & 64 != 0);
    match shape & 128 {
        0 => handshake,
        _ => handshake.inside_tls(),
    }
}

/// Requests: what decodes encodes to the same bytes; what is valid is safe to carry out.
pub fn request(data: &[u8]) {
    let [flags_high, flags_low, shape, rest @ ..] = data else {
        return;
    };
    let style = match rest {
        [0x21, ..] => ReplyStyle::Extended,
        _ => ReplyStyle::Structured,
    };
    let request = match Request::read(style, rest) {
        Ok(Some(request)) => request,
        Ok(None) => return assert!(rest.len() < style.request_length()),
        Err(PeerMisbehaved::BadRequestMagic(magic)) => return assert_ne!(magic, REQUEST_MAGIC),
        Err(PeerMisbehaved::BadExtendedRequestMagic(magic)) => return assert_ne!(magic, EXTENDED_REQUEST_MAGIC),
        Err(other) => panic!("only the magic can be wrong: {other}"),
    };
    let (header, payload) = rest.split_at(style.request_length());
    match style {
        ReplyStyle::Extended => assert_eq!(request.encode_extended(), header),
        _ => assert_eq!(request.encode(), header),
    }
    let flags = TransmissionFlags::from_bits_retain(u16::from_be_bytes([*flags_high, *flags_low]));
    let block_sizes = BlockSizes {
        minimum: 1 << (shape & 15),
        preferred: 65_536,
        maximum_payload: 1 << 25,
    };
    let size = 1 << (shape >> 4 << 2);
    let negotiated = server::Negotiated {
        export: export(flags, size, block_sizes),
        replies: style,
        contexts: (3..6)
            .map(|id| Context {
                id,
                name: format!("x-test:{id}"),
            })
            .collect(),
        block_sizes_known: true,
    };
    match validate(&request, &negotiated) {
        Ok(command) => assert_safe(command, &request, &negotiated.export),
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
    if !has_filter(&request, &negotiated) {
        return;
    }
    if let Ok(filtered) = validate_filtered(&request, payload, &negotiated) {
        assert!(filtered.contexts > 0 && filtered.contexts < 1 << negotiated.contexts.len());
        let plain = Request {
            flags: request.flags.difference(CommandFlags::PAYLOAD_LEN),
            length: filtered.length,
            ..request
        };
        assert_safe(Command::BlockStatus { one: filtered.one }, &plain, &negotiated.export);
    }
}

/// What [`validate`] promises of a command it returns.
fn assert_safe(command: Command, request: &Request, export: &ExportInfo) {
    assert_eq!(command.code(), request.command);
    if command == Command::Disconnect {
        return;
    }
    assert!(request.flags.contains(command.flags()));
    assert!(!(command.mutates() && export.flags.contains(TransmissionFlags::READ_ONLY)));
    if command == Command::Flush {
        assert_eq!((request.offset, request.length), (0, 0));
        return;
    }
    let length = request.length;
    let minimum = u64::from(export.block_sizes.minimum);
    assert!(length > 0 && u128::from(request.offset) + u128::from(length) <= u128::from(export.size));
    assert!(request.offset.is_multiple_of(minimum) && length.is_multiple_of(minimum));
    if matches!(command, Command::Read { .. } | Command::Write { .. }) {
        assert!(length <= u64::from(export.block_sizes.maximum_payload));
    }
}

/// Replies: a stream of headers and payloads is walked to its end; what decodes encodes to the same bytes.
pub fn replies(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((header, length))) = ReplyHeader::decode(rest) {
        for shorter in 4..length {
            assert_eq!(
                ReplyHeader::decode(&rest[..shorter]),
                Ok(None),
                "a header is not complete early"
            );
        }
        let (encoded, payload) = rest.split_at(length);
        rest = match header {
            ReplyHeader::Simple { cookie, error } => {
                let again = reply::simple_reply(cookie, error);
                let known = error.is_none_or(|error| error != NbdError::Invalid);
                assert!(!known || again == encoded);
                payload
            }
            ReplyHeader::Chunk {
                flags,
                kind,
                cookie,
                length,
                offset,
            } => {
                let style = match offset {
                    Some(_) => ReplyStyle::Extended,
                    None => ReplyStyle::Structured,
                };
                let offset = offset.unwrap_or(0);
                let again = ReplyTo { style, cookie, offset }.chunk_header(flags, kind, length);
                assert_eq!(&*again, encoded);
                let length = usize::try_from(length).unwrap().min(payload.len());
                let (payload, rest) = payload.split_at(length);
                reply_payload(kind, payload);
                rest
            }
        };
    }
}

fn reply_payload(kind: ChunkKind, payload: &[u8]) {
    if kind.is_error() {
        if let Ok(error) = ErrorChunk::decode(kind, payload) {
            // A byte that is not UTF-8 becomes three.
            assert!(error.message.len() <= 3 * MAX_STRING);
        }
    } else if matches!(kind, ChunkKind::BlockStatus | ChunkKind::BlockStatusExt) {
        if let Ok((_, extents)) = reply::decode_status(kind, payload) {
            assert!(extents.len() * 8 <= payload.len() && extents.iter().all(|extent| extent.length > 0));
        }
    } else if let Some((hole, _)) = payload.split_first_chunk::<12>() {
        assert!(reply::decode_hole(hole).is_err() || hole[8..] != [0; 4]);
    }
}
