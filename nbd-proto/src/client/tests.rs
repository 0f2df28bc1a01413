#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
mod styles;
mod tls;

use alloc::vec;

use super::*;
use crate::constants::{
    GREETING_MAGIC, MAX_CONTEXTS, MAX_INFO_REPLIES, MAX_INFO_REPLY, MAX_LISTED_CONTEXTS, MAX_LISTED_EXPORTS,
    MAX_STRING, OLDSTYLE_MAGIC, OPTION_MAGIC,
};
use crate::info::Info;
use crate::option::{OptionError, put_reply};

/// A server that sends whatever it likes, once the client has sent its first options.
struct Rogue {
    handshake: Handshake,
    /// What the client sent last.
    sent: Vec<u8>,
}

impl Rogue {
    fn greeting(flags: u16) -> Vec<u8> {
        let mut bytes = GREETING_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes
    }

    /// After a proper greeting, the client waiting for the answer to its goal's option.
    fn new(goal: Goal) -> Self {
        let mut rogue = Self {
            handshake: Handshake::new(goal, "db", ReplyStyle::Simple),
            sent: vec![],
        };
        assert_eq!(rogue.send(&Self::greeting(3)), Ok(Step::NeedMore));
        rogue
    }

    fn send(&mut self, bytes: &[u8]) -> Result<Step, HandshakeError> {
        self.sent.clear();
        let (consumed, step) = self.handshake.handle(bytes, &mut self.sent)?;
        assert_eq!(consumed, bytes.len());
        Ok(step)
    }

    fn reply(&mut self, option: OptionCode, reply: ReplyType, data: &[u8]) -> Result<Step, HandshakeError> {
        let mut bytes = Vec::new();
        put_reply(&mut bytes, option, reply, data);
        self.send(&bytes)
    }

    fn info(&mut self, info: &Info) -> Result<Step, HandshakeError> {
        self.reply(OptionCode::Go, ReplyType::Info, &info.encode())
    }

    fn ack(&mut self) -> Result<Step, HandshakeError> {
        self.reply(OptionCode::Go, ReplyType::Ack, &[])
    }

    /// The options the client sent last.
    fn asked(&self) -> Vec<(OptionCode, Vec<u8>)> {
        let mut reader = Reader::new(&self.sent);
        let mut asked = Vec::new();
        while !reader.is_empty() {
            assert_eq!(reader.u64().unwrap(), OPTION_MAGIC);
            let option = OptionCode::from_wire(reader.u32().unwrap());
            let length = reader.u32().unwrap() as usize;
            asked.push((option, reader.take(length).unwrap().to_owned()));
        }
        asked
    }
}

fn misbehaved(fault: PeerMisbehaved) -> Result<Step, HandshakeError> {
    Err(HandshakeError::Misbehaved(fault))
}

fn export() -> Info {
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_DF | TransmissionFlags::SEND_FAST_ZERO;
    Info::Export { size: 1 << 20, flags }
}

#[test]
fn unknown_handshake_flags_are_ignored_and_not_echoed() {
    let mut rogue = Rogue {
        handshake: Handshake::new(Goal::Go, "db", ReplyStyle::Structured),
        sent: vec![],
    };
    rogue.send(&Rogue::greeting(0xfff3)).unwrap();
    assert_eq!(rogue.sent[..4], [0, 0, 0, 3]);
}

#[test]
fn an_upgrade_is_asked_for_granted_and_refused() {
    let asking = || {
        let mut rogue = Rogue {
            handshake: Handshake::upgrade(b"hello".to_vec()),
            sent: vec![],
        };
        assert_eq!(rogue.send(&Rogue::greeting(3)), Ok(Step::NeedMore));
        rogue.sent.drain(..4);
        assert_eq!(rogue.asked(), [(OptionCode::Upgrade, b"hello".to_vec())]);
        rogue
    };
    let granted = asking().reply(OptionCode::Upgrade, ReplyType::Upgrade, b"yes");
    assert_eq!(granted, Ok(Step::Upgraded(b"yes".to_vec())));
    let mut refused = asking();
    let error = OptionError::Unsupported;
    let refusal = refused.reply(OptionCode::Upgrade, ReplyType::Error(error), b"no");
    let message = "no".to_owned();
    let option = OptionCode::Upgrade;
    assert_eq!(refusal, Err(HandshakeError::Refused { option, error, message }));
    assert_eq!(refused.asked(), [(OptionCode::Abort, vec![])]);
    for reply in [ReplyType::Ack, ReplyType::Info, ReplyType::Server] {
        let code = reply.to_wire();
        let fault = PeerMisbehaved::UnexpectedReplyType { option, reply: code };
        assert_eq!(asking().reply(option, reply, b""), misbehaved(fault));
    }
    let fault = PeerMisbehaved::UnexpectedReplyType {
        option: OptionCode::Go,
        reply: ReplyType::Upgrade.to_wire(),
    };
    let unasked = Rogue::new(Goal::Go).reply(OptionCode::Go, ReplyType::Upgrade, b"");
    assert_eq!(unasked, misbehaved(fault));
    let mut old = Rogue {
        handshake: Handshake::upgrade(vec![]),
        sent: vec![],
    };
    let fault = PeerMisbehaved::NotFixedNewstyle(option);
    assert_eq!(old.send(&Rogue::greeting(0)), misbehaved(fault));
}

#[test]
fn no_zeroes_is_taken_only_when_offered() {
    let mut rogue = Rogue {
        handshake: Handshake::new(Goal::Go, "db", ReplyStyle::Simple),
        sent: vec![],
    };
    rogue.send(&Rogue::greeting(1)).unwrap();
    assert_eq!(rogue.sent[..4], [0, 0, 0, 1]);
}

#[test]
fn a_server_without_fixed_newstyle_is_asked_by_name_or_not_at_all() {
    let mut rogue = Rogue {
        handshake: Handshake::new(Goal::Go, "db", ReplyStyle::Structured),
        sent: vec![],
    };
    rogue.send(&Rogue::greeting(0)).unwrap();
    assert_eq!(rogue.sent[..4], [0; 4]);
    rogue.sent.drain(..4);
    assert_eq!(rogue.asked(), vec![(OptionCode::ExportName, b"db".to_vec())]);
    let mut handshake = Handshake::new(Goal::List, "", ReplyStyle::Simple);
    let error = handshake.handle(&Rogue::greeting(2), &mut vec![]).unwrap_err();
    assert_eq!(error, PeerMisbehaved::NotFixedNewstyle(OptionCode::List).into());
}

#[test]
fn names_that_cannot_be_asked_for_are_the_callers_fault() {
    for name in ["n".repeat(MAX_STRING + 1), "a\0b".to_owned()] {
        let mut handshake = Handshake::new(Goal::Go, &name, ReplyStyle::Simple);
        let error = handshake.handle(&Rogue::greeting(3), &mut vec![]).unwrap_err();
        assert_eq!(error, HandshakeError::BadExportName { length: name.len() });
    }
}

#[test]
fn go_unsupported_falls_back_to_export_name() {
    for (flags, padding) in [(1, 124), (3, 0)] {
        let mut rogue = Rogue {
            handshake: Handshake::new(Goal::Go, "db", ReplyStyle::Simple),
            sent: vec![],
        };
        rogue.send(&Rogue::greeting(flags)).unwrap();
        // What GO told before it was refused does not count.
        rogue.info(&Info::BlockSize(BlockSizes::default())).unwrap();
        rogue
            .reply(OptionCode::Go, ReplyType::Error(OptionError::Unsupported), b"")
            .unwrap();
        assert_eq!(rogue.asked(), vec![(OptionCode::ExportName, b"db".to_vec())]);
        assert_eq!(
            rogue.handshake.closed(),
            HandshakeError::ClosedAtExportName {
                export: "db".to_owned()
            }
        );
        let mut answer = 4096_u64.to_be_bytes().to_vec();
        answer.extend_from_slice(&5_u16.to_be_bytes());
        answer.extend_from_slice(&vec![0; padding]);
        let Ok(Step::Ready(negotiated)) = rogue.send(&answer) else {
            panic!("not ready")
        };
        assert_eq!((negotiated.size, negotiated.block_sizes), (4096, None));
        assert_eq!(
            negotiated.flags,
            TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH
        );
    }
}

#[test]
fn other_refusals_are_told_and_answered_with_abort() {
    for error in [
        OptionError::UnknownExport,
        OptionError::TlsRequired,
        OptionError::Shutdown,
    ] {
        let mut rogue = Rogue::new(Goal::Go);
        let refusal = rogue
            .reply(OptionCode::Go, ReplyType::Error(error), b"because")
            .unwrap_err();
        assert_eq!(
            refusal,
            HandshakeError::Refused {
                option: OptionCode::Go,
                error,
                message: "because".to_owned()
            }
        );
        assert!(alloc::format!("{refusal}").contains("(because)"));
        assert_eq!(rogue.asked(), vec![(OptionCode::Abort, vec![])]);
        assert_eq!(rogue.send(b""), Ok(Step::NeedMore));
    }
}

#[test]
fn information_comes_in_any_order_and_the_unknown_is_ignored() {
    let mut rogue = Rogue::new(Goal::Go);
    let sizes = BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum_payload: 1 << 20,
    };
    rogue.info(&Info::Unknown(9000)).unwrap();
    rogue.info(&Info::BlockSize(sizes)).unwrap();
    rogue.info(&Info::Description("disk".to_owned())).unwrap();
    rogue.info(&Info::Name("db".to_owned())).unwrap();
    rogue.info(&export()).unwrap();
    let Ok(Step::Ready(negotiated)) = rogue.ack() else {
        panic!("not ready")
    };
    assert_eq!(negotiated.block_sizes, Some(sizes));
    assert_eq!(
        (negotiated.name.as_deref(), negotiated.description.as_deref()),
        (Some("db"), Some("disk"))
    );
    assert!(rogue.sent.is_empty(), "after GO nothing more is said");
}

fn listed(name_length: u32, rest: &[u8]) -> Vec<u8> {
    let mut data = name_length.to_be_bytes().to_vec();
    data.extend_from_slice(rest);
    data
}

#[test]
fn a_list_is_read_and_ended_with_abort() {
    let mut rogue = Rogue::new(Goal::List);
    assert_eq!(
        rogue.handshake.closed(),
        HandshakeError::ClosedAtOption(OptionCode::List)
    );
    rogue
        .reply(OptionCode::List, ReplyType::Server, &listed(2, b"dbthe database"))
        .unwrap();
    rogue
        .reply(OptionCode::List, ReplyType::Server, &listed(0, b""))
        .unwrap();
    let step = rogue.reply(OptionCode::List, ReplyType::Ack, &[]);
    let expected = vec![
        ("db".to_owned(), "the database".to_owned()),
        (String::new(), String::new()),
    ];
    assert_eq!(step, Ok(Step::Listed(expected)));
    assert_eq!(rogue.asked(), vec![(OptionCode::Abort, vec![])]);
}
