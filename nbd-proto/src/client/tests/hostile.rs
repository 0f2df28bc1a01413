//! Servers that break the rules, each rule once.

use alloc::vec;

use super::*;

#[test]
fn only_an_nbd_greeting_is_accepted() {
    let greet = |bytes: &[u8]| {
        let mut rogue = Rogue {
            handshake: Handshake::new(Goal::Go, "db", ReplyStyle::Structured),
            sent: vec![],
        };
        let result = rogue.send(bytes);
        assert!(rogue.sent.is_empty(), "nothing is said to what is no NBD server");
        result
    };
    let ssh = b"SSH-2.0-OpenSSH_9.";
    let first = u64::from_be_bytes(*b"SSH-2.0-");
    assert_eq!(greet(ssh), misbehaved(PeerMisbehaved::BadGreetingMagic(first)));
    let mut bytes = Rogue::greeting(3);
    bytes[15] = 0;
    assert_eq!(
        greet(&bytes),
        misbehaved(PeerMisbehaved::BadNewstyleMagic(0x4948_4156_454f_5000))
    );
    bytes[8..16].copy_from_slice(&OLDSTYLE_MAGIC.to_be_bytes());
    assert_eq!(greet(&bytes), misbehaved(PeerMisbehaved::OldstyleServer));
}

#[test]
fn replies_must_answer_what_was_asked() {
    let mut bytes = Vec::new();
    put_reply(&mut bytes, OptionCode::Go, ReplyType::Ack, &[]);
    bytes[0] = 0xff;
    let magic = crate::constants::OPTION_REPLY_MAGIC | 0xff << 56;
    assert_eq!(
        Rogue::new(Goal::Go).send(&bytes),
        misbehaved(PeerMisbehaved::BadOptionReplyMagic(magic))
    );
    assert_eq!(
        Rogue::new(Goal::Go).reply(OptionCode::Info, ReplyType::Ack, &[]),
        misbehaved(PeerMisbehaved::ReplyToOtherOption {
            expected: OptionCode::Go,
            got: OptionCode::Info
        })
    );
    for (goal, option, reply) in [
        (Goal::Go, OptionCode::Go, ReplyType::Server),
        (Goal::Go, OptionCode::Go, ReplyType::Unknown(4)),
        (Goal::List, OptionCode::List, ReplyType::Info),
    ] {
        let fault = PeerMisbehaved::UnexpectedReplyType {
            option,
            reply: reply.to_wire(),
        };
        assert_eq!(Rogue::new(goal).reply(option, reply, &[]), misbehaved(fault));
    }
}

#[test]
fn overlong_replies_are_refused_by_their_header() {
    for (goal, option, reply, limit) in [
        (
            Goal::Go,
            OptionCode::Go,
            ReplyType::Error(OptionError::Policy),
            MAX_STRING,
        ),
        (Goal::Go, OptionCode::Go, ReplyType::Info, MAX_INFO_REPLY),
        (Goal::List, OptionCode::List, ReplyType::Server, 4 + 2 * MAX_STRING),
    ] {
        let limit = limit as u32;
        for length in [limit + 1, u32::MAX] {
            let mut bytes = Vec::new();
            put_reply(&mut bytes, option, reply, &[]);
            bytes.truncate(16);
            bytes.extend_from_slice(&length.to_be_bytes());
            let fault = PeerMisbehaved::OptionReplyTooLong { option, length, limit };
            assert_eq!(Rogue::new(goal).send(&bytes), misbehaved(fault));
        }
    }
    let option = OptionCode::Go;
    let ack = Rogue::new(Goal::Go).reply(option, ReplyType::Ack, b"x");
    assert_eq!(ack, misbehaved(PeerMisbehaved::AckWithData { option, length: 1 }));
}

#[test]
fn information_is_checked() {
    assert_eq!(
        Rogue::new(Goal::Go).ack(),
        misbehaved(PeerMisbehaved::NoExportInfo(OptionCode::Go))
    );
    let mut rogue = Rogue::new(Goal::Go);
    let wrong = rogue.reply(OptionCode::Go, ReplyType::Info, &[0; 11]);
    assert_eq!(
        wrong,
        misbehaved(PeerMisbehaved::WrongInfoLength { info: 0, length: 11 })
    );
    let mut rogue = Rogue::new(Goal::Go);
    rogue
        .info(&Info::Export {
            size: 1,
            flags: TransmissionFlags::SEND_FLUSH,
        })
        .unwrap();
    assert_eq!(rogue.ack(), misbehaved(PeerMisbehaved::NoHasFlags(4)));
    let mut rogue = Rogue::new(Goal::Go);
    let (minimum, preferred, maximum_payload) = (3, 4096, 1 << 20);
    rogue
        .info(&Info::BlockSize(BlockSizes {
            minimum,
            preferred,
            maximum_payload,
        }))
        .unwrap();
    rogue.info(&export()).unwrap();
    assert_eq!(
        rogue.ack(),
        misbehaved(PeerMisbehaved::BadBlockSizes {
            minimum,
            preferred,
            maximum_payload
        })
    );
}

#[test]
fn information_without_end_is_ended() {
    let mut rogue = Rogue::new(Goal::Go);
    for _ in 0..MAX_INFO_REPLIES {
        rogue.info(&Info::Unknown(1234)).unwrap();
    }
    let fault = PeerMisbehaved::TooManyReplies(OptionCode::Go);
    assert_eq!(rogue.info(&Info::Unknown(1234)), misbehaved(fault));
}

#[test]
fn listed_exports_are_checked() {
    let server = |data: &[u8]| Rogue::new(Goal::List).reply(OptionCode::List, ReplyType::Server, data);
    for (name_length, rest) in [(3, b"db".as_slice()), (u32::MAX, b"db")] {
        let fault = PeerMisbehaved::ServerReplyTruncated { length: 6 };
        assert_eq!(server(&listed(name_length, rest)), misbehaved(fault));
    }
    assert_eq!(
        server(&[0; 3]),
        misbehaved(PeerMisbehaved::ServerReplyTruncated { length: 3 })
    );
    let what = "listed export name";
    assert_eq!(server(&listed(2, b"a\0")), misbehaved(PeerMisbehaved::NotText { what }));
    let long = vec![b'a'; MAX_STRING + 1];
    let fault = PeerMisbehaved::StringTooLong {
        what,
        length: MAX_STRING + 1,
    };
    assert_eq!(server(&listed(MAX_STRING as u32 + 1, &long)), misbehaved(fault));
}

#[test]
fn a_list_without_end_is_ended() {
    let mut entries = Rogue::new(Goal::List);
    for _ in 0..MAX_LISTED_EXPORTS {
        entries
            .reply(OptionCode::List, ReplyType::Server, &listed(0, b""))
            .unwrap();
    }
    let one_more = entries.reply(OptionCode::List, ReplyType::Server, &listed(0, b""));
    assert_eq!(one_more, misbehaved(PeerMisbehaved::ListTooLong));
    let mut bytes = Rogue::new(Goal::List);
    let long = listed(4096, &vec![b'x'; 8192]);
    let ended = (0..MAX_LISTED_EXPORTS).find_map(|_| bytes.reply(OptionCode::List, ReplyType::Server, &long).err());
    assert_eq!(ended, Some(PeerMisbehaved::ListTooLong.into()));
}

#[test]
fn a_server_that_closes_early_is_told_apart() {
    let mut rogue = Rogue {
        handshake: Handshake::new(Goal::Info, "db", ReplyStyle::Simple),
        sent: vec![],
    };
    assert_eq!(rogue.handshake.closed(), HandshakeError::ClosedAtGreeting);
    rogue.send(&Rogue::greeting(3)).unwrap();
    assert_eq!(
        rogue.handshake.closed(),
        HandshakeError::ClosedAtOption(OptionCode::Info)
    );
    rogue
        .reply(OptionCode::Info, ReplyType::Info, &export().encode())
        .unwrap();
    assert!(matches!(
        rogue.reply(OptionCode::Info, ReplyType::Ack, &[]),
        Ok(Step::Ready(_))
    ));
    assert_eq!(rogue.asked(), vec![(OptionCode::Abort, vec![])]);
    assert_eq!(rogue.handshake.closed(), HandshakeError::ClosedAfterwards);
}
