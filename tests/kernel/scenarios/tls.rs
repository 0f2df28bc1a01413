//! TLS that the kernel seals and opens, where it can, and in user space where it cannot (`guest/tls`).

use std::time::Duration;

use anyhow::{Context, Result};

use super::Scenario;
use crate::guest::Machine;
use crate::stage::Stage;

/// Debian 12's kernel has TLS and cannot change keys.
pub const USER_SPACE: Scenario = Scenario {
    name: "tls-old",
    about: "a kernel that cannot change keys is not used for TLS",
    smoke: false,
    play: |stage| play(stage, "bookworm", "true", "user-space"),
};
/// The same without the module.
pub const WITHOUT: Scenario = Scenario {
    name: "tls-without",
    about: "neither is one that has no TLS",
    smoke: false,
    play: |stage| {
        play(
            stage,
            "bookworm",
            "find /lib/modules/ -name tls.ko -delete",
            "user-space",
        )
    },
};
/// A kernel that can.
pub const KERNEL: Scenario = Scenario {
    name: "tls-new",
    about: "one that can seals and opens, with changes of keys",
    smoke: false,
    play: |stage| play(stage, "trixie-backports", "true", "kernel"),
};

fn play(stage: &Stage, suite: &'static str, before: &str, expected: &str) -> Result<()> {
    let guest = stage.boot(Machine::named("alpha").cpus(2).suite(suite))?;
    guest.run(before)?;
    let said = guest.run_for(&format!("expected={expected} /scenarios/tls"), Duration::from_secs(400))?;
    let last = said.lines().last().context("nothing was said")?;
    stage.note(format!("Linux {}: {last}", guest.run("uname -r")?));
    Ok(())
}
