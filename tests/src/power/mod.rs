//! Power cuts of both nodes at once, under a verifying load on two volumes.
//!
//! The daemons (`tests/power_daemon`) run over a layer around their I/O engine: of images and metadata files, only what
//! was made durable outlives a kill -9. Each round lets the load run, kills both nodes (mostly right after an acknowledged flush, else at any moment), takes away
//! what was not durable, and looks into the images of *both* sides: every write that was acknowledged and then covered by
//! an acknowledged flush has to be there. Then both start again, have to come to terms, and to be identical.

pub mod platter;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::chaos::Model;
use crate::load::{Load, Random};
use crate::partners::{NAMES, Partners, Setup};
use crate::raw::Raw;
use crate::wait::PATIENT;

/// Volumes of the resource, and bytes of each.
const VOLUMES: [(&str, u64); 2] = [("db", 16 << 20), ("log", 8 << 20)];
/// Of so many cuts, one comes at any moment, the others right after a flush.
const ANY_MOMENT: u64 = 4;
/// The cut comes after one of so many flushes of the first volume,
const FLUSHES: u64 = 60;
/// or after one of so many writes.
const WRITES: u64 = 1_500;

/// What the disks of both nodes are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// A sync is done when it says so.
    Honest,
    /// A sync does nothing: to see that somebody notices.
    Lying,
}

/// What happened in all rounds.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rounds done.
    pub rounds: u64,
    /// Of these, with the cut right after an acknowledged flush.
    pub after_flush: u64,
    /// Writes and flushes answered.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Blocks whose newest content the cuts took, by side.
    pub taken: [u64; 2],
    /// Images looked into right after a cut, before any daemon ran.
    pub inspected: u64,
    /// Comparisons of both sides after the restart, each found identical.
    pub compared: u64,
    /// Time taken.
    pub elapsed: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, after) = (self.rounds, self.after_flush);
        writeln!(
            f,
            "power cuts of both nodes {rounds}, {after} of them right after a flush"
        )?;
        let (writes, flushes) = (self.writes, self.flushes);
        writeln!(f, "requests answered        {writes} writes, {flushes} flushes")?;
        let [here, there] = self.taken;
        let [alpha, bravo] = NAMES;
        writeln!(f, "blocks taken by cuts     {here} of {alpha}, {there} of {bravo}")?;
        writeln!(f, "acknowledged and flushed writes lost   0, on either side")?;
        writeln!(
            f,
            "images                   {} looked into, {} times compared, identical every time",
            self.inspected, self.compared
        )?;
        write!(f, "time                     {:.0} s", self.elapsed.as_secs_f64())
    }
}

struct Cuts {
    partners: Partners,
    models: Vec<Model>,
    primary: usize,
    random: Random,
    tally: Tally,
}

/// Run up to `rounds` rounds, for at most `limit`. An error names the round and the broken promise.
pub fn run(rounds: u64, limit: Duration, seed: u64, disks: Disks, mut progress: impl FnMut(&Tally)) -> Result<Tally> {
    let lying = (disks == Disks::Lying).then(|| "--lying-disks".to_owned());
    let partners = Partners::new(Setup {
        volumes: VOLUMES.map(|(name, size)| (name.to_owned(), size)).to_vec(),
        in_memory: true,
        daemon: Some(("power-daemon".to_owned(), lying.into_iter().collect())),
        ..Setup::default()
    })?;
    let mut cuts = Cuts {
        partners,
        models: Model::of_each(&VOLUMES, seed),
        primary: 0,
        random: Random::new(seed),
        tally: Tally::default(),
    };
    let started = Instant::now();
    while cuts.tally.rounds < rounds && started.elapsed() < limit {
        let round = cuts.tally.rounds + 1;
        let done = cuts.round();
        done.with_context(|| format!("round {round} (seed {seed})\n{}", cuts.partners.describe()))?;
        cuts.tally.elapsed = started.elapsed();
        progress(&cuts.tally);
    }
    Ok(cuts.tally)
}

impl Cuts {
    fn round(&mut self) -> Result<()> {
        self.load_until_the_cut()?;
        for (side, name) in NAMES.into_iter().enumerate() {
            self.partners.nodes[side].kill();
            self.tally.taken[side] += platter::restore(self.partners.scratch.path(), name)?;
        }
        self.inspect()?;
        let first = self.random.below(2) as usize;
        self.partners.nodes[first].restart()?;
        self.partners.nodes[1 - first].restart()?;
        self.partners
            .wait_in_step(self.primary, PATIENT)
            .context("after the power came back")?;
        for model in &mut self.models {
            let mut raw = self.partners.open(self.primary, &model.export)?;
            let verified = model.load.verify(&mut raw);
            verified.with_context(|| format!("volume {} after the restart", model.export))?;
        }
        self.partners.assert_identical()?;
        self.tally.compared += 1;
        self.tally.rounds += 1;
        if self.random.below(3) == 0 {
            self.partners.promote(1 - self.primary)?;
            self.primary = 1 - self.primary;
            self.partners.wait_in_step(self.primary, PATIENT)?;
        }
        Ok(())
    }

    /// The loads run until the first one has the power cut; all of them lose their connections by it.
    fn load_until_the_cut(&mut self) -> Result<()> {
        // The Primary first: what it answered when the other was gone already would be on one side only.
        let victims = [self.primary, 1 - self.primary].map(|side| self.partners.nodes[side].process());
        let mut ids = Vec::new();
        for victim in victims {
            ids.push(i32::try_from(victim.context("a node is not running")?.id())?);
        }
        let cut = AtomicBool::new(false);
        let moment = Moment::new(&mut self.random, &self.models[0].load);
        self.tally.after_flush += u64::from(matches!(moment, Moment::Flush(_)));
        let socket = self.partners.nodes[self.primary].socket();
        thread::scope(|scope| -> Result<()> {
            let (first, others) = self.models.split_first_mut().context("no volume")?;
            for other in others {
                let (cut, mut raw) = (&cut, Raw::open(&socket, &other.export)?);
                scope.spawn(move || other.load.run(&mut raw, |_| cut.load(Ordering::Relaxed)));
            }
            let mut raw = Raw::open(&socket, &first.export)?;
            let ended = first.load.run(&mut raw, |load| {
                if moment.has_come(load) && !cut.swap(true, Ordering::Relaxed) {
                    // It is seen below when one of them was not there to be killed.
                    let _ = ids.iter().try_for_each(|id| kill(Pid::from_raw(*id), Signal::SIGKILL));
                }
                false
            });
            let was_cut = cut.swap(true, Ordering::Relaxed);
            ensure!(was_cut && ended.is_err(), "the load ended before the cut: {ended:?}");
            Ok(())
        })?;
        let loads = || self.models.iter().map(|model| &model.load);
        self.tally.writes = loads().map(|load| load.writes).sum();
        self.tally.flushes = loads().map(|load| load.flushes).sum();
        Ok(())
    }

    /// Everything that was promised is on both sides, by the images alone.
    fn inspect(&mut self) -> Result<()> {
        for (side, name) in NAMES.into_iter().enumerate() {
            for model in &self.models {
                let inspected = model.load.inspect(&self.partners.image(side, &model.export));
                inspected.with_context(|| format!("image of {} on {name} after the cut", model.export))?;
                self.tally.inspected += 1;
            }
        }
        Ok(())
    }
}

/// When the power is cut, by what the first volume has been answered.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Flush(u64),
    Write(u64),
}

impl Moment {
    fn new(random: &mut Random, load: &Load) -> Self {
        match random.below(ANY_MOMENT) {
            0 => Moment::Write(load.writes + 1 + random.below(WRITES)),
            _ => Moment::Flush(load.flushes + 1 + random.below(FLUSHES)),
        }
    }

    fn has_come(self, load: &Load) -> bool {
        match self {
            Moment::Flush(number) => load.flushes >= number,
            Moment::Write(number) => load.writes >= number,
        }
    }
}
