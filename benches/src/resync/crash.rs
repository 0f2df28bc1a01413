//! What a resync moves after the Primary was killed under load.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::{ConnectionState, ResyncStatus};
use blockmirror_tests::compare;
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::raw::Raw;
use blockmirror_tests::wait::PATIENT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::VOLUME;

const SIZE: u64 = 1 << 30;
/// The link, as `tc` reads it.
const LIMIT: &str = "200mbit";
const DEPTH: usize = 32;
/// Answers before the kill.
const WRITES: u64 = 4_000;
/// What the other node has received is applied after this.
const SETTLED: Duration = Duration::from_millis(500);

/// One crash.
pub struct Crash {
    /// Bytes of the blocks in which the images differed before the restart.
    pub differing: u64,
    pub resync: ResyncStatus,
}

/// So many crashes, one after the other.
pub fn measure(crashes: usize) -> Result<Vec<Crash>> {
    let mut partners = Partners::new(Setup {
        volumes: vec![(VOLUME.to_owned(), SIZE)],
        namespaces: true,
        in_memory: true,
        ..Setup::default()
    })?;
    // Narrow, so that the nodes differ by what is on its way when one of them is killed.
    partners.link.as_ref().context("no namespaces")?.limit(LIMIT)?;
    let mut load = Load::new(SIZE / BLOCK, DEPTH, 7);
    (0..crashes).map(|_| crash(&mut partners, &mut load)).collect()
}

fn crash(partners: &mut Partners, load: &mut Load) -> Result<Crash> {
    let id = i32::try_from(partners.nodes[0].running()?.id())?;
    let until = load.writes + WRITES;
    let mut raw = Raw::open(&partners.nodes[0].socket(), VOLUME)?;
    let mut killed = false;
    let ended = load.run(&mut raw, |load| {
        if load.writes >= until && !killed {
            killed = kill(Pid::from_raw(id), Signal::SIGKILL).is_ok();
        }
        false
    });
    ensure!(killed && ended.is_err(), "the load ended otherwise: {ended:?}");
    partners.nodes[0].kill();
    blockmirror_tests::wait::until("the loss of the Primary", PATIENT, || {
        let lost = |state| state != ConnectionState::Connected;
        let resource = partners.resource(1).ok()?;
        resource
            .partners
            .iter()
            .all(|it| lost(it.connection_state))
            .then_some(())
    })?;
    thread::sleep(SETTLED);
    let differing = compare::different_blocks(&partners.image(0, VOLUME), &partners.image(1, VOLUME))? * BLOCK;
    let earlier = partners.nodes[1].last_resync(VOLUME).ok();
    partners.nodes[0].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    load.verify(&mut partners.open(0, VOLUME)?)?;
    partners.assert_identical()?;
    // Either may be the source. One of them was restarted: whatever it remembers is of now.
    let there = partners.nodes[1].last_resync(VOLUME).ok();
    let resync = partners.nodes[0]
        .last_resync(VOLUME)
        .ok()
        .or(there.filter(|it| Some(it) != earlier.as_ref()));
    Ok(Crash {
        differing,
        resync: resync.context("there was no resync")?,
    })
}
