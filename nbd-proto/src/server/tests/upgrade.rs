//! Replication streams, and exports that may not be opened now.

use alloc::vec;

use super::*;
use crate::constants::MAX_UPGRADE_DATA;

/// A blockmirror that grants a stream to who says "bravo".
struct Partner;

impl Exports for Partner {
    fn find(&self, _name: &str) -> Option<ExportInfo> {
        None
    }

    fn list(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn upgrade(&self, hello: &[u8]) -> Result<Vec<u8>, (OptionError, String)> {
        match hello {
            b"bravo" => Ok(b"alpha".to_vec()),
            _ => Err((OptionError::Policy, "who are you?".to_owned())),
        }
    }
}

#[test]
fn a_stream_is_granted_and_begins_behind_the_option() {
    let mut handshake = Rogue::new().handshake;
    let mut bytes = option_bytes(OptionCode::Upgrade, b"charlie");
    let first = bytes.len();
    bytes.extend(option_bytes(OptionCode::Upgrade, b"bravo"));
    let whole = bytes.len();
    bytes.extend(b"frames");
    let mut output = Vec::new();
    let (consumed, step) = handshake.handle(&bytes[..first], &Partner, &mut output);
    assert_eq!((consumed, step), (first, Step::NeedMore));
    let policy = ReplyType::Error(OptionError::Policy);
    let refused = (OptionCode::Upgrade, policy, b"who are you?".to_vec());
    assert_eq!(replies(&output), [refused]);
    output.clear();
    let (consumed, step) = handshake.handle(&bytes[first..], &Partner, &mut output);
    let hello = b"bravo".to_vec();
    assert_eq!((consumed, step), (whole - first, Step::Upgraded { hello }));
    let granted = (OptionCode::Upgrade, ReplyType::Upgrade, b"alpha".to_vec());
    assert_eq!(replies(&output), [granted]);
    assert_eq!(
        handshake.handle(b"frames", &Partner, &mut output).0,
        0,
        "not NBD's any more"
    );
}

#[test]
fn most_servers_do_not_know_it() {
    let mut rogue = Rogue::new();
    assert_eq!(rogue.refused(OptionCode::Upgrade, b"hello"), OptionError::Unsupported);
    let long = vec![0; MAX_UPGRADE_DATA + 1];
    assert_eq!(rogue.refused(OptionCode::Upgrade, &long), OptionError::TooBig);
    rogue.exports.shutting_down = true;
    assert_eq!(rogue.refused(OptionCode::Upgrade, b"hello"), OptionError::Shutdown);
}

#[test]
fn an_export_that_may_not_be_opened_is_described_and_refused() {
    let mut rogue = Rogue::new();
    rogue.exports.closed = Some("the Primary is node bravo");
    let (step, replies) = rogue.option(OptionCode::Info, &info_data(b"db", &[]));
    assert_eq!((step, replies.len()), (Step::NeedMore, 2), "INFO opens nothing");
    assert_eq!(
        rogue.refused(OptionCode::Go, &info_data(b"db", &[])),
        OptionError::Policy
    );
    rogue.assert_in_step();
    rogue.exports.closed = None;
    let (step, _) = rogue.option(OptionCode::Go, &info_data(b"db", &[]));
    assert!(matches!(step, Step::Ready(_)), "it may try again");
    let mut old = Rogue::new();
    old.exports.closed = Some("the Primary is node bravo");
    let (step, replies) = old.send_raw(&option_bytes(OptionCode::ExportName, b"db"));
    let refused = PeerMisbehaved::NotAdmitted("the Primary is node bravo".to_owned());
    assert_eq!((step, replies), (Step::Failed(refused), vec![]));
}
