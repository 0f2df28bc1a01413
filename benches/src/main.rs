//! `scripts/bench`: blockmirror beside nbdkit and QEMU, on equal images, in one interleaved run.
//!
//! Every row is run for every server before the next round begins, in an order that rotates, so that a slow minute
//! of the machine hits all of them alike. Figures are medians over the rounds. The images lie in memory (tmpfs) and
//! the clients come over Unix sockets: what is measured is the server, not the disk or the network.

mod fio;
mod qmp;
mod report;
mod systems;

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use fio::{Row, Sample};
use systems::{Group, System};

const USAGE: &str = "usage: bench [--short] [--rounds N] [--seconds N] [--only plain|mirror]";

/// What to run and for how long.
struct Options {
    rounds: usize,
    seconds: u64,
    only: Option<Group>,
}

/// All samples: `[row][system][round]`.
type Samples = Vec<Vec<Vec<Sample>>>;

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    println!(
        "{} rounds, {} s per run, medians; images on tmpfs, Unix sockets",
        options.rounds, options.seconds
    );
    println!("machine: {} processors, Linux {}\n", processors()?, kernel()?);
    let mut missed = Vec::new();
    if options.only != Some(Group::Mirror) {
        let systems = systems::plain().context("starting the plain servers")?;
        let samples = measure(&systems, &fio::PLAIN_ROWS, &options)?;
        missed.extend(report::plain(&systems, &samples));
    }
    if options.only != Some(Group::Plain) {
        let systems = systems::mirrors().context("starting the mirrors")?;
        let samples = measure(&systems, &fio::MIRROR_ROWS, &options)?;
        missed.extend(report::mirrors(&systems, &samples));
    }
    report::goals(&missed);
    Ok(())
}

fn measure(systems: &[System], rows: &[Row], options: &Options) -> Result<Samples> {
    let mut samples: Samples = vec![vec![Vec::new(); systems.len()]; rows.len()];
    let started = Instant::now();
    for round in 0..options.rounds {
        for (row_index, row) in rows.iter().enumerate() {
            for turn in 0..systems.len() {
                let index = (turn + round) % systems.len();
                let system = &systems[index];
                let sample = fio::run(row, system, options.seconds)
                    .with_context(|| format!("{} on {}", row.name, system.name))?;
                samples[row_index][index].push(sample);
            }
        }
        eprintln!(
            "round {} of {} done, {} s",
            round + 1,
            options.rounds,
            started.elapsed().as_secs()
        );
    }
    Ok(samples)
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        seconds: 3,
        only: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context(USAGE);
        match argument.as_str() {
            "--short" => (options.rounds, options.seconds) = (1, 1),
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--only" => {
                options.only = match value()?.as_str() {
                    "plain" => Some(Group::Plain),
                    "mirror" => Some(Group::Mirror),
                    other => bail!("unknown group {other:?}; {USAGE}"),
                }
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    ensure!(
        options.rounds > 0 && options.seconds > 0,
        "at least one round of one second is needed"
    );
    Ok(options)
}

fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn kernel() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}
