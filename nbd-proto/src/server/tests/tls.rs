//! STARTTLS in the three modes (section "TLS support" of the protocol).

use alloc::vec;

use super::*;

/// GO and INFO for the default export.
const DEFAULT: [u8; 6] = [0; 6];

fn start_tls(rogue: &mut Rogue) {
    let (step, replies) = rogue.option(OptionCode::StartTls, &[]);
    assert_eq!(step, Step::StartTls);
    assert_eq!(replies, [(OptionCode::StartTls, ReplyType::Ack, vec![])]);
}

#[test]
fn notls_refuses_it_and_never_asks_for_it() {
    let mut rogue = Rogue::new();
    assert_eq!(rogue.refused(OptionCode::StartTls, &[]), OptionError::Policy);
    rogue.exports.needs_tls = true;
    assert_eq!(rogue.refused(OptionCode::Go, &DEFAULT), OptionError::UnknownExport);
    rogue.exports.needs_tls = false;
    rogue.go();
}

#[test]
fn forcedtls_answers_nothing_else_before_it() {
    let mut rogue = Rogue::with_tls(TlsMode::Require);
    for code in [3, 4, 6, 7, 8, 9, 10, 11, 77, UPGRADE] {
        let option = OptionCode::from_wire(code);
        assert_eq!(rogue.refused(option, &DEFAULT), OptionError::TlsRequired, "{option}");
    }
    start_tls(&mut rogue);
    rogue.handshake.secured();
    assert_eq!(rogue.refused(OptionCode::StartTls, &[]), OptionError::Invalid);
    rogue.assert_in_step();
    rogue.go();
}

const UPGRADE: u32 = crate::constants::UPGRADE_OPTION;

#[test]
fn forcedtls_lets_a_client_leave_and_closes_on_export_name() {
    let (step, replies) = Rogue::with_tls(TlsMode::Require).option(OptionCode::Abort, &[]);
    assert_eq!((step, replies.len()), (Step::Aborted, 1));
    let (step, replies) = Rogue::with_tls(TlsMode::Require).option(OptionCode::ExportName, b"");
    assert_eq!(step, Step::Failed(PeerMisbehaved::ExportNameOutsideTls));
    assert!(replies.is_empty());
}

#[test]
fn selectivetls_keeps_what_needs_it() {
    let mut rogue = Rogue::with_tls(TlsMode::Allow);
    rogue.exports.needs_tls = true;
    for option in [OptionCode::Info, OptionCode::Go] {
        assert_eq!(rogue.refused(option, &DEFAULT), OptionError::TlsRequired);
    }
    let unknown = b"\0\0\0\x04nope\0\0";
    assert_eq!(
        rogue.refused(OptionCode::Go, unknown),
        OptionError::TlsRequired,
        "nobody learns what there is"
    );
    let (_, listed) = rogue.option(OptionCode::List, &[]);
    assert_eq!(listed.len(), 2, "one export, and the acknowledgement");
    rogue.agree(OptionCode::StructuredReply);
    let query = crate::ContextQuery {
        export: String::new(),
        queries: vec![],
    }
    .encode();
    assert_eq!(
        rogue.refused(OptionCode::ListMetaContext, &query),
        OptionError::UnknownExport
    );
    start_tls(&mut rogue);
    rogue.handshake.secured();
    rogue.assert_in_step();
    rogue.go();
    let mut rogue = Rogue::with_tls(TlsMode::Allow);
    rogue.exports.needs_tls = true;
    let (step, _) = rogue.option(OptionCode::ExportName, b"db");
    assert_eq!(step, Step::Failed(PeerMisbehaved::ExportNameOutsideTls));
}

#[test]
fn selectivetls_serves_without_it_what_does_not_need_it() {
    Rogue::with_tls(TlsMode::Allow).go();
}

#[test]
fn what_was_agreed_before_it_is_forgotten() {
    let select = crate::ContextQuery {
        export: String::new(),
        queries: vec!["base:allocation".to_owned()],
    }
    .encode();
    for style in [OptionCode::StructuredReply, OptionCode::ExtendedHeaders] {
        let mut rogue = Rogue::with_tls(TlsMode::Allow);
        rogue.agree(style);
        assert_eq!(rogue.option(OptionCode::SetMetaContext, &select).1.len(), 2);
        start_tls(&mut rogue);
        rogue.handshake.secured();
        let negotiated = rogue.go();
        assert_eq!((negotiated.replies, negotiated.contexts), (ReplyStyle::Simple, vec![]));
        assert!(!negotiated.export.flags.contains(TransmissionFlags::SEND_DF));
    }
}

#[test]
fn nothing_is_taken_between_the_acknowledgement_and_tls() {
    let mut rogue = Rogue::with_tls(TlsMode::Allow);
    let mut bytes = option_bytes(OptionCode::StartTls, &[]);
    let behind = option_bytes(OptionCode::Go, &DEFAULT);
    bytes.extend_from_slice(&behind);
    let mut output = Vec::new();
    let (consumed, step) = rogue.handshake.handle(&bytes, &rogue.exports, &mut output);
    assert_eq!((consumed, step), (bytes.len() - behind.len(), Step::StartTls));
    let before = output.len();
    let (consumed, step) = rogue.handshake.handle(&behind, &rogue.exports, &mut output);
    assert_eq!((consumed, step, output.len()), (0, Step::NeedMore, before));
}

#[test]
fn secured_means_nothing_without_starttls() {
    let mut rogue = Rogue::with_tls(TlsMode::Require);
    rogue.handshake.secured();
    assert_eq!(rogue.refused(OptionCode::List, &[]), OptionError::TlsRequired);
}

#[test]
fn starttls_with_data_is_invalid_and_the_stream_stays_in_step() {
    let mut rogue = Rogue::with_tls(TlsMode::Allow);
    assert_eq!(rogue.refused(OptionCode::StartTls, b"now"), OptionError::Invalid);
    rogue.assert_in_step();
    rogue.exports.shutting_down = true;
    assert_eq!(rogue.refused(OptionCode::StartTls, &[]), OptionError::Shutdown);
}

#[test]
fn without_fixed_newstyle_there_is_no_tls() {
    let rogue = |tls| Rogue {
        handshake: Handshake::new(tls),
        exports: Shelf::default(),
    };
    let (step, _) = rogue(TlsMode::Require).send(&[0; 4]);
    assert_eq!(step, Step::Failed(PeerMisbehaved::TlsNeedsFixedNewstyle));
    let mut allowed = rogue(TlsMode::Allow);
    allowed.send(&[0; 4]);
    assert_eq!(allowed.refused(OptionCode::StartTls, &[]), OptionError::Policy);
    allowed.exports.needs_tls = true;
    assert_eq!(allowed.refused(OptionCode::Go, &DEFAULT), OptionError::UnknownExport);
}
