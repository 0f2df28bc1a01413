//! Rounds of kill -9 at random moments, under a verifying load with flushes.
//!
//! Each round kills the primary, the peer or both while requests are in flight, starts them again, and requires that
//! every write that was acknowledged and flushed is there. Two rounds of three then wait for the resync and require
//! identical legs, and that the resync moved no more than what was dirty and hot; the third goes straight on, so
//! that kills also hit a running resync.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::compare;
use crate::load::{BLOCK, Load, Random};
use crate::pair::{EXPORT, Pair, Remote, Setup};
use crate::wait::{PATIENT, PROMPT};

const SIZE: u64 = 512 << 20;
const EXTENT: u64 = 4 << 20;
/// The fewest there can be: half of the volume's extents, so that the bound on resync bytes means something.
const HOT_EXTENTS: u64 = 64;
const DEPTH: usize = 16;
/// The longest a round's load runs before somebody is killed.
const KILL_WITHIN_MICROS: u64 = 400_000;
/// Writes that go on after the peer alone was killed.
const WRITES_WITHOUT_PEER: u64 = 100;

/// What happened in all rounds.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rounds done.
    pub rounds: u64,
    /// Of these, with the primary, the peer, or both killed.
    pub killed: [u64; 3],
    /// Rounds that ended with both images compared and found identical.
    pub compared: u64,
    /// Writes and flushes answered.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Blocks that held an older version than the last one answered, permitted because no flush had covered it.
    pub unflushed_lost: u64,
    /// Resyncs whose bytes were checked, and the bytes.
    pub resyncs: u64,
    /// Bytes they moved.
    pub moved_bytes: u64,
    /// Bytes they were permitted to move: dirty blocks and hot extents.
    pub permitted_bytes: u64,
    /// Crashes of the primary since the legs were last found identical: each adds the extents hot at its time.
    crashes: u64,
    /// The legs were found identical at the end of the last round: the resync behind it has been judged.
    settled: bool,
    /// Time taken.
    pub elapsed: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [primary, peer, both] = self.killed;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "rounds of kill -9        {} ({primary} primary, {peer} peer, {both} both)",
            self.rounds
        )?;
        writeln!(
            f,
            "requests answered        {} writes, {} flushes",
            self.writes, self.flushes
        )?;
        writeln!(f, "acknowledged and flushed writes lost   0")?;
        writeln!(f, "answered, not flushed, not there       {}", self.unflushed_lost)?;
        writeln!(
            f,
            "images compared          {} times, identical every time",
            self.compared
        )?;
        let (moved, permitted) = (mib(self.moved_bytes), mib(self.permitted_bytes));
        writeln!(
            f,
            "resyncs                  {}: {moved:.1} MiB moved, {permitted:.1} MiB dirty or hot",
            self.resyncs
        )?;
        write!(f, "time                     {:.0} s", self.elapsed.as_secs_f64())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Primary,
    Peer,
    Both,
}

/// Run up to `rounds` rounds, for at most `limit`. An error names the round and the broken promise.
pub fn run(rounds: u64, limit: Duration, seed: u64, mut progress: impl FnMut(&Tally)) -> Result<Tally> {
    let resource = format!("hot_extents = {HOT_EXTENTS}");
    let mut pair = Pair::new(&Setup {
        size: SIZE,
        resource: &resource,
        direct: true,
        ..Setup::default()
    })?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut random = Random::new(seed);
    let mut load = Load::new(SIZE / BLOCK, DEPTH, seed);
    let (started, mut tally) = (Instant::now(), Tally::default());
    while tally.rounds < rounds && started.elapsed() < limit {
        let victim = [Victim::Primary, Victim::Peer, Victim::Both][(tally.rounds % 3) as usize];
        round(&mut pair, &mut load, &mut random, victim, &mut tally).with_context(|| {
            format!(
                "round {} (seed {seed}, killed: {victim:?})\n{}",
                tally.rounds + 1,
                tail(&pair.primary.log())
            )
        })?;
        tally.rounds += 1;
        tally.killed[victim as usize] += 1;
        (tally.writes, tally.flushes, tally.elapsed) = (load.writes, load.flushes, started.elapsed());
        progress(&tally);
    }
    if !tally.settled {
        converge(&mut pair, &mut load, &mut tally).context("after the last round")?;
    }
    Ok(tally)
}

fn round(pair: &mut Pair, load: &mut Load, random: &mut Random, victim: Victim, tally: &mut Tally) -> Result<()> {
    tally.settled = false;
    kill_under_load(pair, load, random, victim)?;
    if victim != Victim::Peer {
        tally.crashes += 1;
        pair.primary.restart()?;
    }
    if victim != Victim::Primary {
        pair.restart_remote()?;
    }
    let mut raw = pair.primary.open(EXPORT)?;
    tally.unflushed_lost += load.verify(&mut raw)?;
    if random.below(3) > 0 {
        converge(pair, load, tally)?;
    }
    Ok(())
}

/// Start the load, kill the victim after a random time, wait until it is dead.
fn kill_under_load(pair: &mut Pair, load: &mut Load, random: &mut Random, victim: Victim) -> Result<()> {
    let mut ids = Vec::new();
    if victim != Victim::Peer {
        ids.push(i32::try_from(pair.primary.running()?.id())?);
    }
    if let (Remote::Node(node), true) = (&mut pair.remote, victim != Victim::Primary) {
        ids.push(i32::try_from(node.running()?.id())?);
    }
    let mut raw = pair.primary.open(EXPORT)?;
    let delay = Duration::from_micros(random.below(KILL_WITHIN_MICROS));
    let killed = Arc::new(AtomicBool::new(false));
    let killer = thread::spawn({
        let killed = Arc::clone(&killed);
        move || {
            thread::sleep(delay);
            let sent = ids.iter().all(|id| kill(Pid::from_raw(*id), Signal::SIGKILL).is_ok());
            killed.store(true, Ordering::SeqCst);
            sent
        }
    });
    let mut until_writes = None;
    let result = load.run(&mut raw, |load| {
        if killed.load(Ordering::SeqCst) && until_writes.is_none() {
            until_writes = Some(load.writes + WRITES_WITHOUT_PEER);
        }
        until_writes.is_some_and(|writes| load.writes >= writes)
    });
    ensure!(
        killer.join().is_ok_and(|sent| sent),
        "the victim was dead before it was killed"
    );
    if victim == Victim::Peer {
        result.context("the load must not notice that the peer is gone")?;
        pair.kill_remote();
    } else {
        ensure!(result.is_err(), "the load must notice that the primary is gone");
        pair.primary.kill();
        if victim == Victim::Both {
            pair.kill_remote();
        }
    }
    Ok(())
}

/// No load: wait for the resync, compare the legs, check what the resync moved.
fn converge(pair: &mut Pair, load: &mut Load, tally: &mut Tally) -> Result<()> {
    let peer = pair.primary.wait_established(EXPORT, PATIENT + PROMPT)?;
    // What the peer has not flushed would be dirty again if it were killed next: count from here.
    load.flush(&mut pair.primary.open(EXPORT)?)?;
    compare::assert_identical(&pair.image, &pair.remote_image)?;
    tally.compared += 1;
    if let Some(resync) = peer.last_resync {
        let permitted = SIZE.min(load.touched_bytes() + tally.crashes * HOT_EXTENTS * EXTENT);
        let moved = resync.copied_bytes + resync.zeroed_bytes;
        ensure!(
            moved <= resync.dirty_at_start_bytes,
            "{moved} bytes moved, fewer were dirty: {resync:?}"
        );
        ensure!(
            resync.dirty_at_start_bytes <= permitted,
            "{} bytes were dirty, only {permitted} were written or hot",
            resync.dirty_at_start_bytes
        );
        tally.resyncs += 1;
        tally.moved_bytes += moved;
        tally.permitted_bytes += permitted;
    }
    load.forget_touched();
    tally.crashes = 0;
    tally.settled = true;
    Ok(())
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
