//! Two network namespaces joined by one link that can be cut, in both directions or in one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::tool;

/// Time a command of `ip` has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces and the link between them; removed when dropped.
pub struct Namespaces {
    names: [String; 2],
}

/// Can this machine and user make them? Where not, it is said on standard error what is skipped.
pub fn possible(what: &str) -> bool {
    let probe = format!("bm-p-{}", unique());
    let outcome = ip(&["netns", "add", &probe]);
    // Nothing is there to remove where none was made.
    let _ = ip(&["netns", "del", &probe]);
    if let Err(error) = &outcome {
        eprintln!("skipped: {what} needs network namespaces (root, and `ip` of iproute2): {error:#}");
    }
    outcome.is_ok()
}

impl Namespaces {
    /// Makes them. Needs root.
    pub fn new() -> Result<Self> {
        let id = unique();
        let made = Self {
            names: [format!("bm-a-{id}"), format!("bm-b-{id}")],
        };
        let [a, b] = &made.names;
        let (end_a, end_b) = (format!("bma{id}"), format!("bmb{id}"));
        for name in &made.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        ip(&[
            "link", "add", &end_a, "netns", a, "type", "veth", "peer", "name", &end_b, "netns", b,
        ])?;
        for (side, end) in [end_a, end_b].into_iter().enumerate() {
            let name = &made.names[side];
            ip(&["-n", name, "link", "set", &end, "name", "wire"])?;
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{}/24", made.address(side)),
                "dev",
                "wire",
            ])?;
        }
        made.join()?;
        Ok(made)
    }

    /// The name of a side's namespace.
    pub fn name(&self, side: usize) -> &str {
        &self.names[side]
    }

    /// The address of a side.
    pub fn address(&self, side: usize) -> String {
        format!("10.83.0.{}", side + 1)
    }

    /// Nothing passes in either direction.
    pub fn cut(&self) -> Result<()> {
        ip(&["-n", self.name(0), "link", "set", "wire", "down"])
    }

    /// What `side` sends vanishes; what is sent to it still arrives.
    pub fn mute(&self, side: usize) -> Result<()> {
        let other = format!("{}/32", self.address(1 - side));
        ip(&["-n", self.name(side), "route", "replace", "blackhole", &other])
    }

    /// Everything passes again.
    pub fn join(&self) -> Result<()> {
        for side in 0..2 {
            ip(&["-n", self.name(side), "link", "set", "wire", "up"])?;
            let other = format!("{}/32", self.address(1 - side));
            // It fails where the side was not mute.
            let _ = ip(&["-n", self.name(side), "route", "del", "blackhole", &other]);
        }
        Ok(())
    }

    /// At most so many bits per second, in both directions, by a token bucket (`tc tbf`), such as "100mbit".
    pub fn limit(&self, rate: &str) -> Result<()> {
        for side in 0..2 {
            let shape = [
                "qdisc", "replace", "dev", "wire", "root", "tbf", "rate", rate, "burst", "256k", "latency", "50ms",
            ];
            let inside = ["netns", "exec", self.name(side), "tc"];
            let arguments: Vec<&str> = inside.into_iter().chain(shape).collect();
            ip(&arguments)?;
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Nobody is left to tell.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Short enough for the name of an interface, and of this process and call alone.
fn unique() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let count = MADE.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", std::process::id())
}

fn ip(arguments: &[&str]) -> Result<()> {
    tool::check("ip", arguments, PATIENCE).with_context(|| format!("ip {}", arguments.join(" ")))?;
    Ok(())
}
