//! Clients that break the rules, each rule once.

use alloc::borrow::ToOwned;
use alloc::vec;

use super::*;
use crate::constants::{MAX_OPTION_DATA, MAX_STRING};

#[test]
fn unknown_client_flags_end_it() {
    let mut rogue = Rogue {
        handshake: Handshake::new(TlsMode::Off),
        exports: Shelf::default(),
    };
    let (step, replies) = rogue.send(&0x8000_0003_u32.to_be_bytes());
    assert_eq!(step, Step::Failed(PeerMisbehaved::UnknownClientFlags(0x8000_0000)));
    assert!(replies.is_empty());
}

#[test]
fn a_wrong_option_magic_ends_it() {
    let mut bytes = option_bytes(OptionCode::List, &[]);
    bytes[0] ^= 1;
    let (step, _) = Rogue::new().send(&bytes);
    assert_eq!(
        step,
        Step::Failed(PeerMisbehaved::BadOptionMagic(OPTION_MAGIC ^ 1 << 56))
    );
}

#[test]
fn unknown_options_are_drained_and_refused_one_by_one() {
    let mut rogue = Rogue::new();
    for (code, data) in [
        (4, vec![]),
        (12, vec![1; 3]),
        (9999, vec![]),
        (u32::MAX, vec![9; 20_000]),
    ] {
        assert_eq!(
            rogue.refused(OptionCode::from_wire(code), &data),
            OptionError::Unsupported
        );
        rogue.assert_in_step();
    }
}

#[test]
fn an_option_of_4_gib_is_skipped_without_being_kept() {
    let mut header = option_bytes(OptionCode::Go, &[]);
    header.truncate(12);
    header.extend_from_slice(&u32::MAX.to_be_bytes());
    let mut rogue = Rogue::new();
    assert_eq!(rogue.send(&header), (Step::NeedMore, vec![]));
    let piece = vec![0xee; 1 << 20];
    for _ in 0..4095 {
        assert_eq!(rogue.send_raw(&piece), (Step::NeedMore, vec![]));
        assert!(matches!(rogue.handshake.state, State::Skip { .. }));
    }
    let (step, replies) = rogue.send(&piece[1..]);
    assert_eq!(step, Step::NeedMore);
    assert_eq!(replies[0].1, ReplyType::Error(OptionError::TooBig));
    rogue.assert_in_step();
}

#[test]
fn options_without_data_refuse_data() {
    let mut rogue = Rogue::new();
    for option in [OptionCode::List, OptionCode::StructuredReply] {
        assert_eq!(rogue.refused(option, b"x"), OptionError::Invalid);
        rogue.assert_in_step();
    }
    assert!(!rogue.handshake.replies.has_chunks());
}

#[test]
fn inner_lengths_that_do_not_add_up_are_refused_in_step() {
    let good = info_data(b"db", &[1, 3]);
    let mut huge_name = good.clone();
    huge_name[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut many_infos = good.clone();
    many_infos[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut long = good.clone();
    long.push(0);
    let mut one_more = good.clone();
    one_more.extend_from_slice(&[0, 1]);
    let bad = [
        vec![],
        vec![0; 5],
        good[..good.len() - 1].to_vec(),
        huge_name,
        many_infos,
        long,
        one_more,
    ];
    let mut rogue = Rogue::new();
    for data in bad {
        for option in [OptionCode::Info, OptionCode::Go] {
            assert_eq!(rogue.refused(option, &data), OptionError::Invalid, "{data:?}");
        }
    }
    rogue.assert_in_step();
}

#[test]
fn names_are_limited_and_must_be_text() {
    let mut rogue = Rogue::new();
    let longest = vec![b'n'; MAX_STRING];
    assert_eq!(
        rogue.refused(OptionCode::Go, &info_data(&longest, &[])),
        OptionError::UnknownExport
    );
    let too_long = vec![b'n'; MAX_STRING + 1];
    assert_eq!(
        rogue.refused(OptionCode::Go, &info_data(&too_long, &[])),
        OptionError::TooBig
    );
    assert_eq!(
        rogue.refused(OptionCode::Go, &info_data(b"d\0", &[])),
        OptionError::Invalid
    );
    assert_eq!(
        rogue.refused(OptionCode::Info, &info_data(&[0xff], &[])),
        OptionError::Invalid
    );
    assert_eq!(
        rogue.refused(OptionCode::Go, &vec![0; MAX_OPTION_DATA + 1]),
        OptionError::TooBig
    );
    rogue.assert_in_step();
}

#[test]
fn export_name_that_cannot_be_met_ends_it() {
    let (step, output) = Rogue::new().send_raw(&option_bytes(OptionCode::ExportName, b"nope"));
    assert_eq!(step, Step::Failed(PeerMisbehaved::NoSuchExport("nope".to_owned())));
    assert!(output.is_empty());
    let (step, _) = Rogue::new().send_raw(&option_bytes(OptionCode::ExportName, &[0xff]));
    assert_eq!(step, Step::Failed(PeerMisbehaved::NotText { what: "export name" }));
    // Too long is seen from the header alone.
    let mut header = option_bytes(OptionCode::ExportName, &[]);
    header.truncate(12);
    header.extend_from_slice(&4097_u32.to_be_bytes());
    let (step, _) = Rogue::new().send_raw(&header);
    assert_eq!(step, Step::Failed(PeerMisbehaved::ExportNameTooLong(4097)));
}

#[test]
fn options_without_end_are_ended() {
    let mut rogue = Rogue::new();
    for _ in 0..MAX_OPTIONS {
        assert_eq!(rogue.option(OptionCode::StructuredReply, &[]).0, Step::NeedMore);
    }
    let (step, _) = rogue.option(OptionCode::StructuredReply, &[]);
    assert_eq!(step, Step::Failed(PeerMisbehaved::TooManyOptions));
}

#[test]
fn a_client_that_never_reads_cannot_pile_up_replies() {
    let flood: Vec<u8> = (0..MAX_OPTIONS)
        .flat_map(|_| option_bytes(OptionCode::List, &[]))
        .collect();
    let mut rogue = Rogue::new();
    let (mut rest, mut calls) = (flood.as_slice(), 0);
    while !rest.is_empty() {
        let mut output = Vec::new();
        let (consumed, step) = rogue.handshake.handle(rest, &rogue.exports, &mut output);
        assert_eq!(step, Step::NeedMore);
        assert!(consumed > 0 && output.len() < REPLY_BYTES_PER_CALL + 200);
        rest = &rest[consumed..];
        calls += 1;
    }
    assert!(calls > 1);
}
