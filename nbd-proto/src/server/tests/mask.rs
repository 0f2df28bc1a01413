//! A server that keeps features to itself.

use super::*;
use crate::server::Mask;

/// After flags of a well-behaved client of a server with this mask.
fn masked(names: &str) -> Rogue {
    let mut rogue = Rogue::new();
    rogue.handshake = Handshake::default().masked(Mask::parse(names).unwrap());
    rogue.send(&ClientFlags::FIXED_NEWSTYLE.bits().to_be_bytes());
    rogue
}

#[test]
fn a_masked_option_is_one_that_is_not_known() {
    for (name, options) in [
        ("list", &[3][..]),
        ("go", &[6, 7]),
        ("structured-replies", &[8]),
        ("meta-contexts", &[9, 10]),
        ("extended-headers", &[11]),
    ] {
        for option in options {
            let mut rogue = masked(name);
            let option = OptionCode::from_wire(*option);
            assert_eq!(rogue.refused(option, b"anything"), OptionError::Unsupported, "{option}");
            let unknown = rogue.refused(OptionCode::from_wire(77), b"");
            assert_eq!(unknown, OptionError::Unsupported, "in step");
        }
    }
}

#[test]
fn masked_flags_and_block_sizes_are_not_shown() {
    let shown = |names: &str| {
        let mut rogue = masked(names);
        rogue.option(OptionCode::StructuredReply, &[]);
        let (_, replies) = rogue.option(OptionCode::Go, &info_data(b"db", &[crate::constants::info::BLOCK_SIZE]));
        let infos = infos(&replies);
        let flags = infos.iter().find_map(|info| match info {
            Info::Export { flags, .. } => Some(*flags),
            _ => None,
        });
        let sizes = infos.iter().any(|info| matches!(info, Info::BlockSize(_)));
        (flags.unwrap(), sizes)
    };
    let (all, sizes) = shown("");
    assert!(sizes && all.contains(TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_DF));
    let (few, sizes) = shown("flush, df,block-size");
    assert!(!sizes);
    assert_eq!(few, all - TransmissionFlags::SEND_FLUSH - TransmissionFlags::SEND_DF);
    let (few, _) = shown("write-zeroes");
    assert!(
        !few.contains(TransmissionFlags::SEND_FAST_ZERO),
        "which means nothing alone"
    );
}

#[test]
fn zeroes_that_cannot_be_left_out_are_sent() {
    let handshake = Handshake::default().masked(Mask::NO_ZEROES);
    assert_eq!(handshake.greeting()[17], 1, "fixed newstyle alone");
    let (step, output) = masked("no-zeroes").send_raw(&option_bytes(OptionCode::ExportName, b"db"));
    assert!(matches!(step, Step::Ready(_)));
    assert_eq!(output.len(), 10 + 124);
    let mut rogue = Rogue::new();
    rogue.handshake = Handshake::default().masked(Mask::NO_ZEROES);
    let both = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
    let (step, _) = rogue.send(&both.bits().to_be_bytes());
    assert_eq!(
        step,
        Step::Failed(PeerMisbehaved::UnknownClientFlags(2)),
        "it was not offered"
    );
}

#[test]
fn a_name_that_does_not_exist_lists_those_that_do() {
    let error = Mask::parse("flush,flsh").unwrap_err();
    assert!(
        error.contains("\"flsh\"") && error.contains("structured-replies"),
        "{error}"
    );
    assert_eq!(Mask::parse(""), Ok(Mask::empty()));
    let all = Mask::all().iter_names().count();
    assert_eq!(super::super::mask::count_of_names(), all, "every feature has a name");
}
