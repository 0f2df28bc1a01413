#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contexts;
mod hostile;
mod mask;
mod tls;
mod upgrade;

use alloc::borrow::ToOwned;
use alloc::vec;

use super::*;
use crate::constants::OPTION_REPLY_MAGIC;
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::info::Info;
use crate::option::{length_of, put_option};

/// One default export "db", one other, and a switch.
#[derive(Default)]
struct Shelf {
    shutting_down: bool,
    /// Why nobody may begin.
    closed: Option<&'static str>,
    /// "db" is served inside TLS only, and nobody outside learns what there is.
    needs_tls: bool,
}

impl Exports for Shelf {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        matches!(name, "" | "db").then(|| ExportInfo {
            name: "db".to_owned(),
            description: "the database".to_owned(),
            size: 10 << 20,
            flags: TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_DF | TransmissionFlags::SEND_FAST_ZERO,
            block_sizes: BlockSizes::default(),
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![
            ("db".to_owned(), "the database".to_owned()),
            ("log".to_owned(), String::new()),
        ]
    }

    fn admit(&self, export: &ExportInfo) -> Result<(), String> {
        assert_eq!(export.name, "db");
        self.closed.map_or(Ok(()), |text| Err(text.to_owned()))
    }

    fn requires_tls(&self, name: &str) -> bool {
        self.needs_tls && name != "log"
    }

    fn contexts(&self, export: &str) -> Vec<String> {
        assert_eq!(export, "db");
        [
            "base:allocation",
            "x-a:dirty/bravo",
            "x-a:dirty/charlie",
            "qemu:dirty-bitmap:bravo",
        ]
        .map(ToOwned::to_owned)
        .into()
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }
}

/// A client that sends whatever it likes.
struct Rogue {
    handshake: Handshake,
    exports: Shelf,
}

type Reply = (OptionCode, ReplyType, Vec<u8>);

impl Rogue {
    /// After flags of a well-behaved client.
    fn new() -> Self {
        Self::with_tls(TlsMode::Off)
    }

    fn with_tls(tls: TlsMode) -> Self {
        let mut rogue = Self {
            handshake: Handshake::new(tls),
            exports: Shelf::default(),
        };
        let flags = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        let (step, replies) = rogue.send(&flags.bits().to_be_bytes());
        assert_eq!((step, replies), (Step::NeedMore, vec![]));
        rogue
    }

    /// Asks for chunks of this kind.
    fn agree(&mut self, option: OptionCode) {
        let (step, replies) = self.option(option, &[]);
        assert_eq!(
            (step, replies),
            (Step::NeedMore, vec![(option, ReplyType::Ack, vec![])])
        );
    }

    /// GO for the default export, which works.
    fn go(&mut self) -> Negotiated {
        match self.option(OptionCode::Go, &[0; 6]).0 {
            Step::Ready(negotiated) => negotiated,
            other => panic!("not ready: {other:?}"),
        }
    }

    /// All of `bytes` in one piece; the raw output with the last step.
    fn send_raw(&mut self, bytes: &[u8]) -> (Step, Vec<u8>) {
        let mut output = Vec::new();
        let (consumed, step) = self.handshake.handle(bytes, &self.exports, &mut output);
        assert_eq!(consumed, bytes.len(), "everything is consumed: {step:?}");
        (step, output)
    }

    fn send(&mut self, bytes: &[u8]) -> (Step, Vec<Reply>) {
        let (step, output) = self.send_raw(bytes);
        (step, replies(&output))
    }

    fn option(&mut self, option: OptionCode, data: &[u8]) -> (Step, Vec<Reply>) {
        self.send(&option_bytes(option, data))
    }

    /// The only reply to an option after which the handshake goes on.
    fn refused(&mut self, option: OptionCode, data: &[u8]) -> OptionError {
        let (step, mut replies) = self.option(option, data);
        assert_eq!(step, Step::NeedMore);
        assert_eq!(replies.len(), 1, "{replies:?}");
        let (of, reply, text) = replies.remove(0);
        assert_eq!(of, option);
        assert!(
            !text.is_empty() && core::str::from_utf8(&text).is_ok(),
            "a refusal says why"
        );
        match reply {
            ReplyType::Error(error) => error,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Shows that the stream is still in step.
    fn assert_in_step(&mut self) {
        let (step, replies) = self.option(OptionCode::List, &[]);
        assert_eq!((step, replies.len()), (Step::NeedMore, 3));
    }
}

fn option_bytes(option: OptionCode, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_option(&mut bytes, option, data);
    bytes
}

fn replies(output: &[u8]) -> Vec<Reply> {
    let mut reader = Reader::new(output);
    let mut replies = Vec::new();
    while !reader.is_empty() {
        assert_eq!(reader.u64().unwrap(), OPTION_REPLY_MAGIC);
        let option = OptionCode::from_wire(reader.u32().unwrap());
        let reply = ReplyType::from_wire(reader.u32().unwrap());
        let length = reader.u32().unwrap() as usize;
        replies.push((option, reply, reader.take(length).unwrap().to_owned()));
    }
    replies
}

fn info_data(name: &[u8], asked: &[u16]) -> Vec<u8> {
    let mut data = length_of(name).to_be_bytes().to_vec();
    data.extend_from_slice(name);
    data.extend_from_slice(&(asked.len() as u16).to_be_bytes());
    asked
        .iter()
        .for_each(|info| data.extend_from_slice(&info.to_be_bytes()));
    data
}

fn infos(replies: &[Reply]) -> Vec<Info> {
    replies
        .iter()
        .filter(|(_, reply, _)| *reply == ReplyType::Info)
        .map(|(_, _, data)| Info::decode(data).unwrap())
        .collect()
}

#[test]
fn nothing_is_consumed_after_the_end() {
    let mut rogue = Rogue::new();
    rogue.option(OptionCode::Abort, &[]);
    let mut output = Vec::new();
    let again = option_bytes(OptionCode::List, &[]);
    assert_eq!(
        rogue.handshake.handle(&again, &rogue.exports, &mut output),
        (0, Step::NeedMore)
    );
    assert!(output.is_empty());
}

#[test]
fn what_follows_go_is_left_for_the_transmission_phase() {
    let mut bytes = option_bytes(OptionCode::Go, &info_data(b"db", &[]));
    let length = bytes.len();
    bytes.extend_from_slice(&[7; 28]);
    let mut rogue = Rogue::new();
    let (consumed, step) = rogue.handshake.handle(&bytes, &rogue.exports, &mut Vec::new());
    assert_eq!(consumed, length);
    assert!(matches!(step, Step::Ready(_)));
}

#[test]
fn abort_is_acknowledged_whatever_it_carries() {
    for data in [b"".as_slice(), b"bye"] {
        let (step, replies) = Rogue::new().option(OptionCode::Abort, data);
        assert_eq!(step, Step::Aborted);
        assert_eq!(replies, vec![(OptionCode::Abort, ReplyType::Ack, vec![])]);
    }
}

#[test]
fn info_and_go_tell_the_same_and_what_was_asked() {
    let mut rogue = Rogue::new();
    let data = info_data(b"", &[3, 77, 2, 1]);
    let (step, info) = rogue.option(OptionCode::Info, &data);
    assert_eq!(step, Step::NeedMore);
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
    let expected = vec![
        Info::Export { size: 10 << 20, flags },
        Info::Name("db".to_owned()),
        Info::Description("the database".to_owned()),
        Info::BlockSize(BlockSizes::default()),
    ];
    assert_eq!(infos(&info), expected);
    let (step, go) = rogue.option(OptionCode::Go, &data);
    assert_eq!(infos(&go), expected);
    assert_eq!(go.last().unwrap(), &(OptionCode::Go, ReplyType::Ack, vec![]));
    let Step::Ready(negotiated) = step else {
        panic!("{step:?}")
    };
    assert_eq!(negotiated.export.flags, flags);
    assert!(negotiated.block_sizes_known && !negotiated.replies.has_chunks());
}

#[test]
fn go_without_requests_tells_size_and_flags_only() {
    let (step, replies) = Rogue::new().option(OptionCode::Go, &info_data(b"db", &[]));
    assert_eq!(replies.len(), 2);
    assert!(matches!(
        step,
        Step::Ready(Negotiated {
            block_sizes_known: false,
            ..
        })
    ));
}

#[test]
fn df_is_advertised_with_structured_replies_only() {
    let mut rogue = Rogue::new();
    for _ in 0..2 {
        let (_, replies) = rogue.option(OptionCode::StructuredReply, &[]);
        assert_eq!(replies, vec![(OptionCode::StructuredReply, ReplyType::Ack, vec![])]);
    }
    let (step, _) = rogue.option(OptionCode::Go, &info_data(b"db", &[]));
    let Step::Ready(negotiated) = step else {
        panic!("{step:?}")
    };
    assert_eq!(negotiated.replies, ReplyStyle::Structured);
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_DF;
    assert_eq!(negotiated.export.flags, flags);
}

#[test]
fn export_name_has_no_header_and_honours_no_zeroes() {
    for (flags, length) in [(1_u32, 134), (3, 10)] {
        let mut rogue = Rogue {
            handshake: Handshake::new(TlsMode::Off),
            exports: Shelf::default(),
        };
        rogue.send(&flags.to_be_bytes());
        let (step, output) = rogue.send_raw(&option_bytes(OptionCode::ExportName, b"db"));
        assert!(matches!(step, Step::Ready(_)));
        assert_eq!(output.len(), length);
        assert_eq!(output[..10], [0, 0, 0, 0, 0, 0xa0, 0, 0, 0, 5]);
        assert!(output[10..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_server_that_shuts_down_says_so_and_still_takes_abort() {
    let mut rogue = Rogue::new();
    rogue.exports.shutting_down = true;
    for option in [
        OptionCode::List,
        OptionCode::Go,
        OptionCode::StructuredReply,
        OptionCode::Other(99),
    ] {
        assert_eq!(rogue.refused(option, b"data"), OptionError::Shutdown);
    }
    assert_eq!(rogue.option(OptionCode::Abort, &[]).0, Step::Aborted);
    let mut rogue = Rogue::new();
    rogue.exports.shutting_down = true;
    let (step, _) = rogue.send_raw(&option_bytes(OptionCode::ExportName, &[]));
    assert_eq!(step, Step::Failed(PeerMisbehaved::ExportNameAtShutdown));
}
