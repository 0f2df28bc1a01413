//! How long hosts are without their volume when the role moves: by a planned switchover, after the Primary was killed, and
//! after it fell silent.
//!
//! A host with a list of URIs writes all the time, several requests in flight. What counts is the longest time between two
//! answers, from one node to the other, with everything in it: noticing, the operator's order, the change of roles, the
//! host's way to the new node. All settings are the defaults. In the end every answered write has to be there.

mod host;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::AdminError;
use blockmirror_client::client::Patience;
use nix::sys::signal::Signal;

use self::host::Host;
use crate::namespaces;
use crate::partners::{Partners, Setup};
use crate::wait::{self, PATIENT, PROMPT};

/// The volume of all of these.
const VOLUME: &str = "db";
const VOLUME_BYTES: u64 = 64 << 20;
/// Answers a host gets before and after whatever happens to it.
const PROGRESS: u64 = 100;
/// The operator's script tries again after this.
const SCRIPT_REST: Duration = Duration::from_millis(100);
/// How long a host waits for one answer before it tries another node, where the Primary falls silent. The library's default
/// is made for hosts that rather wait than move.
const SILENT_ANSWER: Duration = Duration::from_secs(1);
/// What the pause of a planned switchover may be.
const SWITCHOVER_GOAL: Duration = Duration::from_secs(1);
/// What a takeover may take.
const TAKEOVER_GOAL: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Debug, Default)]
pub struct Figures {
    /// Planned switchovers: the host's pause.
    pub switchovers: Vec<Duration>,
    /// Kill -9 of the Primary: from the last answer of the old node to the first of the new one.
    pub takeovers: Vec<Duration>,
    /// The Primary falls silent.
    pub silent: Vec<Silence>,
    /// Writes answered in all of it, each found again.
    pub writes: u64,
}

/// One Primary that was stopped (SIGSTOP), and the takeover.
#[derive(Debug)]
pub struct Silence {
    /// Until the other node gave it up.
    pub noticed: Duration,
    /// Until the other node was Primary, its operator having accepted what may be lost.
    pub promoted: Duration,
    /// From the last answer of the old node to the first of the new one.
    pub pause: Duration,
    /// What it said to a `promote` without force.
    pub refusal: String,
}

/// Measure so many of each.
pub fn run(switchovers: usize, takeovers: usize, silences: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    let mut partners = Partners::new(setup())?;
    let host = Host::start(&partners.uris(VOLUME, 0), VOLUME_BYTES, Patience::default())?;
    let mut primary = 0;
    for round in 0..switchovers {
        let pause = switch_over(&partners, &host, 1 - primary).with_context(|| format!("switchover {}", round + 1))?;
        figures.switchovers.push(pause);
        primary = 1 - primary;
    }
    for round in 0..takeovers {
        let pause = take_over(&mut partners, &host, primary).with_context(|| format!("takeover {}", round + 1))?;
        figures.takeovers.push(pause);
        primary = 1 - primary;
    }
    figures.writes += host.finish(&mut partners.open(primary, VOLUME)?)?;
    partners.wait_in_step(primary, PATIENT)?;
    partners.assert_identical()?;
    for round in 0..silences {
        let silence = fall_silent(&mut figures.writes).with_context(|| format!("silence {}", round + 1))?;
        figures.silent.push(silence);
    }
    Ok(figures)
}

fn setup() -> Setup {
    Setup {
        volumes: vec![(VOLUME.to_owned(), VOLUME_BYTES)],
        namespaces: namespaces::possible("a link of TCP; Unix sockets are used instead, which"),
        ..Setup::default()
    }
}

fn switch_over(partners: &Partners, host: &Host, new: usize) -> Result<Duration> {
    host.wait_progress(PROGRESS)?;
    host.pulse().forget_pauses();
    partners.promote(new)?;
    host.wait_progress(PROGRESS)?;
    let pause = host.pulse().longest_pause();
    partners.wait_in_step(new, PATIENT)?;
    Ok(pause)
}

fn take_over(partners: &mut Partners, host: &Host, old: usize) -> Result<Duration> {
    host.wait_progress(PROGRESS)?;
    host.pulse().forget_pauses();
    partners.nodes[old].kill();
    promote_by_script(partners, 1 - old)?;
    host.wait_progress(PROGRESS)?;
    let pause = host.pulse().longest_pause();
    partners.nodes[old].restart()?;
    partners.wait_in_step(1 - old, PATIENT)?;
    Ok(pause)
}

/// `until blockmirror promote db; do sleep 0.1; done`, and nothing is forced.
fn promote_by_script(partners: &Partners, new: usize) -> Result<()> {
    let started = Instant::now();
    loop {
        match partners.promote(new) {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(
                started.elapsed() < PROMPT,
                "not promoted: {error}\n{}",
                partners.describe()
            ),
        }
        thread::sleep(SCRIPT_REST);
    }
}

/// The old Primary neither answers nor closes anything. Two partners are made for it and thrown away: when the old one
/// wakes up it may have data of its own.
fn fall_silent(writes: &mut u64) -> Result<Silence> {
    let mut partners = Partners::new(setup())?;
    let patience = Patience {
        answer: SILENT_ANSWER,
        ..Patience::default()
    };
    let host = Host::start(&partners.uris(VOLUME, 0), VOLUME_BYTES, patience)?;
    host.wait_progress(PROGRESS)?;
    host.pulse().forget_pauses();
    partners.nodes[0].signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    wait::until("the other node to give the Primary up", PROMPT, || {
        (!partners.is_connected(1)).then_some(())
    })?;
    let noticed = stopped.elapsed();
    let refusal = match partners.promote(1) {
        Ok(()) => String::new(),
        Err(AdminError::Refused { error, .. }) => error,
        Err(error) => return Err(error.into()),
    };
    wait::until("the takeover", PROMPT, || partners.promote_whatever(1).ok())?;
    let promoted = stopped.elapsed();
    host.wait_progress(PROGRESS)?;
    let pause = host.pulse().longest_pause();
    *writes += host.finish(&mut partners.open(1, VOLUME)?)?;
    Ok(Silence {
        noticed,
        promoted,
        pause,
        refusal,
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| | times | median | longest | wanted | |\n|---|---:|---:|---:|---:|---|"
        )?;
        let rows = [
            (
                "planned switchover under load: pause",
                &self.switchovers,
                SWITCHOVER_GOAL,
            ),
            (
                "takeover after kill -9: last answer to first",
                &self.takeovers,
                TAKEOVER_GOAL,
            ),
        ];
        for (name, times, goal) in rows {
            let Some((median, longest)) = median_and_longest(times) else {
                continue;
            };
            let verdict = if longest <= goal { "reached" } else { "**missed**" };
            let [median, longest, goal] = [median, longest, goal].map(|time| time.as_secs_f64());
            writeln!(
                f,
                "| {name} | {} | {median:.3} s | {longest:.3} s | {goal:.0} s | {verdict} |",
                times.len()
            )?;
        }
        let silent = |part: fn(&Silence) -> Duration| self.silent.iter().map(part).collect::<Vec<_>>();
        let parts = [
            ("the Primary stands still: noticed after", silent(|it| it.noticed)),
            (
                "the Primary stands still: promoted, a loss accepted, after",
                silent(|it| it.promoted),
            ),
            ("the Primary stands still: last answer to first", silent(|it| it.pause)),
        ];
        for (name, times) in parts {
            let Some((median, longest)) = median_and_longest(&times) else {
                continue;
            };
            let [median, longest] = [median, longest].map(|time| time.as_secs_f64());
            writeln!(f, "| {name} | {} | {median:.3} s | {longest:.3} s | | |", times.len())?;
        }
        writeln!(f, "\n{} writes answered, all of them there", self.writes)?;
        if let Some(silence) = self.silent.first() {
            writeln!(f, "\n`promote` when the Primary stands still: {}", silence.refusal)?;
        }
        Ok(())
    }
}

fn median_and_longest(times: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}
