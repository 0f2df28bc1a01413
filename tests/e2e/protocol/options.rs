//! The options and their replies.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::dialogue::EXTENDED_HEADERS;
use blockmirror_tests::raw::{OptionReply, Raw, info_request, option};

use super::{Case, SIZE, Stage};

const STARTTLS: u32 = 5;
/// Every information request there is.
const ALL: [u16; 4] = [0, 1, 2, 3];

/// One refusal with this error and a text, and the stream is in step behind it.
pub(super) fn refused(raw: &mut Raw, code: u32, data: &[u8], error: u32) -> Result<()> {
    let replies = raw.option(code, data)?;
    ensure!(
        replies.len() == 1 && replies[0].kind == error,
        "option {code} with {data:x?}: {replies:x?} instead of {error:#x}"
    );
    let text = std::str::from_utf8(&replies[0].payload)?;
    ensure!(
        !text.is_empty() && text.len() <= 4096 && !text.contains('\0'),
        "{text:?}"
    );
    in_step(raw)
}

/// LIST has a reply of its own for every export, and one final reply.
pub(super) fn in_step(raw: &mut Raw) -> Result<()> {
    let replies = raw.option(option::LIST, &[])?;
    ensure!(replies.len() == 7, "the stream is out of step: {replies:x?}");
    Ok(())
}

/// The information of one type among the replies.
fn told(replies: &[OptionReply], kind: u16) -> Option<&[u8]> {
    let mut infos = replies.iter().filter(|reply| reply.kind == option::REPLY_INFO);
    infos.find_map(|reply| reply.payload.strip_prefix(&kind.to_be_bytes()))
}

/// "Fixed newstyle negotiation" and the option reply types.
const FRAMING: [Case; 6] = [
    (
        "an unknown option is refused as unsupported, its data skipped",
        |stage| {
            let mut raw = stage.greeted()?;
            for (code, length) in [(0, 0), (4, 8), (12, 1), (99, 70_000), (u32::MAX, 3)] {
                refused(&mut raw, code, &vec![0xaa; length], option::ERROR_UNSUPPORTED)?;
            }
            Ok(())
        },
    ),
    ("a refused option has one reply, and the next is understood", |stage| {
        let mut raw = stage.greeted()?;
        for code in [option::LIST, option::STRUCTURED_REPLY] {
            refused(&mut raw, code, b"data", option::ERROR_INVALID)?;
        }
        for code in [option::INFO, option::GO] {
            for data in lies() {
                refused(&mut raw, code, &data, option::ERROR_INVALID)?;
            }
        }
        Ok(())
    }),
    ("options that are sent in one piece are answered one by one", |stage| {
        let mut raw = stage.greeted()?;
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(b"IHAVEOPT\0\0\0\x03\0\0\0\0");
        }
        raw.send(&bytes)?;
        let one = raw.option(option::LIST, &[])?;
        let each: usize = one.iter().map(|reply| 20 + reply.payload.len()).sum();
        raw.receive(50 * each)?;
        in_step(&mut raw)
    }),
    ("an option that comes byte by byte is understood", |stage| {
        let mut raw = stage.greeted()?;
        for byte in b"IHAVEOPT\0\0\0\x02\0\0\0\x01x" {
            raw.send(&[*byte])?;
        }
        ensure!(raw.receive(20)?[12..16] == option::ACK.to_be_bytes());
        Ok(())
    }),
    ("an option that changes state may be repeated", |stage| {
        let mut raw = stage.greeted()?;
        for _ in 0..3 {
            ensure!(raw.option(option::STRUCTURED_REPLY, &[])?[0].kind == option::ACK);
        }
        raw.go("db")
    }),
    (
        "STARTTLS is refused where there is no TLS, and nothing asks for it",
        |stage| {
            let mut raw = stage.greeted()?;
            for data in [&b""[..], b"data"] {
                let replies = raw.option(STARTTLS, data)?;
                ensure!(replies.len() == 1 && replies[0].kind & 1 << 31 != 0, "{replies:x?}");
                ensure!(replies[0].kind != 0x8000_0005, "TLS_REQD without TLS");
            }
            raw.go("db")
        },
    ),
];

/// Data of INFO and GO whose inner lengths do not add up.
fn lies() -> Vec<Vec<u8>> {
    let good = info_request("db", &[1, 3]);
    let changed = |at: usize, byte: u8| {
        let mut data = good.clone();
        data[at] = byte;
        data
    };
    vec![
        vec![],
        vec![0; 5],
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        [&good[..], &[0, 1]].concat(),
        changed(0, 0xff),
        changed(3, 200),
        changed(6, 0xff),
        changed(7, 3),
        info_request("d\0b", &[]),
        [&[0, 0, 0, 2, 0xff, 0xfe][..], &[0, 0]].concat(),
    ]
}

#[test]
fn framing() -> Result<()> {
    Stage::new()?.play(&FRAMING)
}

/// `NBD_OPT_LIST`, `NBD_OPT_INFO`, `NBD_OPT_GO` and the information types.
const INFORMATION: [Case; 8] = [
    (
        "LIST names every export once, its description behind the name",
        |stage| {
            let replies = stage.greeted()?.option(option::LIST, &[])?;
            let (last, exports) = replies.split_last().context("no reply")?;
            ensure!(last.kind == option::ACK && last.payload.is_empty(), "{last:x?}");
            let mut names = Vec::new();
            for export in exports {
                ensure!(export.kind == option::SERVER, "{export:x?}");
                let (length, rest) = export.payload.split_first_chunk().context("no length")?;
                let length = u32::from_be_bytes(*length) as usize;
                ensure!(length <= rest.len(), "a name of {length} in {} bytes", rest.len());
                let (name, description) = rest.split_at(length);
                if name == b"db" {
                    ensure!(description == b"the database", "{description:?}");
                }
                names.push(String::from_utf8(name.to_vec())?);
            }
            names.sort();
            ensure!(
                names == ["big", "blocks", "db", "memory", "mirrored", "read-only"],
                "{names:?}"
            );
            Ok(())
        },
    ),
    (
        "every information has its length, and EXPORT comes before the acknowledgement",
        |stage| {
            let replies = stage.greeted()?.option(option::INFO, &info_request("blocks", &ALL))?;
            let export = told(&replies, 0).context("no EXPORT")?;
            ensure!(export.len() == 10 && export[..8] == SIZE.to_be_bytes(), "{export:x?}");
            ensure!(export[9] & 1 == 1, "HAS_FLAGS is missing");
            ensure!(told(&replies, 1) == Some(&b"blocks"[..]));
            let sizes = told(&replies, 3).context("no BLOCK_SIZE")?;
            let word = |at: usize| u32::from_be_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]);
            ensure!(
                sizes.len() == 12 && word(0) == 512 && word(4) == 4096 && word(8) == 32 << 20,
                "{sizes:x?}"
            );
            ensure!(replies.last().is_some_and(|reply| reply.kind == option::ACK));
            Ok(())
        },
    ),
    ("EXPORT is told without being asked for, nothing twice", |stage| {
        for asked in [&[][..], &[1], &[3, 0], &[0, 0, 3, 3]] {
            let replies = stage.greeted()?.option(option::INFO, &info_request("db", asked))?;
            ensure!(told(&replies, 0).is_some(), "{replies:x?}");
            let mut kinds: Vec<&[u8]> = replies
                .iter()
                .filter(|reply| reply.kind == option::REPLY_INFO)
                .map(|reply| &reply.payload[..2])
                .collect();
            let all = kinds.len();
            kinds.dedup();
            ensure!(kinds.len() == all, "{replies:x?}");
        }
        Ok(())
    }),
    ("information that is not known is ignored", |stage| {
        let replies = stage
            .greeted()?
            .option(option::INFO, &info_request("db", &[0x7777, 3, 0xffff]))?;
        ensure!(told(&replies, 3).is_some() && told(&replies, 0x7777).is_none());
        Ok(())
    }),
    ("the description is that of LIST", |stage| {
        let replies = stage.greeted()?.option(option::INFO, &info_request("db", &ALL))?;
        ensure!(told(&replies, 2) == Some(&b"the database"[..]), "{replies:x?}");
        Ok(())
    }),
    (
        "an unknown export is refused without information, and another may be asked for",
        |stage| {
            let mut raw = stage.greeted()?;
            for code in [option::INFO, option::GO] {
                for name in ["nothing", "", &"n".repeat(4096)] {
                    refused(&mut raw, code, &info_request(name, &ALL), option::ERROR_UNKNOWN)?;
                }
            }
            raw.go("db")
        },
    ),
    ("GO tells what an equal INFO has told just before", |stage| {
        for export in ["db", "read-only", "mirrored", "memory", "blocks", "big"] {
            for structured in [false, true] {
                let mut raw = stage.greeted()?;
                if structured {
                    raw.option(option::STRUCTURED_REPLY, &[])?;
                }
                let data = info_request(export, &ALL);
                let payloads = |replies: Vec<OptionReply>| -> Vec<_> {
                    replies.into_iter().map(|reply| (reply.kind, reply.payload)).collect()
                };
                let info = payloads(raw.option(option::INFO, &data)?);
                ensure!(info == payloads(raw.option(option::GO, &data)?), "{export}: {info:x?}");
            }
        }
        Ok(())
    }),
    ("INFO commits to nothing", |stage| {
        let mut raw = stage.greeted()?;
        for export in ["blocks", "big", "db"] {
            let replies = raw.option(option::INFO, &info_request(export, &ALL))?;
            ensure!(replies.last().is_some_and(|reply| reply.kind == option::ACK));
        }
        in_step(&mut raw)?;
        raw.go("memory")?;
        ensure!(raw.read(0, 512)?.len() == 512);
        Ok(())
    }),
];

#[test]
fn information() -> Result<()> {
    Stage::new()?.play(&INFORMATION)
}

/// "Transmission flags": each says what is true.
#[test]
fn transmission_flags() -> Result<()> {
    const HAS_FLAGS: u16 = 1;
    const READ_ONLY: u16 = 1 << 1;
    const DF: u16 = 1 << 7;
    const RESIZE: u16 = 1 << 9;
    const CHANGES: u16 = 1 << 5 | 1 << 6 | 1 << 11;
    let stage = Stage::new()?;
    for export in ["db", "read-only", "mirrored", "memory", "blocks", "big"] {
        for chunks in [None, Some(option::STRUCTURED_REPLY), Some(EXTENDED_HEADERS)] {
            let mut raw = stage.greeted()?;
            let has_chunks = match chunks {
                Some(asked) => raw.option(asked, &[])?[0].kind == option::ACK,
                None => false,
            };
            raw.go(export)?;
            let (flags, what) = (raw.flags, format!("{export}: {:#x}", raw.flags));
            ensure!(flags & HAS_FLAGS != 0, "{what}: HAS_FLAGS");
            ensure!((flags & DF != 0) == has_chunks, "{what}: DF");
            ensure!(flags & RESIZE == 0, "{what}: RESIZE");
            ensure!((flags & READ_ONLY != 0) == (export == "read-only"), "{what}: READ_ONLY");
            ensure!(
                flags & READ_ONLY == 0 || flags & CHANGES == 0,
                "{what}: changes of what is read-only"
            );
            ensure!(
                flags & 1 << 6 != 0 || flags & 1 << 11 == 0,
                "{what}: FAST_ZERO without WRITE_ZEROES"
            );
            ensure!(flags >> 13 == 0, "{what}: unknown bits");
            ensure!(flags & 0x10c == 0x10c, "{what}: FLUSH, FUA and several connections");
        }
    }
    Ok(())
}
