//! Clients that mean harm or are broken, beside one that behaves (`scripts/hostile`).
//!
//! Rounds of quiet and attack alternate, so that whatever else the machine does weighs on both. The good client writes at
//! a fixed rate by the Unix socket; the others come by TCP. Memory is held against the bound that docs/CONFIGURATION.md
//! states; latencies are told, and judged by whoever reads the table.

pub mod attacks;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use self::attacks::{Attack, Target};
use crate::config::{NodeConfig, Resource};
use crate::node::Node;
use crate::pace::{Pace, percentile};
use crate::scratch::Scratch;
use crate::tool;
use crate::wait;

/// The export under attack.
pub const EXPORT: &str = "db";
const SIZE: u64 = 256 << 20;
/// Writes of the good client per second.
const RATE: u32 = 500;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Connections the daemon may have.
const CONNECTIONS: u64 = 1_200;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Rounds of quiet and attack, each.
    pub rounds: u64,
    /// How long quiet and attack last, at least.
    pub period: Duration,
    /// Connections, one after another.
    pub one_after_another: usize,
    /// Connections at once.
    pub at_once: usize,
}

/// What one attack came to.
pub struct Outcome {
    /// Which.
    pub attack: Attack,
    /// Connections it made.
    pub connections: u64,
    /// The 99th percentile of the good client, by round: in quiet, and under attack.
    pub p99: Vec<(Duration, Duration)>,
    /// The most resident memory seen.
    pub resident: u64,
}

/// What a daemon of this configuration may hold, as docs/CONFIGURATION.md has it.
pub fn memory_bound() -> u64 {
    96 * MIB + 64 * MIB + 256 * MIB + CONNECTIONS * 320 * KIB
}

/// A node under attack and its good client.
struct Arena {
    scratch: Scratch,
    node: Node,
    address: String,
}

impl Arena {
    fn new() -> Result<Self> {
        let scratch = Scratch::in_memory()?;
        let port = tool::free_port()?;
        let resource = Resource::plain(EXPORT, &scratch.join("db.img"), SIZE);
        let mut config = NodeConfig::new("alpha", vec![resource]);
        config.listen = vec![format!("tcp:127.0.0.1:{port}")];
        // One host plays all the attackers: it may do what a thousand could.
        config.settings = format!(
            "[limits]\nmax_connections = {CONNECTIONS}\nmax_connections_per_export = {CONNECTIONS}\n\
             max_connections_per_client = {CONNECTIONS}\nhandshakes_per_second = 100000\nhandshake_timeout = \"3s\"\n"
        );
        Ok(Self {
            node: Node::start(scratch.path(), &config)?,
            scratch,
            address: format!("127.0.0.1:{port}"),
        })
    }

    /// One attack beside the good client, over several rounds.
    fn suffer(&mut self, attack: Attack, measure: &Measure) -> Result<Outcome> {
        let pace = Pace::start(&self.node.uri(EXPORT), SIZE, RATE)?;
        std::thread::sleep(measure.period / 4);
        let mut outcome = Outcome {
            attack,
            connections: 0,
            p99: Vec::new(),
            resident: 0,
        };
        for _ in 0..measure.rounds {
            let quiet = Instant::now();
            std::thread::sleep(measure.period);
            let begun = Instant::now();
            let connections = self.attack(attack, measure, &mut outcome.resident)?;
            let ended = Instant::now();
            outcome.connections = outcome.connections.max(connections);
            let tail = |from, to| percentile(&pace.latencies(from, to), 99).context("the good client wrote nothing");
            outcome.p99.push((tail(quiet, begun)?, tail(begun, ended)?));
            self.wait_alone()?;
        }
        pace.finish()
            .with_context(|| format!("the good client beside {}", attack.name()))?;
        Ok(outcome)
    }

    fn attack(&mut self, attack: Attack, measure: &Measure, resident: &mut u64) -> Result<u64> {
        let stop = AtomicBool::new(false);
        let target = Target {
            address: &self.address,
            stop: &stop,
            one_after_another: measure.one_after_another,
            at_once: measure.at_once,
        };
        let process = self.node.process().context("the daemon is gone")?;
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| attack.run(&target));
            let begun = Instant::now();
            let mut sampled = Ok(());
            while sampled.is_ok() && (begun.elapsed() < measure.period || !attacker.is_finished()) {
                if begun.elapsed() >= measure.period {
                    stop.store(true, Ordering::Relaxed);
                }
                sampled = process.resident_bytes().map(|(now, _)| *resident = now.max(*resident));
                std::thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
            let made = attacker.join().ok().context("the attacker panicked")?;
            sampled?;
            made.with_context(|| format!("{}\n{}", attack.name(), self.node.log()))
        })
    }

    /// Until nobody but the good client is connected.
    fn wait_alone(&self) -> Result<()> {
        wait::until("the attackers to be gone", wait::PATIENT, || {
            (self.node.volume(EXPORT).ok()?.connections <= 1).then_some(())
        })
    }
}

/// Every attack of `attacks`, each on a daemon of its own, which has to end in order afterwards.
///
/// # Errors
/// The good client is not served, memory exceeds its bound, or the daemon does not end.
pub fn run(attacks: &[Attack], measure: &Measure, mut tell: impl FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for attack in attacks {
        let mut arena = Arena::new()?;
        let outcome = arena.suffer(*attack, measure)?;
        ensure!(
            outcome.resident < memory_bound(),
            "{}: {} MiB resident, the bound is {} MiB",
            attack.name(),
            outcome.resident / MIB,
            memory_bound() / MIB
        );
        arena.node.stop()?;
        let log = arena.node.log();
        ensure!(!log.contains("panicked"), "{log}");
        drop(arena.scratch);
        tell(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

impl Outcome {
    /// The medians of the 99th percentiles, in quiet and under attack.
    pub fn medians(&self) -> (Duration, Duration) {
        let median = |mut all: Vec<Duration>| {
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let (quiet, attacked) = self.p99.iter().copied().unzip();
        (median(quiet), median(attacked))
    }

    /// The head of the table that the lines of outcomes make.
    pub fn head() -> String {
        format!(
            "{:<18} {:>11} {:>12} {:>12} {:>6} {:>13}",
            "attack", "connections", "p99 quiet", "p99 attack", "ratio", "resident, MiB"
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quiet, attacked) = self.medians();
        let micros = |time: Duration| format!("{} us", time.as_micros());
        write!(
            f,
            "{:<18} {:>11} {:>12} {:>12} {:>6.2} {:>13}",
            self.attack.name(),
            self.connections,
            micros(quiet),
            micros(attacked),
            attacked.as_secs_f64() / quiet.as_secs_f64().max(1e-9),
            self.resident / MIB
        )
    }
}
