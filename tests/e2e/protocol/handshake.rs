//! The greeting, the end of the option haggling, and the way into the transmission phase.

use anyhow::{Result, ensure};
use blockmirror_tests::raw::{command, info_request, option, request};

use super::{Case, SIZE, Stage};

/// "Newstyle negotiation", "Fixed newstyle negotiation", "Handshake flags", "Client flags".
const GREETING: [Case; 5] = [
    (
        "the server offers FIXED_NEWSTYLE and NO_ZEROES, and nothing else",
        |stage| {
            ensure!(stage.connect()?.greet(3)? == 3);
            Ok(())
        },
    ),
    ("every unknown client flag closes the connection", |stage| {
        for bit in 2..32 {
            let mut raw = stage.connect()?;
            raw.greet(3 | 1 << bit)?;
            ensure!(raw.ends()?, "flag {bit} is taken");
        }
        Ok(())
    }),
    ("who does not set FIXED_NEWSTYLE is answered all the same", |stage| {
        let mut raw = stage.connect()?;
        raw.greet(0)?;
        ensure!(raw.option(option::LIST, &[])?.len() > 1);
        raw.go("db")
    }),
    (
        "124 zeroes follow EXPORT_NAME unless both sides agreed on NO_ZEROES",
        |stage| {
            for (flags, zeroes) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
                let mut raw = stage.connect()?;
                raw.greet(flags)?;
                raw.send_option(option::EXPORT_NAME, b"db")?;
                let answer = raw.receive(10 + zeroes)?;
                ensure!(answer[..8] == SIZE.to_be_bytes(), "{answer:x?}");
                ensure!(answer[10..].iter().all(|byte| *byte == 0), "{answer:x?}");
                ensure!(
                    raw.read(0, 512)?.len() == 512,
                    "the transmission phase begins behind them"
                );
            }
            Ok(())
        },
    ),
    ("no zeroes follow GO, whatever was agreed", |stage| {
        for flags in [1, 3] {
            let mut raw = stage.connect()?;
            raw.greet(flags)?;
            raw.go("db")?;
            ensure!(raw.read(0, 512)?.len() == 512);
        }
        Ok(())
    }),
];

#[test]
fn greeting() -> Result<()> {
    Stage::new()?.play(&GREETING)
}

/// "Termination of the session during option haggling", `NBD_OPT_ABORT`, `NBD_OPT_EXPORT_NAME`.
const ENDS: [Case; 7] = [
    ("ABORT is acknowledged, then the connection is closed", |stage| {
        let mut raw = stage.greeted()?;
        let replies = raw.option(option::ABORT, &[])?;
        ensure!(replies.len() == 1 && replies[0].kind == option::ACK && replies[0].payload.is_empty());
        ensure!(raw.ends()?);
        Ok(())
    }),
    ("ABORT with data is acknowledged as well", |stage| {
        let mut raw = stage.greeted()?;
        ensure!(raw.option(option::ABORT, &[7; 5000])?[0].kind == option::ACK);
        Ok(())
    }),
    (
        "who says ABORT and does not wait for the answer harms nobody",
        |stage| {
            for _ in 0..20 {
                stage.greeted()?.send_option(option::ABORT, &[])?;
            }
            Ok(())
        },
    ),
    ("who goes without ABORT harms nobody", |stage| {
        for _ in 0..20 {
            stage.greeted()?;
        }
        Ok(())
    }),
    (
        "EXPORT_NAME that cannot be met closes the connection without a byte",
        |stage| {
            for name in [&b"nothing"[..], b"d", b"db\0", b"\xff", b""] {
                let mut raw = stage.greeted()?;
                raw.send_option(option::EXPORT_NAME, name)?;
                ensure!(raw.ends()?, "{name:x?} is answered");
            }
            Ok(())
        },
    ),
    (
        "no option but EXPORT_NAME closes the connection, however often it is refused",
        |stage| {
            let mut raw = stage.greeted()?;
            for round in 0..100_u32 {
                let code = [4, option::GO, option::LIST, 0xdead_beef][round as usize % 4];
                let replies = raw.option(code, &[1, 2, 3])?;
                ensure!(replies.len() == 1 && replies[0].kind & 1 << 31 != 0, "{replies:x?}");
            }
            raw.go("db")
        },
    ),
    ("behind GO's acknowledgement everything is a request", |stage| {
        let mut raw = stage.greeted()?;
        // In one piece: nothing of the request may be taken for the handshake's.
        let go = info_request("db", &[]);
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option::GO.to_be_bytes());
        bytes.extend((go.len() as u32).to_be_bytes());
        bytes.extend(go);
        bytes.extend(request(0, command::READ, 5, 0, 512));
        raw.send(&bytes)?;
        // One reply with size and flags, the acknowledgement, and the reply to READ.
        let replies = raw.receive(20 + 12 + 20 + 16 + 512)?;
        ensure!(replies[52..60] == [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "{replies:x?}");
        ensure!(replies[60..68] == 5_u64.to_be_bytes(), "{replies:x?}");
        Ok(())
    }),
];

#[test]
fn ends() -> Result<()> {
    Stage::new()?.play(&ENDS)
}
