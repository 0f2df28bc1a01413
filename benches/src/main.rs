//! `scripts/bench`: blockmirror beside nbdkit and QEMU, on equal images, in one interleaved run. With `--failover` how long
//! hosts are without their volume when the role moves ([`failover`]), with `--resync` what a resync costs ([`resync`]), with
//! `--exports` plain exports beside every other server over every transport ([`exports`]), with `--steady` what the daemon
//! asks of the allocator, and whether its memory grows ([`steady`]).
//!
//! Every row is run for every server before the next round begins, in an order that rotates, so that a slow minute
//! of the machine hits all of them alike. Half of the rounds run with the servers started in the order of the columns,
//! half in the opposite one: the pages of the first images are scattered over what memory was free, and that costs whoever
//! has them up to a tenth. Figures are medians over the rounds. The images lie in memory (tmpfs) and the clients come over
//! Unix sockets: what is measured is the server, not the disk or the network.

mod exports;
mod figures;
mod fio;
mod qmp;
mod report;
mod resync;
mod steady;
mod systems;

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use blockmirror_tests::failover;

use fio::{Row, Sample};
use resync::{Part, Scale, wire};
use systems::{Group, Start, System};

const USAGE: &str = "usage: bench [--short] [--rounds N] [--seconds N] [--only plain|mirror]
       bench --exports [--short] [--rounds N] [--seconds N] [--scene NAME]... [--row TEXT]...
       bench --steady [--short]
       bench --failover [--short]
       bench --resync|--resync-speed|--resync-hosts|--resync-crash [--short]";

/// Switchovers, takeovers, and Primaries that stand still.
const FAILOVERS: (usize, usize, usize) = (20, 10, 3);
const FAILOVERS_SHORT: (usize, usize, usize) = (3, 2, 1);

/// Requests over which memory is watched.
const SOAK: u64 = 10_000_000;
const SOAK_SHORT: u64 = 200_000;

/// What to run and for how long.
struct Options {
    rounds: usize,
    seconds: f64,
    only: Option<Group>,
    measured: Measured,
    short: bool,
    /// For [`Measured::Exports`].
    scenes: Vec<String>,
    rows: Vec<String>,
}

/// What the figures are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    /// Requests, against other servers.
    Requests,
    /// Requests of plain exports, in more ways.
    Exports,
    /// Allocations per request, memory over many.
    Steady,
    /// How long hosts are without their volume.
    Failover,
    /// What a resync moves, how fast, and what hosts feel of it.
    Resync(&'static [Part]),
}

/// All samples: `[row][system][round]`.
type Samples = Vec<Vec<Vec<Sample>>>;

fn main() -> Result<()> {
    if let Some(outcome) = part_of_a_measurement() {
        return outcome;
    }
    let options = options(std::env::args().skip(1))?;
    match options.measured {
        Measured::Requests => compare(&options),
        Measured::Exports => compare_exports(options),
        Measured::Steady => steady::run(if options.short { SOAK_SHORT } else { SOAK }),
        Measured::Failover => {
            let (switchovers, takeovers, silences) = if options.short { FAILOVERS_SHORT } else { FAILOVERS };
            println!("{}", failover::run(switchovers, takeovers, silences)?);
            Ok(())
        }
        Measured::Resync(parts) => resync::run(&Scale::new(options.short), parts),
    }
}

/// What the processes do that [`resync::wire`] starts; `None`: this is none of them.
fn part_of_a_measurement() -> Option<Result<()>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [wire::SINK, address] => Some(wire::sink(address)),
        [wire::SOURCE, address, bytes] => {
            let bytes = bytes.parse().context("not a number of bytes");
            Some(bytes.and_then(|bytes| wire::source(address, bytes)))
        }
        _ => None,
    }
}

fn compare(options: &Options) -> Result<()> {
    println!(
        "{} rounds, {} s per run, medians; images on tmpfs, Unix sockets",
        options.rounds, options.seconds
    );
    print_machine()?;
    let mut missed = Vec::new();
    if options.only != Some(Group::Mirror) {
        let (names, samples) = measure(&systems::PLAIN_SYSTEMS, &fio::PLAIN_ROWS, options)?;
        missed.extend(report::plain(&names, &samples));
    }
    if options.only != Some(Group::Plain) {
        let (names, samples) = measure(&systems::MIRRORS, &fio::MIRROR_ROWS, options)?;
        missed.extend(report::mirrors(&names, &samples));
    }
    report::goals(&missed);
    Ok(())
}

fn compare_exports(options: Options) -> Result<()> {
    println!(
        "{} rounds, {} s per run of fio, medians",
        options.rounds, options.seconds
    );
    print_machine()?;
    let goals = exports::run(&exports::Scope {
        rounds: options.rounds,
        seconds: options.seconds,
        scenes: options.scenes,
        rows: options.rows,
    })?;
    report::goals(&goals);
    Ok(())
}

fn print_machine() -> Result<()> {
    println!("machine: {} processors, Linux {}\n", processors()?, kernel()?);
    Ok(())
}

/// The names of the systems, and what they did.
fn measure(starts: &[Start], rows: &[Row], options: &Options) -> Result<(Vec<&'static str>, Samples)> {
    let mut samples: Samples = vec![vec![Vec::new(); starts.len()]; rows.len()];
    let mut names = Vec::new();
    let started = Instant::now();
    let half = options.rounds.div_ceil(2);
    for (reversed, rounds) in [(false, 0..half), (true, half..options.rounds)] {
        if rounds.is_empty() {
            continue;
        }
        let systems = systems::start(starts, reversed).context("starting the servers")?;
        for round in rounds {
            run_round(&systems, rows, round, options, &mut samples)?;
            eprintln!(
                "round {} of {} done, {} s",
                round + 1,
                options.rounds,
                started.elapsed().as_secs()
            );
        }
        names = systems.iter().map(|system| system.name).collect();
    }
    Ok((names, samples))
}

fn run_round(systems: &[System], rows: &[Row], round: usize, options: &Options, samples: &mut Samples) -> Result<()> {
    for (row_index, row) in rows.iter().enumerate() {
        for turn in 0..systems.len() {
            let index = (turn + round) % systems.len();
            let system = &systems[index];
            let sample =
                fio::run(row, system, options.seconds).with_context(|| format!("{} on {}", row.name, system.name))?;
            samples[row_index][index].push(sample);
        }
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        seconds: 3.0,
        only: None,
        measured: Measured::Requests,
        short: false,
        scenes: Vec::new(),
        rows: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context(USAGE);
        match argument.as_str() {
            "--short" => (options.rounds, options.seconds, options.short) = (1, 1.0, true),
            "--resync" => options.measured = Measured::Resync(&[Part::Speed, Part::Hosts, Part::Crash]),
            "--resync-speed" => options.measured = Measured::Resync(&[Part::Speed]),
            "--resync-hosts" => options.measured = Measured::Resync(&[Part::Hosts]),
            "--resync-crash" => options.measured = Measured::Resync(&[Part::Crash]),
            "--exports" => options.measured = Measured::Exports,
            "--steady" => options.measured = Measured::Steady,
            "--scene" => options.scenes.push(value()?),
            "--row" => options.rows.push(value()?),
            "--failover" => options.measured = Measured::Failover,
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
        options.rounds > 0 && options.seconds >= 0.1,
        "at least one round of 0.1 s is needed"
    );
    Ok(options)
}

fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn kernel() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}
