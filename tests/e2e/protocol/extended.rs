//! Extended headers: the experimental extension `EXTENDED_HEADERS`.

use anyhow::{Result, ensure};
use blockmirror_tests::dialogue::wire::{PAYLOAD_LEN, Style};
use blockmirror_tests::dialogue::{Ask, Dialogue, EXTENDED_HEADERS};
use blockmirror_tests::raw::{command, errno, option};

use super::options::{in_step, refused};
use super::{BIG, Case, PAYLOAD_MAX, SIZE, Stage};

const ERROR_EXTENDED_HEADERS_REQUIRED: u32 = 0x8000_000a;

fn open(stage: &Stage, export: &str) -> Result<Dialogue> {
    stage.open(export, Style::Extended)
}

/// `NBD_OPT_EXTENDED_HEADERS`.
const NEGOTIATION: [Case; 6] = [
    (
        "EXTENDED_HEADERS is acknowledged, with structured replies before it or not, and again",
        |stage| {
            for before in [&[][..], &[option::STRUCTURED_REPLY], &[EXTENDED_HEADERS]] {
                let mut raw = stage.greeted()?;
                for option in before {
                    ensure!(raw.option(*option, &[])?[0].kind == option::ACK);
                }
                ensure!(
                    raw.option(EXTENDED_HEADERS, &[])?[0].kind == option::ACK,
                    "after {before:?}"
                );
                in_step(&mut raw)?;
                raw.go("db")?;
            }
            Ok(())
        },
    ),
    ("EXTENDED_HEADERS with data is invalid", |stage| {
        let mut raw = stage.greeted()?;
        refused(&mut raw, EXTENDED_HEADERS, &[0; 8], option::ERROR_INVALID)?;
        raw.go("db")?;
        ensure!(raw.read(0, 512)?.len() == 512, "nothing was agreed");
        Ok(())
    }),
    (
        "STRUCTURED_REPLY after EXTENDED_HEADERS is refused, and takes nothing back",
        |stage| {
            let mut raw = stage.greeted()?;
            ensure!(raw.option(EXTENDED_HEADERS, &[])?[0].kind == option::ACK);
            refused(&mut raw, option::STRUCTURED_REPLY, &[], ERROR_EXTENDED_HEADERS_REQUIRED)?;
            raw.go("db")?;
            let compact = blockmirror_tests::raw::request(0, command::READ, 1, 0, 512);
            // Two of them: it is seen when a whole header has come.
            raw.send(&[compact, compact].concat())?;
            ensure!(raw.ends()?, "a compact request is served beside extended headers");
            Ok(())
        },
    ),
    ("EXPORT_NAME after EXTENDED_HEADERS closes the connection", |stage| {
        let mut raw = stage.greeted()?;
        ensure!(raw.option(EXTENDED_HEADERS, &[])?[0].kind == option::ACK);
        raw.send_option(option::EXPORT_NAME, b"db")?;
        ensure!(raw.ends()?);
        Ok(())
    }),
    (
        "an extended request without extended headers closes the connection",
        |stage| {
            for style in [Style::Simple, Style::Structured] {
                let mut dialogue = stage.open("db", style)?;
                let (_, bytes) = open(stage, "db")?.prepare(&Ask::new(command::READ, 0, 512));
                dialogue.raw.send(&bytes)?;
                ensure!(dialogue.raw.ends()?, "{style:?}");
            }
            Ok(())
        },
    ),
    ("who asks for nothing is served with compact headers", |stage| {
        let mut raw = stage.greeted()?;
        raw.go("db")?;
        ensure!(raw.read(0, 512)?.len() == 512);
        Ok(())
    }),
];

#[test]
fn negotiation() -> Result<()> {
    Stage::new()?.play(&NEGOTIATION)
}

/// `Request message`, `NBD_CMD_FLAG_PAYLOAD_LEN`, "Extended reply chunk message".
const REQUESTS: [Case; 6] = [
    (
        "a WRITE without PAYLOAD_LEN, as QEMU sends it, is taken with its payload",
        |stage| {
            let mut dialogue = open(stage, "db")?;
            for length in [1, 512, 100_000] {
                let data = vec![length as u8; length];
                // The harness sets the flag.
                let (_, mut bytes) = dialogue.prepare(&Ask::write(0, &data));
                bytes[5] &= !(PAYLOAD_LEN as u8);
                dialogue.raw.send(&bytes)?;
                ensure!(dialogue.receive()?.1.error == 0, "{length}");
                ensure!(dialogue.read(0, length as u64)? == data);
            }
            Ok(())
        },
    ),
    ("a payload where none belongs is consumed, then EINVAL", |stage| {
        let mut dialogue = open(stage, "db")?;
        for kind in [
            command::READ,
            command::FLUSH,
            command::TRIM,
            command::CACHE,
            command::WRITE_ZEROES,
            99,
        ] {
            for length in [1, 512, 40_000, 1 << 20] {
                let mut ask = Ask::new(kind, 0, length).with(PAYLOAD_LEN);
                ask.payload = vec![0x25; length as usize];
                dialogue.refused(&ask, errno::INVALID)?;
            }
        }
        Ok(())
    }),
    ("a payload beyond the longest closes the connection", |stage| {
        for kind in [command::WRITE, command::TRIM, 99] {
            for length in [PAYLOAD_MAX + 1, 1 << 32, u64::MAX] {
                let mut dialogue = open(stage, "big")?;
                dialogue.send(&Ask::new(kind, 0, length).with(PAYLOAD_LEN))?;
                ensure!(dialogue.raw.ends()?, "command {kind}, {length} bytes");
            }
        }
        Ok(())
    }),
    ("TRIM, WRITE_ZEROES and CACHE of more than 4 GiB", |stage| {
        let mut dialogue = open(stage, "big")?;
        dialogue.succeed(&Ask::write(5 << 30, &[7; 4096]))?;
        for kind in [command::CACHE, command::TRIM] {
            dialogue.succeed(&Ask::new(kind, 0, BIG))?;
        }
        dialogue.succeed(&Ask::write(5 << 30, &[7; 4096]))?;
        dialogue.succeed(&Ask::new(command::WRITE_ZEROES, 512, BIG - 512))?;
        ensure!(dialogue.read(5 << 30, 4096)? == [0; 4096]);
        Ok(())
    }),
    ("lengths that no export has are refused", |stage| {
        let mut dialogue = open(stage, "big")?;
        for length in [BIG + 1, 1 << 40, u64::MAX - 511, u64::MAX] {
            for (kind, error) in [
                (command::READ, errno::OVERFLOW),
                (command::TRIM, errno::INVALID),
                (command::CACHE, errno::INVALID),
                (command::WRITE_ZEROES, errno::NO_SPACE),
            ] {
                dialogue.refused(&Ask::new(kind, 512, length), error)?;
            }
        }
        Ok(())
    }),
    ("every reply tells the offset of its request, errors too", |stage| {
        let mut dialogue = open(stage, "db")?;
        for offset in [0, 4096, SIZE - 512, SIZE, u64::MAX] {
            for kind in [command::READ, command::TRIM, command::CACHE, 99] {
                dialogue.ask(&Ask::new(kind, offset, 512))?;
            }
        }
        Ok(())
    }),
];

#[test]
fn requests() -> Result<()> {
    Stage::new()?.play(&REQUESTS)
}
