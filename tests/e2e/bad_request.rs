//! Malformed requests: each gets its error, the stream stays in step, and everybody else is served as before.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::{Raw, command, errno, option, request};
use blockmirror_tests::scratch::Scratch;

const SIZE: u64 = 16 << 20;
/// Longest payload a request may have.
const PAYLOAD_MAX: u32 = 32 << 20;

type Case = (&'static str, fn(&mut Raw) -> Result<()>);

const CASES: [Case; 20] = [
    ("READ past the end", |raw| {
        error(raw, 0, command::READ, SIZE - 4096, 8192, errno::INVALID)
    }),
    ("READ far past the end", |raw| {
        error(raw, 0, command::READ, u64::MAX - 4095, 4096, errno::INVALID)
    }),
    ("READ whose end overflows", |raw| {
        error(raw, 0, command::READ, u64::MAX, u32::MAX, errno::OVERFLOW)
    }),
    ("READ longer than the maximum", |raw| {
        error(raw, 0, command::READ, 0, PAYLOAD_MAX + 4096, errno::OVERFLOW)
    }),
    ("READ of nothing", |raw| {
        error(raw, 0, command::READ, 0, 0, errno::INVALID)
    }),
    ("WRITE past the end: its payload is consumed", |raw| {
        ensure!(raw.write(0, SIZE - 4096, &[9; 8192])? == errno::NO_SPACE);
        Ok(())
    }),
    ("WRITE at an offset that overflows", |raw| {
        ensure!(raw.write(0, u64::MAX - 100, &[9; 4096])? != 0);
        Ok(())
    }),
    (
        "WRITE longer than the maximum: its payload is consumed or the connection closed",
        |raw| {
            let sent = raw.send_write(0, 0, &vec![9; PAYLOAD_MAX as usize + 4096]);
            match sent.and_then(|_| raw.reply()) {
                Ok((_, error)) => ensure!(error == errno::INVALID, "error {error}"),
                Err(_) => ensure!(raw.is_closed()),
            }
            Ok(())
        },
    ),
    ("WRITE that announces 4 GiB is not given memory", |raw| {
        raw.request(0, command::WRITE, 0, u32::MAX)?;
        raw.send(&vec![9; 1 << 20])
    }),
    ("WRITE of nothing", |raw| {
        ensure!(raw.write(0, 0, &[])? == errno::INVALID);
        Ok(())
    }),
    ("TRIM past the end", |raw| {
        error(raw, 0, command::TRIM, SIZE, 4096, errno::INVALID)
    }),
    ("WRITE_ZEROES past the end", |raw| {
        error(raw, 0, command::WRITE_ZEROES, SIZE - 1, 4096, errno::NO_SPACE)
    }),
    ("FLUSH with a range", |raw| {
        error(raw, 0, command::FLUSH, 4096, 4096, errno::INVALID)
    }),
    ("an unknown command", |raw| error(raw, 0, 77, 0, 4096, errno::INVALID)),
    ("BLOCK_STATUS, which was not negotiated", |raw| {
        error(raw, 0, command::BLOCK_STATUS, 0, 4096, errno::INVALID)
    }),
    ("an unknown command flag", |raw| {
        error(raw, 0x8000, command::READ, 0, 4096, errno::INVALID)
    }),
    ("DF without structured replies", |raw| {
        error(raw, command::DF, command::READ, 0, 4096, errno::INVALID)
    }),
    ("NO_HOLE on a WRITE: its payload is consumed", |raw| {
        ensure!(raw.write(command::NO_HOLE, 0, &[9; 4096])? == errno::INVALID);
        Ok(())
    }),
    ("a request without its magic closes the connection", |raw| {
        let mut bytes = request(0, command::READ, 1, 0, 4096);
        bytes[0] ^= 0xff;
        raw.send(&bytes)?;
        ensure!(raw.is_closed());
        Ok(())
    }),
    ("gone in the middle of a payload", |raw| {
        raw.request(0, command::WRITE, 0, 65_536)?;
        raw.send(&[9; 1000])
    }),
];

/// The request is answered with `wanted`, and the stream is in step afterwards.
fn error(raw: &mut Raw, flags: u16, command: u16, offset: u64, length: u32, wanted: u32) -> Result<()> {
    let error = raw.call(flags, command, offset, length)?;
    ensure!(error == wanted, "error {error} instead of {wanted}");
    in_step(raw)
}

fn in_step(raw: &mut Raw) -> Result<()> {
    ensure!(raw.read(4096, 4096)? == vec![7; 4096], "the stream is out of step");
    Ok(())
}

#[test]
fn malformed_requests_hurt_nobody_else() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), SIZE)]);
    let node = Node::start(scratch.path(), &config)?;
    let mut bystander = node.open("db")?;
    ensure!(bystander.write(0, 4096, &[7; 4096])? == 0);
    for (what, act) in CASES {
        act(&mut node.open("db")?).with_context(|| format!("{what}\n{}", node.log()))?;
        in_step(&mut bystander).with_context(|| format!("{what}: the bystander is disturbed"))?;
        in_step(&mut node.open("db")?).with_context(|| format!("{what}: new clients are not served"))?;
    }
    // What was refused has changed nothing: the bystander reads zeroes everywhere else.
    ensure!(bystander.read(0, 4096)? == vec![0; 4096] && bystander.read(SIZE - 8192, 8192)? == vec![0; 8192]);
    Ok(())
}

#[test]
fn structured_errors_name_the_reason() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), SIZE)]);
    let node = Node::start(scratch.path(), &config)?;
    let mut raw = Raw::connect(&node.socket())?;
    raw.greet(3)?;
    ensure!(raw.option(option::STRUCTURED_REPLY, &[])?[0].kind == option::ACK);
    raw.go("db")?;
    let cookie = raw.request(0, command::READ, SIZE, 4096)?;
    let (flags, kind, answered, payload) = raw.chunk()?;
    ensure!(
        (flags, answered) == (1, cookie) && kind & 0x8000 != 0,
        "chunk {kind:#x}, flags {flags}"
    );
    let text = String::from_utf8_lossy(&payload[6..]).into_owned();
    ensure!(
        payload[..4] == errno::INVALID.to_be_bytes() && text.contains("end"),
        "{payload:x?} {text:?}"
    );
    // And a read that is right comes as data chunks that fill its range.
    let cookie = raw.request(0, command::READ, 0, 65_536)?;
    let mut covered = 0;
    loop {
        let (flags, kind, answered, payload) = raw.chunk()?;
        ensure!(answered == cookie);
        covered += match kind {
            1 => payload.len() - 8,
            2 => u32::from_be_bytes(payload[8..12].try_into()?) as usize,
            0 => 0,
            other => anyhow::bail!("chunk type {other}"),
        };
        if flags & 1 != 0 {
            break;
        }
    }
    ensure!(covered == 65_536, "{covered} bytes were answered");
    Ok(())
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), SIZE)]);
    let mut node = Node::start(scratch.path(), &config)?;
    let mut greedy = node.open("db")?;
    // In one piece: the daemon stops receiving long before the last, and 512 small pieces would not fit the socket.
    let requests: Vec<u8> = (0..512)
        .flat_map(|cookie| request(0, command::READ, cookie, 0, 4 << 20))
        .collect();
    greedy.send(&requests)?;
    let mut bystander = node.open("db")?;
    for _ in 0..20 {
        bystander.read(0, 65_536)?;
        ensure!(bystander.write(0, 0, &[0; 4096])? == 0);
    }
    let (_, peak) = node.running()?.resident_bytes()?;
    ensure!(
        peak < 256 << 20,
        "2 GiB were asked and not read: the daemon grew to {peak} bytes"
    );
    Ok(())
}
