//! The commands, each in every style of reply and on every kind of image.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::dialogue::wire::FAST_ZERO;
use blockmirror_tests::dialogue::{Ask, Dialogue};
use blockmirror_tests::raw::{command, errno};

use super::{BIG, PAYLOAD_MAX, SIZE, STYLES, Stage};

/// Longest length of a request that Linux sends.
const LINUX_MAX: u64 = (4 << 30) - 512;

type Case = (&'static str, fn(&mut Dialogue) -> Result<()>);

const CASES: [Case; 9] = [
    (
        "READ brings what WRITE wrote, at any place and of any length",
        |dialogue| {
            let pattern: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8 + 1).collect();
            for (offset, length) in [
                (0, 1),
                (511, 3),
                (4095, 2),
                (12_345, 70_001),
                (SIZE - 200_000, 200_000),
                (SIZE - 1, 1),
            ] {
                let data = &pattern[..length];
                dialogue.succeed(&Ask::write(offset, data))?;
                ensure!(dialogue.read(offset, length as u64)? == data, "{offset}+{length}");
            }
            Ok(())
        },
    ),
    ("READ of the longest payload", |dialogue| {
        let length = PAYLOAD_MAX.min(dialogue.raw.size);
        ensure!(dialogue.read(0, length)?.len() as u64 == length);
        Ok(())
    }),
    ("READ with DF is one content chunk, zeroes and data alike", |dialogue| {
        dialogue.succeed(&Ask::new(command::WRITE_ZEROES, 0, 1 << 20))?;
        dialogue.succeed(&Ask::write(40_000, &[7; 10_000]))?;
        let df = if dialogue.raw.flags & 1 << 7 == 0 {
            0
        } else {
            command::DF
        };
        for length in [512, 65_536, 1 << 20] {
            let answer = dialogue.succeed(&Ask::new(command::READ, 0, length).with(df))?;
            ensure!(
                answer.data.iter().filter(|byte| **byte == 7).count() as u64
                    == 10_000.min(length.saturating_sub(40_000))
            );
        }
        Ok(())
    }),
    (
        "FUA is accepted on every command, and changes nothing where nothing is written",
        |dialogue| {
            let data = [5; 4096];
            dialogue.succeed(&Ask::write(8192, &data).with(command::FUA))?;
            for ask in [
                Ask::new(command::READ, 0, 512),
                Ask::new(command::FLUSH, 0, 0),
                Ask::new(command::CACHE, 0, 65_536),
                Ask::new(command::TRIM, 1 << 20, 65_536),
                Ask::new(command::WRITE_ZEROES, 2 << 20, 65_536),
            ] {
                dialogue.succeed(&ask.with(command::FUA))?;
            }
            ensure!(dialogue.read(8192, 4096)? == data);
            Ok(())
        },
    ),
    (
        "WRITE_ZEROES reads back as zeroes, with and without NO_HOLE",
        |dialogue| {
            for flags in [0, command::NO_HOLE, command::FUA, command::NO_HOLE | command::FUA] {
                dialogue.succeed(&Ask::write(0, &vec![9; 100_000]))?;
                dialogue.succeed(&Ask::new(command::WRITE_ZEROES, 1000, 98_000).with(flags))?;
                let data = dialogue.read(0, 100_000)?;
                ensure!(
                    data[..1000] == [9; 1000] && data[99_000..] == [9; 1000],
                    "flags {flags}: its edges"
                );
                ensure!(data[1000..99_000].iter().all(|byte| *byte == 0), "flags {flags}");
            }
            Ok(())
        },
    ),
    ("WRITE_ZEROES without FAST_ZERO is never ENOTSUP", |dialogue| {
        for (offset, length) in [(0, 1), (1, 4095), (0, SIZE), (4096, 65_536)] {
            dialogue.succeed(&Ask::new(command::WRITE_ZEROES, offset, length))?;
        }
        Ok(())
    }),
    (
        "TRIM harms nothing outside its range, and can be written over",
        |dialogue| {
            dialogue.succeed(&Ask::write(0, &vec![3; 300_000]))?;
            dialogue.succeed(&Ask::new(command::TRIM, 100_001, 100_000))?;
            let data = dialogue.read(0, 300_000)?;
            ensure!(
                data[..100_001].iter().chain(&data[200_001..]).all(|byte| *byte == 3),
                "its edges"
            );
            dialogue.succeed(&Ask::write(100_001, &vec![4; 100_000]))?;
            ensure!(dialogue.read(100_001, 100_000)? == vec![4; 100_000]);
            Ok(())
        },
    ),
    ("CACHE succeeds and changes nothing", |dialogue| {
        dialogue.succeed(&Ask::write(0, &[6; 4096]))?;
        for (offset, length) in [(0, 1), (0, SIZE), (4095, 4097)] {
            dialogue.succeed(&Ask::new(command::CACHE, offset, length))?;
        }
        ensure!(dialogue.read(0, 4096)? == [6; 4096]);
        Ok(())
    }),
    ("FLUSH succeeds, also with nothing to flush", |dialogue| {
        for _ in 0..3 {
            dialogue.succeed(&Ask::new(command::FLUSH, 0, 0))?;
        }
        Ok(())
    }),
];

#[test]
fn commands() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for export in ["db", "mirrored", "memory"] {
            let mut dialogue = stage.open(export, style)?;
            for (what, act) in CASES {
                act(&mut dialogue).with_context(|| format!("{export}, {style:?}: {what}\n{}", stage.node.log()))?;
            }
            dialogue.disconnect()?;
        }
    }
    Ok(())
}

/// `NBD_CMD_TRIM`, `NBD_CMD_WRITE_ZEROES`: their length is no payload, and has no limit of its own.
#[test]
fn lengths_up_to_four_gibibytes() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        let mut dialogue = stage.open("big", style)?;
        dialogue.succeed(&Ask::write(LINUX_MAX + 4096, &[1; 512]))?;
        for kind in [command::TRIM, command::WRITE_ZEROES, command::CACHE] {
            for (offset, length) in [(0, LINUX_MAX), (BIG - LINUX_MAX, LINUX_MAX), (1, u64::from(u32::MAX))] {
                if kind != command::CACHE && offset > 1 {
                    continue;
                }
                dialogue.succeed(&Ask::new(kind, offset, length))?;
            }
        }
        ensure!(
            dialogue.read(LINUX_MAX + 4096, 512)? == [1; 512],
            "{style:?}: behind the range"
        );
        ensure!(dialogue.read(LINUX_MAX - 4096, 4096)? == [0; 4096]);
    }
    Ok(())
}

/// `NBD_CMD_WRITE_ZEROES`: what NO_HOLE zeroes keeps its space.
#[test]
fn no_hole_is_provisioned() -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    let stage = Stage::new()?;
    let image = stage._scratch.join("db");
    let mut dialogue = stage.open("db", STYLES[0])?;
    let before = std::fs::metadata(&image)?.blocks();
    dialogue.succeed(&Ask::new(command::WRITE_ZEROES, 1 << 20, 4 << 20).with(command::NO_HOLE))?;
    dialogue.succeed(&Ask::new(command::FLUSH, 0, 0))?;
    let after = std::fs::metadata(&image)?.blocks();
    ensure!(
        after >= before + (4 << 20) / 512,
        "{before} blocks before, {after} after"
    );
    Ok(())
}

/// `NBD_CMD_FLAG_FAST_ZERO`: it is zero afterwards, or as it was.
#[test]
fn fast_zeroes() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for export in ["db", "mirrored", "memory"] {
            let mut dialogue = stage.open(export, style)?;
            ensure!(dialogue.raw.flags & 1 << 11 != 0, "{export}: it is not offered");
            for (offset, length) in [(0, SIZE), (512, 100_000), (1 << 20, 4096)] {
                for more in [0, command::NO_HOLE, command::FUA] {
                    dialogue.succeed(&Ask::write(offset, &[9; 4096]))?;
                    let ask = Ask::new(command::WRITE_ZEROES, offset, length).with(FAST_ZERO | more);
                    let expected = match dialogue.ask(&ask)?.error {
                        0 => 0,
                        errno::NOT_SUPPORTED => 9,
                        error => anyhow::bail!("{export}: {ask:?}: error {error}"),
                    };
                    ensure!(dialogue.read(offset, 4096)? == [expected; 4096], "{export}: {ask:?}");
                }
            }
        }
    }
    Ok(())
}
