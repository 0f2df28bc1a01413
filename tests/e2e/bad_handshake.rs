//! Malformed handshakes: each gets its answer or is closed, and everybody else is served as before.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::{Raw, info_request, option};
use blockmirror_tests::scratch::Scratch;

type Case = (&'static str, fn(&mut Raw) -> Result<()>);

const CASES: [Case; 18] = [
    ("not NBD at all", |raw| {
        raw.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")?;
        closed(raw)
    }),
    ("unknown client flags", |raw| {
        raw.greet(0x8000_0003)?;
        closed(raw)
    }),
    ("an option without its magic", |raw| {
        raw.greet(3)?;
        raw.send(&[0xab; 64])?;
        closed(raw)
    }),
    ("an unknown option with data is refused, the next is answered", |raw| {
        raw.greet(3)?;
        refused(raw, 0x4242, &[1; 300], option::ERROR_UNSUPPORTED)?;
        raw.go("db")
    }),
    ("an option that announces 4 GiB is not waited for in memory", |raw| {
        raw.greet(3)?;
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option::GO.to_be_bytes());
        bytes.extend(u32::MAX.to_be_bytes());
        raw.send(&bytes)?;
        raw.send(&vec![0; 1 << 20])
    }),
    ("LIST with data", |raw| {
        raw.greet(3)?;
        refused(raw, option::LIST, &[0; 4], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("STRUCTURED_REPLY with data", |raw| {
        raw.greet(3)?;
        refused(raw, option::STRUCTURED_REPLY, &[0; 4], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("GO for an export that is not there", |raw| {
        raw.greet(3)?;
        refused(raw, option::GO, &info_request("nothing", &[]), option::ERROR_UNKNOWN)?;
        raw.go("db")
    }),
    ("EXPORT_NAME for an export that is not there", |raw| {
        raw.greet(3)?;
        raw.send_option(option::EXPORT_NAME, b"nothing")?;
        closed(raw)
    }),
    ("GO cut short inside", |raw| {
        raw.greet(3)?;
        refused(raw, option::GO, &[0, 0, 0, 2, b'd'], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("GO whose name length is a lie", |raw| {
        raw.greet(3)?;
        let mut payload = info_request("db", &[]);
        payload[0] = 0x7f;
        refused(raw, option::GO, &payload, option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("INFO with fewer requests than announced", |raw| {
        raw.greet(3)?;
        let mut payload = info_request("db", &[3]);
        payload[7] = 9;
        refused(raw, option::INFO, &payload, option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("GO with no data", |raw| {
        raw.greet(3)?;
        refused(raw, option::GO, &[], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("an export name that is not UTF-8", |raw| {
        raw.greet(3)?;
        refused(raw, option::GO, &[0, 0, 0, 2, 0xff, 0xfe, 0, 0], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("an export name with a NUL", |raw| {
        raw.greet(3)?;
        refused(raw, option::GO, &[0, 0, 0, 2, b'd', 0, 0, 0], option::ERROR_INVALID)?;
        raw.go("db")
    }),
    ("an export name of 5000 bytes", |raw| {
        raw.greet(3)?;
        let replies = raw.option(option::GO, &info_request(&"n".repeat(5000), &[]))?;
        let last = replies.last().context("no reply")?;
        ensure!(last.kind & 0x8000_0000 != 0, "{last:x?}");
        raw.go("db")
    }),
    ("options without end", |raw| {
        raw.greet(3)?;
        for _ in 0..100_000 {
            if raw.option(option::LIST, &[]).is_err() {
                return Ok(());
            }
        }
        anyhow::bail!("a hundred thousand options were answered")
    }),
    ("gone in the middle of an option header", |raw| {
        raw.greet(3)?;
        raw.send(b"IHAVE")
    }),
];

fn closed(raw: &mut Raw) -> Result<()> {
    ensure!(raw.is_closed(), "the connection stays open");
    Ok(())
}

fn refused(raw: &mut Raw, option: u32, payload: &[u8], error: u32) -> Result<()> {
    let replies = raw.option(option, payload)?;
    ensure!(
        replies.len() == 1 && replies[0].kind == error,
        "expected error {error:x}, got {replies:x?}"
    );
    Ok(())
}

#[test]
fn malformed_handshakes_hurt_nobody_else() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), 16 << 20)]);
    let node = Node::start(scratch.path(), &config)?;
    let mut bystander = node.open("db")?;
    ensure!(bystander.write(0, 0, &[7; 4096])? == 0);
    for (what, act) in CASES {
        act(&mut Raw::connect(&node.socket())?).with_context(|| format!("{what}\n{}", node.log()))?;
        ensure!(
            bystander.read(0, 4096)? == vec![7; 4096],
            "{what}: the bystander is disturbed"
        );
        ensure!(
            node.open("db")?.read(0, 4096)? == vec![7; 4096],
            "{what}: new clients are not served"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_says_nothing_is_closed() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), 16 << 20)]);
    config.settings = "limits.handshake_timeout = \"500ms\"".to_owned();
    let node = Node::start(scratch.path(), &config)?;
    let mut silent = Raw::connect(&node.socket())?;
    silent.greet(3)?;
    closed(&mut silent)
}

#[test]
fn connections_past_the_limit_are_refused_and_room_is_found_again() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), 16 << 20)]);
    config.settings = "limits.max_connections = 4".to_owned();
    let node = Node::start(scratch.path(), &config)?;
    // The probe that waited for the daemon may still hold a place for a moment.
    let mut held = Vec::new();
    blockmirror_tests::wait::until("four connections", blockmirror_tests::wait::PROMPT, || {
        held.push(node.open("db").ok()?);
        (held.len() == 4).then_some(())
    })?;
    ensure!(node.open("db").is_err(), "a fifth connection was served");
    for raw in &mut held {
        raw.read(0, 4096)?;
    }
    held.pop();
    blockmirror_tests::wait::until("room for another", blockmirror_tests::wait::PROMPT, || {
        node.open("db").ok()
    })?;
    Ok(())
}

#[test]
fn handshakes_that_are_right_are_not_refused() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), 16 << 20)]);
    let node = Node::start(scratch.path(), &config)?;
    let mut raw = Raw::connect(&node.socket())?;
    raw.greet(3)?;
    let listed = raw.option(option::LIST, &[])?;
    ensure!(
        listed[0].kind == option::SERVER && listed[0].payload == b"\0\0\0\x02db",
        "{listed:x?}"
    );
    // INFO tells what GO will.
    let (info, go) = (option::INFO, info_request("db", &[0, 1, 2, 3]));
    let told = raw.option(info, &go)?;
    ensure!(
        told.iter().any(|reply| reply.payload.starts_with(&[0, 3])),
        "no block sizes: {told:x?}"
    );
    let again = raw.option(option::GO, &go)?;
    ensure!(told.len() == again.len() && told.iter().zip(&again).all(|(a, b)| a.payload == b.payload));
    raw.read(0, 4096)?;
    let mut aborted = Raw::connect(&node.socket())?;
    aborted.greet(3)?;
    let replies = aborted.option(option::ABORT, &[])?;
    ensure!(replies[0].kind == option::ACK, "ABORT is acknowledged: {replies:x?}");
    closed(&mut aborted)?;
    // The old way in, with and without the 124 zeroes.
    for (flags, length) in [(3, 10), (1, 134)] {
        let mut old = Raw::connect(&node.socket())?;
        old.greet(flags)?;
        old.send_option(option::EXPORT_NAME, b"db")?;
        let answer = old.receive(length)?;
        ensure!(answer[..8] == (16_u64 << 20).to_be_bytes(), "{answer:x?}");
        old.read(0, 4096)?;
    }
    Ok(())
}
