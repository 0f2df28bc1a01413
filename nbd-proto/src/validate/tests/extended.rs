//! Requests with extended headers: 64-bit lengths, and a flag that says what the length is.

use alloc::vec;

use super::*;
use crate::status::StatusFilter;

/// The same export without extended headers.
fn compact() -> Negotiated {
    export()
}

fn extended() -> Negotiated {
    let mut export = compact();
    export.replies = ReplyStyle::Extended;
    export.export.size = 1 << 60;
    export
}

const PAYLOAD: CommandFlags = CommandFlags::PAYLOAD_LEN;

#[test]
fn effect_lengths_have_64_bits() {
    let export = extended();
    for code in [
        command::TRIM,
        command::WRITE_ZEROES,
        command::CACHE,
        command::BLOCK_STATUS,
    ] {
        assert_eq!(error(request(code, NONE, 0, 1 << 60), &export), None, "{code}");
        let expected = match code {
            command::WRITE_ZEROES => NbdError::NoSpace,
            _ => NbdError::Invalid,
        };
        assert_eq!(error(request(code, NONE, 512, 1 << 60), &export), Some(expected));
        assert_eq!(error(request(code, NONE, 512, u64::MAX - 511), &export), Some(expected));
    }
    let read = request(command::READ, NONE, 0, 1 << 32);
    assert_eq!(error(read, &export), Some(NbdError::Overflow));
}

#[test]
fn write_says_that_it_has_a_payload_and_nothing_else_does() {
    let export = extended();
    assert_eq!(error(request(command::WRITE, PAYLOAD, 0, 512), &export), None);
    let silent = request(command::WRITE, NONE, 0, 512);
    assert_eq!(error(silent, &export), None, "QEMU's client says nothing");
    assert_eq!(silent.payload_length(export.replies), 512);
    for code in RANGED
        .into_iter()
        .chain([command::FLUSH, 99])
        .filter(|code| *code != command::WRITE)
    {
        let odd = request(code, PAYLOAD, 0, 512);
        assert_eq!(error(odd, &export), Some(NbdError::Invalid), "{code}");
        assert_eq!(odd.payload_length(export.replies), 512, "to be consumed all the same");
    }
}

#[test]
fn a_payload_beyond_every_limit_ends_the_connection() {
    let (default, mut large) = (extended(), extended());
    let excessive = |length, export: &Negotiated| {
        check_payload_bound(&request(command::WRITE, PAYLOAD, 0, length), export).is_err()
    };
    assert!(!excessive(32 * MIB, &default), "what no client needs to ask for");
    assert!(excessive(32 * MIB + 1, &default));
    large.export.block_sizes.maximum_payload = UNLIMITED_PAYLOAD;
    assert!(!excessive(1 << 31, &large));
    assert!(excessive(1 << 32, &large));
    let effect = request(command::TRIM, NONE, 0, 1 << 50);
    assert_eq!(check_payload_bound(&effect, &default), Ok(()));
    let write = request(command::WRITE, NONE, 0, u64::from(u32::MAX));
    assert_eq!(check_payload_bound(&write, &compact()), Ok(()));
}

fn filtered(length: u64, contexts: &[u32], one: bool) -> Result<Filtered, Option<NbdError>> {
    let payload = StatusFilter {
        length,
        contexts: contexts.to_vec(),
    }
    .encode();
    let flags = if one { PAYLOAD | CommandFlags::REQ_ONE } else { PAYLOAD };
    let asked = request(command::BLOCK_STATUS, flags, 512, payload.len() as u64);
    assert!(has_filter(&asked, &extended()));
    validate_filtered(&asked, &payload, &extended()).map_err(|refusal| Some(refusal.error))
}

#[test]
fn a_filter_chooses_among_the_contexts() {
    let chosen = |one, length, contexts| Ok(Filtered { one, length, contexts });
    assert_eq!(filtered(1 << 50, &[7], false), chosen(false, 1 << 50, 0b10));
    assert_eq!(filtered(512, &[7, 1], true), chosen(true, 512, 0b11));
    for contexts in [&[][..], &[2], &[1, 1], &[1, 7, 7]] {
        assert_eq!(
            filtered(512, contexts, false),
            Err(Some(NbdError::Invalid)),
            "{contexts:?}"
        );
    }
    for length in [0, 511, 1 << 60] {
        assert_eq!(filtered(length, &[1], false), Err(Some(NbdError::Invalid)), "{length}");
    }
}

#[test]
fn a_filter_is_read_only_where_it_can_be_one() {
    let asked = |length| request(command::BLOCK_STATUS, PAYLOAD, 0, length);
    let export = extended();
    assert!(has_filter(&asked(12), &export));
    assert!(!has_filter(&asked(12), &compact()), "compact headers");
    assert!(
        !has_filter(&asked(StatusFilter::MAX_LENGTH as u64 + 1), &export),
        "too long to be right"
    );
    assert!(
        !has_filter(&request(command::BLOCK_STATUS, NONE, 0, 12), &export),
        "an effect length"
    );
    let mut unadvertised = extended();
    unadvertised
        .export
        .flags
        .remove(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
    assert!(!has_filter(&asked(12), &unadvertised));
    assert_eq!(error(asked(12), &unadvertised), Some(NbdError::Invalid));
    let odd = vec![0; 13];
    let refusal = validate_filtered(&asked(13), &odd, &export).map_err(|refusal| refusal.error);
    assert_eq!(refusal, Err(NbdError::Invalid));
}
