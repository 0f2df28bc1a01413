//! Two partners in guests: what all scenarios with a mirror begin with.

use std::time::Duration;

use anyhow::Result;

use super::Scenario;
use crate::daemon::{self, PATIENT};
use crate::guest::Machine;
use crate::stage::Stage;

/// The partner loses its power under a load, comes back, and catches up.
pub const POWER: Scenario = Scenario {
    name: "partner-power",
    about: "the partner's power goes under a load; it comes back and has everything",
    smoke: true,
    play: power,
};

fn power(stage: &Stage) -> Result<()> {
    let machine = |name| Machine::named(name).disk("home", 128 << 20);
    let (alpha, mut bravo) = stage.boot_pair(machine("alpha"), machine("bravo"))?;
    daemon::partners(&alpha, &bravo, "64MiB", "", "")?;
    let load = alpha.start(
        "fio --name=load --ioengine=nbd --uri=nbd+unix:///db?socket=/run/blockmirror/alpha-nbd.sock --rw=randwrite --bs=4k \
         --size=48m --iodepth=8 --time_based --runtime=20 --verify=crc32c --fsync=32",
        Duration::from_secs(90),
    );
    std::thread::sleep(Duration::from_secs(3));
    bravo = stage.reboot(&bravo)?;
    daemon::home(&bravo)?;
    daemon::start(&bravo)?;
    load.join()?;
    daemon::in_step(&alpha, daemon::other(&alpha))?;
    daemon::stop(&alpha, "TERM")?;
    bravo.until("bravo is promoted", PATIENT, "blockmirror promote db")?;
    let [one, other] = [&alpha, &bravo].map(|guest| guest.run(&format!("sha256sum <{}", daemon::IMAGE)));
    anyhow::ensure!(one? == other?, "the images differ");
    alpha.no_io_error()
}
