//! The short form of `scripts/hostile`, and what one client cannot do to another with the usual limits.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::hostile::{self, Attack, Measure};
use blockmirror_tests::node::Node;
use blockmirror_tests::process::Process;
use blockmirror_tests::raw::{Raw, command, request};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PROMPT};

const MIB: u64 = 1 << 20;

#[test]
fn a_good_client_is_served_beside_all_others() -> Result<()> {
    let measure = Measure {
        rounds: 1,
        period: Duration::from_millis(500),
        one_after_another: 300,
        at_once: 300,
    };
    let outcomes = hostile::run(&Attack::ALL, &measure, |_| {})?;
    ensure!(outcomes.iter().all(|outcome| outcome.connections > 0));
    Ok(())
}

fn node(scratch: &Scratch, port: u16, limits: &str) -> Result<Node> {
    let resource = Resource::plain("db", &scratch.sparse_file("db.img", 64 * MIB)?, 64 * MIB);
    let mut config = NodeConfig::new("alpha", vec![resource]);
    config.listen = vec![format!("tcp:127.0.0.1:{port}")];
    config.settings = format!("[limits]\n{limits}\n");
    Node::start(scratch.path(), &config)
}

fn tcp(port: u16) -> Result<Raw> {
    let mut raw = Raw::connect_tcp(&format!("127.0.0.1:{port}"))?;
    raw.greet(3)?;
    raw.go("db")?;
    Ok(raw)
}

#[test]
fn payloads_that_never_arrive_leave_room_for_small_requests() -> Result<()> {
    let scratch = Scratch::new()?;
    let port = tool::free_port()?;
    let node = node(&scratch, port, "")?;
    let mut liars = Vec::new();
    for n in 0..4 {
        let mut liar = tcp(port)?;
        liar.send(&request(0, command::WRITE, n, 0, 32 << 20))?;
        liar.send(&[1])?;
        liars.push(liar);
    }
    wait::until("all room to be taken", PROMPT, || {
        (node.volume("db").ok()?.bytes_in_flight >= 64 * MIB).then_some(())
    })?;
    let mut good = node.open("db")?;
    for n in 0..64 {
        ensure!(good.write(0, n * 65536, &[n as u8; 65536])? == 0);
    }
    ensure!(good.read(63 * 65536, 512)? == [63; 512]);
    Ok(())
}

#[test]
fn one_client_has_its_share_of_connections() -> Result<()> {
    let scratch = Scratch::new()?;
    let port = tool::free_port()?;
    let node = node(&scratch, port, "max_connections_per_client = 8")?;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Raw::connect_tcp(&format!("127.0.0.1:{port}"))?);
    }
    wait::until("half of its places to be taken by silent ones", PROMPT, || {
        tcp(port).is_err().then_some(())
    })?;
    node.open("db")?.flush()?;
    drop(silent);
    wait::until("room for one more", PROMPT, || tcp(port).ok())?;
    let mut held = Vec::new();
    wait::until("all of its places to be taken", PROMPT, || match tcp(port) {
        Ok(raw) => {
            held.push(raw);
            None
        }
        Err(_) => Some(()),
    })?;
    ensure!(held.len() <= 8, "{} connections", held.len());
    node.open("db")?.flush()
}

#[test]
fn without_descriptors_clients_are_shown_out_and_let_in_again() -> Result<()> {
    let scratch = Scratch::new()?;
    let socket = scratch.join("s");
    let server = tool::binary("blockmirror-server")?.display().to_string();
    let arguments = [
        "--nofile=48:48",
        &server,
        "serve",
        "memory:1MiB",
        "--unix",
        &socket.display().to_string(),
    ];
    let mut process = Process::start(
        "serve",
        Path::new("/usr/bin/prlimit"),
        &arguments.map(str::to_owned),
        &scratch.join("log"),
    )?;
    process.wait_until("it is ready", PROMPT, |process| process.output().contains("ready "))?;
    let mut held = Vec::new();
    for _ in 0..64 {
        // Refused or not, nobody waits.
        if let Ok(raw) = Raw::open(&socket, "") {
            held.push(raw);
        }
    }
    ensure!(held.len() < 48, "{} clients with 48 descriptors", held.len());
    for raw in &mut held {
        raw.flush()?;
    }
    drop(held);
    wait::until("room again", PROMPT, || Raw::open(&socket, "").ok())?.flush()?;
    ensure!(process.terminate(PROMPT)?.success(), "{}", process.output());
    Ok(())
}
