#![allow(clippy::unwrap_used, clippy::expect_used)]
use alloc::string::String;

use super::*;
use crate::constants::UNLIMITED_PAYLOAD;
use crate::context::Context;
use crate::export::{BlockSizes, ExportInfo};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 << 30;

/// Everything advertised; 16 GiB, 4 MiB payload, blocks of 512.
fn export() -> Negotiated {
    let flags = TransmissionFlags::all().difference(TransmissionFlags::READ_ONLY);
    Negotiated {
        export: ExportInfo {
            name: String::new(),
            description: String::new(),
            size: SIZE,
            flags,
            block_sizes: BlockSizes {
                minimum: 512,
                preferred: 4096,
                maximum_payload: 4 << 20,
            },
        },
        replies: ReplyStyle::Structured,
        contexts: [1, 7]
            .map(|id| Context {
                id,
                name: String::from("x-test:"),
            })
            .into(),
        block_sizes_known: true,
    }
}

fn without(flags: TransmissionFlags) -> Negotiated {
    let mut export = export();
    export.export.flags.remove(flags);
    export
}

fn request(command: u16, flags: CommandFlags, offset: u64, length: u64) -> Request {
    Request {
        flags,
        command,
        cookie: 1,
        offset,
        length,
    }
}

fn error(request: Request, export: &Negotiated) -> Option<NbdError> {
    validate(&request, export).err().map(|refusal| refusal.error)
}

const NONE: CommandFlags = CommandFlags::empty();
const RANGED: [u16; 6] = [
    command::READ,
    command::WRITE,
    command::TRIM,
    command::WRITE_ZEROES,
    command::CACHE,
    command::BLOCK_STATUS,
];

#[test]
fn every_command_comes_back_with_its_flags() {
    let all = [
        Command::Read { df: false },
        Command::Read { df: true },
        Command::Write { fua: false },
        Command::Write { fua: true },
        Command::Trim { fua: true },
        Command::WriteZeroes {
            fua: true,
            no_hole: false,
            fast: true,
        },
        Command::WriteZeroes {
            fua: false,
            no_hole: true,
            fast: false,
        },
        Command::Cache,
        Command::BlockStatus { one: false },
        Command::BlockStatus { one: true },
    ];
    for command in all {
        assert_eq!(validate(&Request::new(command, 1, 512, 1024), &export()), Ok(command));
    }
    assert_eq!(
        validate(&Request::new(Command::Flush, 1, 0, 0), &export()),
        Ok(Command::Flush)
    );
}

#[test]
fn fua_is_accepted_on_every_command_once_advertised() {
    for code in RANGED {
        let request = request(code, CommandFlags::FUA, 0, 512);
        assert_eq!(error(request, &export()), None, "command {code}");
        assert_eq!(
            error(request, &without(TransmissionFlags::SEND_FUA)),
            Some(NbdError::Invalid)
        );
    }
    assert_eq!(error(request(command::FLUSH, CommandFlags::FUA, 0, 0), &export()), None);
}

#[test]
fn misplaced_and_unknown_flags_are_invalid() {
    let single_bits = (0..16).map(|bit| CommandFlags::from_bits_retain(1 << bit));
    for flags in single_bits {
        for code in RANGED {
            let allowed = match code {
                command::READ => CommandFlags::FUA | CommandFlags::DF,
                command::WRITE_ZEROES => CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
                command::BLOCK_STATUS => CommandFlags::FUA | CommandFlags::REQ_ONE,
                _ => CommandFlags::FUA,
            };
            let expected = (!allowed.contains(flags)).then_some(NbdError::Invalid);
            assert_eq!(
                error(request(code, flags, 0, 512), &export()),
                expected,
                "command {code} flags {flags:?}"
            );
        }
    }
}

#[test]
fn what_was_not_advertised_is_invalid() {
    let cases = [
        (command::FLUSH, TransmissionFlags::SEND_FLUSH),
        (command::TRIM, TransmissionFlags::SEND_TRIM),
        (command::WRITE_ZEROES, TransmissionFlags::SEND_WRITE_ZEROES),
        (command::CACHE, TransmissionFlags::SEND_CACHE),
    ];
    for (code, flag) in cases {
        let length = if code == command::FLUSH { 0 } else { 512 };
        assert_eq!(error(request(code, NONE, 0, length), &export()), None);
        assert_eq!(
            error(request(code, NONE, 0, length), &without(flag)),
            Some(NbdError::Invalid)
        );
    }
    let df = request(command::READ, CommandFlags::DF, 0, 512);
    assert_eq!(error(df, &without(TransmissionFlags::SEND_DF)), Some(NbdError::Invalid));
    let fast = request(command::WRITE_ZEROES, CommandFlags::FAST_ZERO, 0, 512);
    let plain = without(TransmissionFlags::SEND_FAST_ZERO);
    assert_eq!(error(fast, &plain), Some(NbdError::Invalid));
    let mut no_contexts = export();
    no_contexts.contexts.clear();
    let status = request(command::BLOCK_STATUS, NONE, 0, 512);
    assert_eq!(error(status, &no_contexts), Some(NbdError::Invalid));
}

#[test]
fn unknown_commands_are_invalid() {
    for code in [8, 9, 255, u16::MAX] {
        assert_eq!(error(request(code, NONE, 0, 512), &export()), Some(NbdError::Invalid));
        assert_eq!(request(code, NONE, 0, 512).payload_length(ReplyStyle::Structured), 0);
    }
}

#[test]
fn a_read_only_export_permits_no_change() {
    let mut read_only = export();
    read_only.export.flags =
        TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_FLUSH;
    for code in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(error(request(code, NONE, 0, 512), &read_only), Some(NbdError::Perm));
        assert_eq!(
            error(request(code, CommandFlags::FUA, SIZE, 512), &read_only),
            Some(NbdError::Perm)
        );
    }
    assert_eq!(error(request(command::READ, NONE, 0, 512), &read_only), None);
    assert_eq!(error(request(command::FLUSH, NONE, 0, 0), &read_only), None);
}

#[test]
fn past_the_end_is_no_space_or_invalid() {
    for code in RANGED {
        let expected = match code {
            command::WRITE | command::WRITE_ZEROES => NbdError::NoSpace,
            _ => NbdError::Invalid,
        };
        for (offset, length) in [
            (SIZE, 512),
            (SIZE - 512, 1024),
            (u64::MAX - 511, 512),
            (u64::MAX - 511, 1024),
        ] {
            assert_eq!(
                error(request(code, NONE, offset, length), &export()),
                Some(expected),
                "{code} {offset}"
            );
        }
        assert_eq!(error(request(code, NONE, SIZE - 512, 512), &export()), None);
    }
}

#[test]
fn the_payload_limit_binds_read_and_write_only() {
    let long = 4 * MIB + 512;
    assert_eq!(error(request(command::READ, NONE, 0, 4 * MIB), &export()), None);
    assert_eq!(
        error(request(command::READ, NONE, 0, long), &export()),
        Some(NbdError::Overflow)
    );
    assert_eq!(error(request(command::WRITE, NONE, 0, 4 * MIB), &export()), None);
    assert_eq!(
        error(request(command::WRITE, NONE, 0, long), &export()),
        Some(NbdError::Invalid)
    );
    assert_eq!(
        request(command::WRITE, NONE, 0, long).payload_length(ReplyStyle::Structured),
        long,
        "to be consumed all the same"
    );
    for code in [
        command::TRIM,
        command::WRITE_ZEROES,
        command::CACHE,
        command::BLOCK_STATUS,
    ] {
        assert_eq!(
            error(request(code, NONE, 0, u64::from(u32::MAX) - 511), &export()),
            None
        );
    }
    let mut unlimited = export();
    unlimited.export.block_sizes.maximum_payload = UNLIMITED_PAYLOAD;
    unlimited.export.block_sizes.minimum = 1;
    assert_eq!(
        error(request(command::READ, NONE, 0, u64::from(MAX_READ)), &unlimited),
        None
    );
    assert_eq!(
        error(request(command::READ, NONE, 0, u64::from(MAX_READ) + 1), &unlimited),
        Some(NbdError::Overflow)
    );
    assert_eq!(
        error(request(command::WRITE, NONE, 0, u64::from(u32::MAX)), &unlimited),
        None
    );
    assert_eq!(
        error(request(command::TRIM, NONE, 1, u64::from(u32::MAX)), &unlimited),
        None
    );
}

#[test]
fn unaligned_ranges_are_invalid() {
    for code in RANGED {
        for (offset, length) in [(1, 512), (512, 511), (256, 512)] {
            assert_eq!(
                error(request(code, NONE, offset, length), &export()),
                Some(NbdError::Invalid)
            );
        }
    }
}

#[test]
fn zero_length_is_refused_and_never_more() {
    for code in RANGED {
        assert_eq!(error(request(code, NONE, 0, 0), &export()), Some(NbdError::Invalid));
    }
}

#[test]
fn flush_takes_no_range() {
    for (offset, length) in [(0, 1), (1, 0), (512, 512)] {
        assert_eq!(
            error(request(command::FLUSH, NONE, offset, length), &export()),
            Some(NbdError::Invalid)
        );
    }
}

#[test]
fn a_disconnect_is_never_refused() {
    let odd = request(command::DISCONNECT, CommandFlags::all(), u64::MAX, u64::from(u32::MAX));
    assert_eq!(validate(&odd, &export()), Ok(Command::Disconnect));
    assert_eq!(odd.payload_length(ReplyStyle::Structured), 0);
}

mod extended;
