//! What hosts feel of a resync over a narrow link.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blockmirror_client::admin::ResyncStatus;
use blockmirror_tests::pace::{Pace, percentile};
use blockmirror_tests::wait::PATIENT;

use super::{Scale, VOLUME, apart, change, part};

/// The link, as `tc` reads it.
const LIMIT: &str = "200mbit";
/// Writes per second.
const PER_SECOND: u32 = 200;
/// They go to this part of the image, so that the rest of it is what resync copies.
const PART: u64 = 256 << 20;
/// How long writes are watched without a resync.
const BEFORE: Duration = Duration::from_secs(10);

/// One resync under load.
pub struct Felt {
    /// 99th and 50th percentile of writes before it.
    pub before: (Duration, Duration),
    /// The same while it ran.
    pub during: (Duration, Duration),
    /// Writes measured before and during.
    pub writes: (usize, usize),
    pub resync: ResyncStatus,
}

/// Several times.
pub fn measure(scale: &Scale) -> Result<Vec<Felt>> {
    let partners = apart(scale.size, true)?;
    partners.link.as_ref().context("no namespaces")?.limit(LIMIT)?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT)?;
    let pace = Pace::start(&partners.nodes[0].uri(VOLUME), PART, PER_SECOND)?;
    let mut felt = Vec::new();
    for round in 0..scale.rounds {
        let quiet = Instant::now();
        thread::sleep(BEFORE);
        let parted = Instant::now();
        part(&partners)?;
        change(&partners, scale.size, round as u64 + 2)?;
        let started = Instant::now();
        partners.connect(0, false)?;
        partners.wait_in_step(0, PATIENT * 2)?;
        let ended = Instant::now();
        let (before, during) = (pace.latencies(quiet, parted), pace.latencies(started, ended));
        felt.push(Felt {
            before: upper_and_middle(&before).context("no write before the resync")?,
            during: upper_and_middle(&during).context("no write during the resync")?,
            writes: (before.len(), during.len()),
            resync: partners.nodes[0].last_resync(VOLUME)?,
        });
    }
    pace.finish()?;
    Ok(felt)
}

fn upper_and_middle(sorted: &[Duration]) -> Option<(Duration, Duration)> {
    Some((percentile(sorted, 99)?, percentile(sorted, 50)?))
}
