//! Requests in flight: cookies, order, several connections, the end.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use blockmirror_tests::dialogue::wire::Style;
use blockmirror_tests::dialogue::{Ask, Dialogue};
use blockmirror_tests::raw::command;
use blockmirror_tests::wait::{PROMPT, until};

use super::{SIZE, STYLES, Stage};

const DEPTH: u64 = 64;

/// "Transmission": the cookie is the client's, whatever it is, and each is answered once.
#[test]
fn cookies() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        let mut dialogue = stage.open("db", style)?;
        let cookies = [0, 1, u64::MAX, 1 << 63, 0x6744_6698_0000_0000, 0x668e_33ef_6e8a_278c];
        let mut bytes = Vec::new();
        for cookie in cookies {
            bytes.extend(dialogue.prepare_as(cookie, &Ask::new(command::READ, 0, 4096)));
        }
        dialogue.raw.send(&bytes)?;
        let mut answered = BTreeSet::new();
        for _ in cookies {
            answered.insert(dialogue.receive()?.0);
        }
        ensure!(answered == BTreeSet::from(cookies), "{style:?}: {answered:x?}");
        // A cookie that has been answered may be used again.
        for _ in 0..3 {
            let bytes = dialogue.prepare_as(7, &Ask::new(command::FLUSH, 0, 0));
            dialogue.raw.send(&bytes)?;
            ensure!(dialogue.receive()?.0 == 7);
        }
    }
    Ok(())
}

/// Requests of every kind, good and bad, in one piece; every byte of the replies is as it has to be.
#[test]
fn many_requests_at_once() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for export in ["db", "mirrored", "memory"] {
            let mut dialogue = stage.open(export, style)?;
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for n in 0..DEPTH {
                let (offset, fill) = (n * 65_536, n as u8 + 1);
                let asks = [
                    (Ask::write(offset, &vec![fill; 30_000]), 0),
                    (Ask::new(command::READ, SIZE - 512, 4096), 22),
                    (Ask::write(offset, &vec![fill; 512]).with(command::NO_HOLE), 22),
                    (Ask::new(command::WRITE_ZEROES, offset + 40_000, 5000), 0),
                    (Ask::new(command::FLUSH, 0, 0), 0),
                    (Ask::new(99, 0, 0), 22),
                    (Ask::new(command::READ, 8 << 20, 20_000), 0),
                ];
                for (ask, error) in asks {
                    let (cookie, more) = dialogue.prepare(&ask);
                    bytes.extend(more);
                    expected.push((cookie, error));
                }
            }
            // The replies are read while the requests are still being sent: neither side's socket holds them all.
            let replies = exchange(&mut dialogue, &bytes, expected.len())?;
            for (cookie, error) in expected {
                ensure!(
                    replies.contains(&(cookie, error)),
                    "{style:?} {export}: {cookie:#x} with {error}"
                );
            }
            for n in 0..DEPTH {
                ensure!(
                    dialogue.read(n * 65_536, 30_000)? == vec![n as u8 + 1; 30_000],
                    "block {n}"
                );
            }
        }
    }
    Ok(())
}

/// Sends piece by piece, and receives as many replies as were certainly asked for.
fn exchange(dialogue: &mut Dialogue, bytes: &[u8], count: usize) -> Result<BTreeSet<(u64, u32)>> {
    let mut replies = BTreeSet::new();
    let mut writer = dialogue.raw.try_clone()?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || writer.send(bytes));
        for _ in 0..count {
            let (cookie, answer) = dialogue.receive()?;
            replies.insert((cookie, answer.error));
        }
        sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok(replies)
    })
}

/// "Ordering of messages and writes", `NBD_FLAG_CAN_MULTI_CONN`: what one connection was told is seen by all, and
/// flushed by any.
#[test]
fn several_connections_are_one_export() -> Result<()> {
    let stage = Stage::new()?;
    for export in ["db", "mirrored", "memory"] {
        let mut connections = STYLES.map(|style| stage.open(export, style));
        for round in 0..50_u64 {
            for writer in 0..connections.len() {
                let fill = (round * 2 + writer as u64) as u8 | 1;
                let flags = if round % 2 == 0 { command::FUA } else { 0 };
                for (n, connection) in connections.iter_mut().enumerate() {
                    let connection = connection.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                    if n == writer {
                        connection.succeed(&Ask::write(round * 4096, &[fill; 4096]).with(flags))?;
                    }
                }
                for connection in connections.iter_mut().flatten() {
                    ensure!(
                        connection.read(round * 4096, 4096)? == [fill; 4096],
                        "{export}: round {round}"
                    );
                    connection.succeed(&Ask::new(command::FLUSH, 0, 0))?;
                }
            }
        }
    }
    Ok(())
}

/// `NBD_CMD_DISC`: no reply of its own, everything before it is answered, then the end of the stream.
#[test]
fn disconnecting() -> Result<()> {
    let stage = Stage::new()?;
    for style in STYLES {
        for round in 0..20 {
            let mut dialogue = stage.open("db", style)?;
            let mut bytes = Vec::new();
            for n in 0..32 {
                let ask = match (n + round) % 3 {
                    0 => Ask::new(command::READ, n * 4096, 4096),
                    1 => Ask::write(n * 4096, &[n as u8; 4096]).with(command::FUA),
                    _ => Ask::new(command::FLUSH, 0, 0),
                };
                bytes.extend(dialogue.prepare(&ask).1);
            }
            dialogue.raw.send(&bytes)?;
            dialogue.disconnect()?;
        }
        // Whatever else stands in its header.
        for (flags, offset, length) in [(1, 0, 0), (0x8000, 7, 9), (0, u64::MAX, 0xffff_ffff)] {
            let mut dialogue = stage.open("db", style)?;
            dialogue.send(&Ask::new(command::DISCONNECT, offset, length).with(flags))?;
            ensure!(
                dialogue.raw.ends()?,
                "{style:?}: DISC with {flags:#x} {offset} {length}"
            );
        }
    }
    Ok(())
}

/// "Terminating the transmission phase": a client that goes without a word, at any point, harms nobody.
#[test]
fn vanishing() -> Result<()> {
    let stage = Stage::new()?;
    let mut bystander = stage.open("db", Style::Simple)?;
    for style in STYLES {
        for round in 0..20 {
            let mut dialogue = stage.open("db", style)?;
            for n in 0..16 {
                dialogue.send(&Ask::new(command::READ, n * 65_536, 65_536))?;
                dialogue.send(&Ask::write(8 << 20, &[1; 8192]))?;
            }
            let (_, cut) = dialogue.prepare(&Ask::write(9 << 20, &[2; 40_000]));
            dialogue.raw.send(&cut[..cut.len() * round / 20])?;
            drop(dialogue);
            bystander.read(0, 512)?;
        }
    }
    until("every trace to be gone", PROMPT, || {
        let volume = stage.node.volume("db").ok()?;
        ((volume.connections, volume.requests_in_flight, volume.bytes_in_flight) == (1, 0, 0)).then_some(())
    })?;
    bystander.disconnect()
}
