//! Which failures md gets to see of a leg: one that is an export of the other guest, and one that is a volume of the daemon
//! beside the array, mirrored to the other guest by that. The table of docs/RAID1.md; a row is a scenario, with both arrays at once.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::daemon;
use crate::guest::{Guest, Machine};
use crate::raid::{COPY, FAR, LOCAL};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
/// The load, and what happens during it.
const LOAD: u64 = 32;
const BEFORE: Duration = Duration::from_secs(4);
/// What is less is none: the emulator has pauses of its own.
const PAUSE: f64 = 1.5;
/// Answer timeout,
const ANSWER: f64 = 5.0;
/// the same with the dead timeout, and what the emulator adds.
const PATIENCE: f64 = ANSWER + 3.0 + 4.0;

/// What becomes of a leg.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// Nothing.
    Nothing,
    /// A pause; the leg stays.
    Pause,
    /// It fails; the array goes on without it, after a pause.
    Failed,
}

use Seen::{Failed, Nothing, Pause};

/// The link is cut for a moment.
pub const CUT_SHORT: Scenario = Scenario {
    name: "leg-cut-short",
    about: "link cut for 2 s: plain leg a pause, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Pause, Nothing], |stage, _, _| {
            stage.link.cut();
            sleep(Duration::from_secs(2));
            stage.link.restore();
            Ok(())
        })
    },
};
/// The link is cut for good.
pub const CUT_LONG: Scenario = Scenario {
    name: "leg-cut-long",
    about: "link cut: plain leg fails, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Failed, Nothing], |stage, _, _| {
            stage.link.cut();
            Ok(())
        })
    },
};
/// The daemons there are started again.
pub const FAR_RESTART: Scenario = Scenario {
    name: "leg-far-restart",
    about: "the other node's daemon killed and started: plain leg a pause, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Pause, Nothing], |_, _, bravo| {
            daemon::stop(bravo, "KILL")?;
            serve(bravo)?;
            daemon::start(bravo)
        })
    },
};
/// The daemons there are gone.
pub const FAR_GONE: Scenario = Scenario {
    name: "leg-far-gone",
    about: "the other node's daemon killed: plain leg fails, mirrored leg nothing",
    smoke: false,
    play: |stage| play(stage, [Failed, Nothing], |_, _, bravo| daemon::stop(bravo, "KILL")),
};
/// The other guest loses its power.
pub const FAR_DEAD: Scenario = Scenario {
    name: "leg-far-dead",
    about: "the other node without power: plain leg fails, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Failed, Nothing], |_, _, bravo| {
            bravo.kill();
            Ok(())
        })
    },
};
/// The disk of the leg there hangs; its daemon does not.
pub const FAR_HUNG: Scenario = Scenario {
    name: "leg-far-hung",
    about: "the other node's disk answers nothing any more: plain leg fails, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play_for(stage, [Failed, Nothing], PATIENCE + 2.0 * ANSWER, |_, _, bravo| {
            bravo.run("dmsetup suspend --nolockfs --noflush far")?;
            Ok(())
        })
    },
};
/// The daemon beside the array is started again.
pub const NEAR_RESTART: Scenario = Scenario {
    name: "leg-near-restart",
    about: "the daemon beside the array killed and started: mirrored leg a pause, plain leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Nothing, Pause], |_, alpha, _| {
            daemon::stop(alpha, "KILL")?;
            daemon::start(alpha)?;
            alpha.run("blockmirror promote db 2>&1 || blockmirror promote --force db 2>&1 || true")?;
            Ok(())
        })
    },
};
/// The daemon beside the array is gone.
pub const NEAR_GONE: Scenario = Scenario {
    name: "leg-near-gone",
    about: "the daemon beside the array killed: mirrored leg fails, plain leg nothing",
    smoke: false,
    play: |stage| play(stage, [Nothing, Failed], |_, alpha, _| daemon::stop(alpha, "KILL")),
};
/// The link is slow, and far.
pub const SLOW: Scenario = Scenario {
    name: "leg-slow",
    about: "link of 10 Mbit/s, 100 ms: plain leg slow and in sync, mirrored leg nothing",
    smoke: false,
    play: |stage| {
        play(stage, [Pause, Nothing], |stage, _, _| {
            stage.link.slow(Duration::from_millis(50), 10_000_000 / 8);
            Ok(())
        })
    },
};

/// What happens, while both arrays are under load.
type Happens = fn(&Stage, &Arc<Guest>, &Arc<Guest>) -> Result<()>;

/// What is seen then of the plain leg and of the mirrored one.
fn play(stage: &Stage, expected: [Seen; 2], happens: Happens) -> Result<()> {
    play_for(stage, expected, PATIENCE, happens)
}

/// The same, with the longest time that a write may take.
fn play_for(stage: &Stage, expected: [Seen; 2], patience: f64, happens: Happens) -> Result<()> {
    let (alpha, bravo) = arrays(stage)?;
    let loads = ["plain", "mirrored"].map(|name| alpha.start(&load(name), Duration::from_secs(LOAD + 90)));
    sleep(BEFORE);
    happens(stage, &alpha, &bravo)?;
    let mut wrong = Vec::new();
    for ((name, load), expected) in ["plain", "mirrored"].into_iter().zip(loads).zip(expected) {
        let said = load.join().with_context(|| format!("writes to {name} failed"))?;
        let longest: f64 = said.lines().last().context("no figure")?.trim().parse()?;
        let standing = alpha.run(&format!(
            "blockmirror --json raid status {name} | jq -r '.arrays[0].leg.standing'"
        ))?;
        let seen = match standing.as_str() {
            "in_sync" if longest < PAUSE => Nothing,
            "in_sync" => Pause,
            _ => Failed,
        };
        stage.note(format!("{name}: {seen:?} ({standing}), longest write {longest:.1} s"));
        // A pause that is too short to be noticed is better than expected.
        if !(seen == expected || (expected == Pause && seen == Nothing)) || longest > patience {
            wrong.push(format!(
                "{name}: {seen:?}, {expected:?} is expected, longest write {longest:.1} s"
            ));
        }
    }
    stage.link.restore();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// `plain` and `mirrored`, in sync.
fn arrays(stage: &Stage) -> Result<(Arc<Guest>, Arc<Guest>)> {
    let alpha = Machine::named("alpha")
        .disk("local", SIZE)
        .disk("second", SIZE)
        .disk("home", 128 * MIB);
    let bravo = Machine::named("bravo").disk("far", SIZE).disk("home", 128 * MIB);
    let (alpha, bravo) = stage.boot_pair(alpha, bravo)?;
    alpha.run("modprobe nbd nbds_max=0; modprobe raid1")?;
    bravo.run(&format!(
        "modprobe dm-mod; dmsetup create far --table \"0 $(blockdev --getsz {FAR}) linear {FAR} 0\""
    ))?;
    daemon::partners(&alpha, &bravo, "48MiB", "mode = \"async\"", "")?;
    serve(&bravo)?;
    let times = "--answer-timeout 5 --dead-timeout 3 --assume-clean --wait";
    let second = LOCAL.replace("local", "second");
    alpha.run_for(
        &format!(
            "blockmirror raid create plain --local {LOCAL} nbd://bravo:10810/leg /dev/nbd0 {times}
            blockmirror raid create mirrored --local {second} db /dev/nbd1 {times}"
        ),
        COPY,
    )?;
    Ok((alpha, bravo))
}

/// The export that is the plain leg, beside the partner's.
fn serve(bravo: &Guest) -> Result<()> {
    bravo.run(
        "setsid blockmirror-server serve /dev/mapper/far --direct --export leg --tcp 0.0.0.0:10810 --trusted-network >>/tmp/leg.log 2>&1 </dev/null &",
    )?;
    bravo.until(
        "the leg is served",
        daemon::PATIENT,
        "nbdinfo --size nbd://localhost:10810/leg",
    )
}

/// Writes, some per second; the longest of them in seconds.
fn load(name: &str) -> String {
    format!(
        "fio --name=load --filename=/dev/md/{name} --rw=randwrite --bs=16k --direct=1 --rate_iops=20 --time_based --runtime={LOAD} \
         --output-format=json --output=/tmp/{name}.json
        jq '.jobs[0].write.clat_ns.max / 1e9' /tmp/{name}.json"
    )
}
