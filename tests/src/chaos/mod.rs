//! Rounds of trouble between two partners, under a verifying load on several volumes.
//!
//! Each round lets the load run, strikes at a random moment (a kill -9, a stopped process, a link cut in both
//! directions or in one, a takeover in the middle of it, a switchover), repairs, and then requires that both nodes have
//! everything, that every write that was acknowledged and flushed is there, and that the images are identical. When
//! both nodes went on alone, both have to see it, and one side's data is given up by the operator's word only.

mod model;
mod strikes;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::model::Model;
pub use self::strikes::Strike;
use crate::load::Random;
use crate::partners::{NAMES, Partners, Setup};
use crate::wait::PATIENT;

/// Volumes of the resource, and bytes of each.
const VOLUMES: [(&str, u64); 2] = [("db", 48 << 20), ("log", 16 << 20)];
/// How soon a silent partner is lost: short, so that a round is.
const PEER: &str = "heartbeat = \"200ms\"\ndead_after = \"1s\"";

/// What happened in all rounds.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rounds done.
    pub rounds: u64,
    /// Of these, by strike.
    pub strikes: [u64; Strike::ALL.len()],
    /// Writes and flushes answered.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Times the other node became Primary without the old one.
    pub takeovers: u64,
    /// Of these, with something that had to be accepted as lost.
    pub forced: u64,
    /// Times both nodes had gone on alone; each seen by both.
    pub split_brains: u64,
    /// Comparisons of all images, each found identical.
    pub compared: u64,
    /// Blocks that held an older version than the last one answered, permitted because no flush had covered it.
    pub unflushed_lost: u64,
    /// From a kill -9 of the Primary to the first write answered by the other, by round.
    pub takeover_times: Vec<Duration>,
    /// Time taken.
    pub elapsed: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rounds                   {}", self.rounds)?;
        for (strike, count) in Strike::ALL.iter().zip(self.strikes) {
            writeln!(f, "  {:<22} {count}", strike.name())?;
        }
        writeln!(
            f,
            "requests answered        {} writes, {} flushes",
            self.writes, self.flushes
        )?;
        writeln!(
            f,
            "takeovers                {}, {} of them with a loss accepted",
            self.takeovers, self.forced
        )?;
        writeln!(
            f,
            "split brains             {}, each seen by both nodes",
            self.split_brains
        )?;
        writeln!(f, "acknowledged and flushed writes lost   0")?;
        writeln!(f, "answered, not flushed, not there       {}", self.unflushed_lost)?;
        writeln!(
            f,
            "images compared          {} times, identical every time",
            self.compared
        )?;
        let mut times = self.takeover_times.clone();
        times.sort_unstable();
        if let (Some(last), Some(middle)) = (times.last(), times.get(times.len() / 2)) {
            let seconds = |time: &Duration| time.as_secs_f64();
            writeln!(
                f,
                "kill -9 to first write   {:.2} s median, {:.2} s at most",
                seconds(middle),
                seconds(last)
            )?;
        }
        write!(f, "time                     {:.0} s", self.elapsed.as_secs_f64())
    }
}

/// Two partners in trouble.
struct Chaos {
    partners: Partners,
    /// By volume.
    models: Vec<Model>,
    primary: usize,
    random: Random,
    tally: Tally,
}

/// Run up to `rounds` rounds, for at most `limit`. An error names the round and the broken promise. `only`: one kind
/// of strike.
pub fn run(
    rounds: u64,
    limit: Duration,
    seed: u64,
    only: Option<Strike>,
    mut progress: impl FnMut(&Tally),
) -> Result<Tally> {
    let partners = Partners::new(Setup {
        volumes: VOLUMES.map(|(name, size)| (name.to_owned(), size)).to_vec(),
        peer: PEER.to_owned(),
        namespaces: true,
        ..Setup::default()
    })?;
    let mut chaos = Chaos {
        partners,
        models: Model::of_each(&VOLUMES, seed),
        primary: 0,
        random: Random::new(seed),
        tally: Tally::default(),
    };
    let started = Instant::now();
    while chaos.tally.rounds < rounds && started.elapsed() < limit {
        let place = chaos.random.below(Strike::ALL.len() as u64) as usize;
        let strike = only.unwrap_or(Strike::ALL[place]);
        let round = chaos.tally.rounds + 1;
        chaos.round(strike).with_context(|| {
            format!(
                "round {round} (seed {seed}): {}\n{}",
                strike.name(),
                chaos.partners.describe()
            )
        })?;
        chaos.tally.elapsed = started.elapsed();
        progress(&chaos.tally);
    }
    Ok(chaos.tally)
}

impl Chaos {
    fn round(&mut self, strike: Strike) -> Result<()> {
        self.strike(strike)?;
        self.partners
            .wait_in_step(self.primary, PATIENT)
            .context("after the strike")?;
        self.check()?;
        self.tally.rounds += 1;
        if let Some(place) = Strike::ALL.iter().position(|it| *it == strike) {
            self.tally.strikes[place] += 1;
        }
        Ok(())
    }

    /// Everything that was promised is there, on both nodes.
    fn check(&mut self) -> Result<()> {
        for model in &mut self.models {
            let mut raw = self.partners.open(self.primary, &model.export)?;
            let name = NAMES[self.primary];
            let behind = model
                .load
                .verify(&mut raw)
                .with_context(|| format!("volume {} on {name}", model.export))?;
            self.tally.unflushed_lost += behind;
        }
        (self.tally.writes, self.tally.flushes) = self.models.iter().fold((0, 0), |(writes, flushes), model| {
            (writes + model.load.writes, flushes + model.load.flushes)
        });
        self.partners.assert_identical()?;
        self.tally.compared += 1;
        Ok(())
    }
}
