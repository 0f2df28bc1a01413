//! Requests that are refused: the error is the one the protocol names, in every style of reply; the stream stays in
//! step, and nothing has changed.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::dialogue::wire::{FAST_ZERO, PAYLOAD_LEN, REQ_ONE, Style};
use blockmirror_tests::dialogue::{Ask, Dialogue};
use blockmirror_tests::raw::{command, errno};

use super::{PAYLOAD_MAX, SIZE, STYLES, Stage};

const EVERY_FLAG: [u16; 16] = {
    let mut flags = [0; 16];
    let mut bit = 0;
    while bit < 16 {
        flags[bit] = 1 << bit;
        bit += 1;
    }
    flags
};
/// Commands about a range.
const RANGED: [u16; 5] = [
    command::READ,
    command::WRITE,
    command::TRIM,
    command::CACHE,
    command::WRITE_ZEROES,
];

/// A request of this command, with a payload where it has one.
fn request(kind: u16, offset: u64, length: u64) -> Ask {
    match kind {
        command::WRITE => Ask::write(offset, &vec![9; length as usize]),
        kind => Ask::new(kind, offset, length),
    }
}

type Case = (&'static str, &'static str, fn() -> Vec<(Ask, u32)>);

/// What, on which export, and the requests with their errors.
const CASES: [Case; 11] = [
    (
        "past the end: ENOSPC for what writes, EINVAL for the rest",
        "db",
        || {
            let ranges = [
                (SIZE, 512),
                (SIZE - 512, 1024),
                (SIZE - 1, 2),
                (u64::MAX - 511, 512),
                (u64::MAX, 1),
            ];
            let each = |kind| {
                let error = match kind {
                    command::WRITE | command::WRITE_ZEROES => errno::NO_SPACE,
                    _ => errno::INVALID,
                };
                ranges.map(|(offset, length)| (request(kind, offset, length), error))
            };
            RANGED.into_iter().flat_map(each).collect()
        },
    ),
    (
        "a change of what is read-only: EPERM, wherever it is",
        "read-only",
        || {
            [command::WRITE, command::TRIM, command::WRITE_ZEROES]
                .into_iter()
                .flat_map(|kind| [0, 512, SIZE].map(|offset| (request(kind, offset, 4096), errno::PERM)))
                .collect()
        },
    ),
    ("not a multiple of the minimum block: EINVAL", "blocks", || {
        RANGED
            .into_iter()
            .flat_map(|kind| {
                [(1, 512), (512, 511), (256, 512)].map(|(at, length)| (request(kind, at, length), errno::INVALID))
            })
            .collect()
    }),
    ("a READ beyond the longest payload: EOVERFLOW", "big", || {
        [PAYLOAD_MAX + 1, PAYLOAD_MAX * 2, u64::from(u32::MAX)]
            .map(|length| (request(command::READ, 0, length), errno::OVERFLOW))
            .to_vec()
    }),
    (
        "a READ with DF beyond the longest payload: an error, no content",
        "big",
        || {
            vec![(
                request(command::READ, 0, PAYLOAD_MAX + 512).with(command::FUA),
                errno::OVERFLOW,
            )]
        },
    ),
    (
        "a WRITE beyond the longest payload: an error, its payload consumed",
        "big",
        || vec![(request(command::WRITE, 0, PAYLOAD_MAX + 512), errno::INVALID)],
    ),
    ("a length of 0: an error, never the end of the connection", "db", || {
        RANGED.map(|kind| (request(kind, 0, 0), errno::INVALID)).to_vec()
    }),
    ("an unknown command: EINVAL", "db", || {
        // 8 is RESIZE, an extension that is not served.
        [8, 9, 77, u16::MAX]
            .map(|kind| (Ask::new(kind, 0, 512), errno::INVALID))
            .to_vec()
    }),
    ("BLOCK_STATUS without a meta context: EINVAL", "db", || {
        [(0, 512), (0, SIZE), (SIZE, 512), (0, 0)]
            .map(|(offset, length)| (Ask::new(command::BLOCK_STATUS, offset, length), errno::INVALID))
            .to_vec()
    }),
    (
        "a flag that is unknown or belongs to another command: EINVAL, the payload of a WRITE consumed",
        "db",
        || {
            RANGED
                .into_iter()
                .flat_map(|kind| {
                    let wrong = EVERY_FLAG.into_iter().filter(move |flag| *flag & fits(kind) == 0);
                    wrong.map(move |flag| (request(kind, 0, 512).with(flag), errno::INVALID))
                })
                .collect()
        },
    ),
    ("FLUSH with a range: EINVAL", "db", || {
        [(0, 512), (512, 0)]
            .map(|(offset, length)| (Ask::new(command::FLUSH, offset, length), errno::INVALID))
            .to_vec()
    }),
];

/// The flags a command may have, be they advertised or not; those are tried by [`unadvertised_features`].
fn fits(kind: u16) -> u16 {
    command::FUA
        | match kind {
            command::READ => command::DF,
            command::WRITE_ZEROES => command::NO_HOLE | FAST_ZERO,
            _ => 0,
        }
}

#[test]
fn refusals() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for (what, export, requests) in CASES {
            let mut dialogue = stage.open(export, style)?;
            for (ask, error) in requests() {
                // With extended headers PAYLOAD_LEN means something, and too long a payload ends the connection.
                let is_too_long = ask.command == command::WRITE && ask.length > PAYLOAD_MAX;
                if style == Style::Extended && (ask.flags & PAYLOAD_LEN != 0 || is_too_long) {
                    continue;
                }
                dialogue
                    .refused(&ask, error)
                    .with_context(|| format!("{what}\n{}", stage.node.log()))?;
            }
        }
        untouched(&stage).with_context(|| format!("{style:?}"))?;
    }
    Ok(())
}

/// What was refused has changed nothing.
fn untouched(stage: &Stage) -> Result<()> {
    for export in ["db", "read-only", "blocks", "big"] {
        let mut dialogue = stage.open(export, STYLES[0])?;
        let zeroes = dialogue.read(0, SIZE)?.iter().all(|byte| *byte == 0);
        ensure!(zeroes, "{export} was changed");
    }
    Ok(())
}

/// What was not advertised is EINVAL, whatever it is, and harms nothing.
#[test]
fn unadvertised_features() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for export in ["db", "read-only", "mirrored", "memory"] {
            let mut dialogue = stage.open(export, style)?;
            let flags = dialogue.raw.flags;
            let error = |dialogue: &Dialogue| match dialogue.raw.flags & 2 {
                0 => errno::INVALID,
                _ => errno::PERM,
            };
            let unadvertised = [
                (7, Ask::new(command::READ, 0, 512).with(command::DF), errno::INVALID),
                (10, Ask::new(command::CACHE, 0, 512), errno::INVALID),
                (
                    11,
                    Ask::new(command::WRITE_ZEROES, 0, 512).with(FAST_ZERO),
                    error(&dialogue),
                ),
                (6, Ask::new(command::WRITE_ZEROES, 0, 512), error(&dialogue)),
                (5, Ask::new(command::TRIM, 0, 512), error(&dialogue)),
                (
                    12,
                    Ask::new(command::BLOCK_STATUS, 0, 512).with(REQ_ONE),
                    errno::INVALID,
                ),
            ];
            for (bit, ask, error) in unadvertised {
                if flags & 1 << bit == 0 {
                    dialogue.refused(&ask, error).with_context(|| export.to_owned())?;
                }
            }
        }
    }
    Ok(())
}

/// `Request message`: what does not begin with the magic ends the connection, and nobody else's.
#[test]
fn a_request_without_its_magic() -> Result<()> {
    let stage = Stage::new()?;
    let mut bystander = stage.open("db", STYLES[0])?;
    for style in STYLES {
        for at in 0..4 {
            let mut dialogue = stage.open("db", style)?;
            let (_, mut bytes) = dialogue.prepare(&Ask::new(command::READ, 0, 512));
            bytes[at] ^= 0x40;
            dialogue.raw.send(&bytes)?;
            ensure!(dialogue.raw.ends()?, "{style:?}: byte {at} does not count");
            bystander.read(0, 512)?;
        }
    }
    Ok(())
}
