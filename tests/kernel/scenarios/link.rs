//! What all others stand on: two guests, the link, a daemon on one that is read from the other.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Scenario;
use crate::daemon;
use crate::guest::Machine;
use crate::stage::Stage;

/// The link carries, is cut, is slow, and comes back.
pub const ALONE: Scenario = Scenario {
    name: "link",
    about: "two guests see each other, not when the link is cut, and again",
    smoke: true,
    play: alone,
};

fn alone(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = stage.boot_pair(Machine::named("alpha"), Machine::named("bravo").disk("data", 64 << 20))?;
    alpha.run("ping -c 3 -W 5 bravo")?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    let info = alpha.run("nbdinfo --size nbd://bravo/db")?;
    ensure!(info.trim() == (64 << 20).to_string(), "{info}");
    stage.link.cut();
    alpha.refuses("ping -c 2 -W 1 bravo")?;
    stage.link.restore();
    alpha.run("ping -c 3 -W 5 bravo")?;
    stage.link.slow(Duration::from_millis(100), 0);
    let far = alpha.run("ping -c 3 -W 5 bravo | tail -n 1")?;
    stage.link.restore();
    let average: f64 = far.split('/').nth(4).unwrap_or_default().parse()?;
    ensure!(average >= 200.0, "{far}");
    stage.note(format!("100 ms each way: {far}"));
    Ok(())
}
