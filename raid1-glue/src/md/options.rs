//! Which options of md belong to an array with a leg over the network, and why.
//!
//! They follow from one figure, how long the leg takes to answer, measured when the array is made. The rest is the same for
//! every network: there is a bitmap, reads stay local, and what the leg does not answer fails fast.

use std::fmt;
use std::time::Duration;

/// From here on writes are not held up by the leg as long as the queue has room: a local network answers sooner.
const BEHIND_FROM: Duration = Duration::from_millis(2);
/// Writes that are wanted per second in spite of the leg.
const WRITES_PER_SECOND: u64 = 4096;
/// What md takes at most (`backlog` is 14 bits).
const BEHIND_MAX: u64 = 16_383;
/// What md takes when nothing is said.
const BEHIND_MIN: u64 = 256;
/// Bytes that one bit of the bitmap stands for. A bit that is set costs a flush of every leg before the write, so that over a
/// network few large ones are better than many small ones; what has to be copied after a cut is rounded up to it.
const CHUNK_NEAR: u64 = 4 << 20;
/// The same, where a flush takes long.
const CHUNK_FAR: u64 = 64 << 20;

/// What mdadm is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a bit of the write-intent bitmap.
    pub bitmap_chunk: u64,
    /// Writes that the leg may be behind; `None`: every write waits for it.
    pub write_behind: Option<u64>,
    /// How long the leg took to answer.
    pub latency: Duration,
}

impl Options {
    /// For a leg that answers after `latency`.
    pub fn for_latency(latency: Duration) -> Self {
        let is_far = latency >= BEHIND_FROM;
        let needed = WRITES_PER_SECOND * latency.as_millis() as u64 / 1000;
        Self {
            bitmap_chunk: if is_far { CHUNK_FAR } else { CHUNK_NEAR },
            write_behind: is_far.then(|| needed.next_power_of_two().clamp(BEHIND_MIN, BEHIND_MAX)),
            latency,
        }
    }

    /// Arguments of `mdadm --create`, before the devices; the leg comes behind [`leg_arguments`](Self::leg_arguments).
    pub fn array_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--level=1".to_owned(),
            "--raid-devices=2".to_owned(),
            "--bitmap=internal".to_owned(),
            format!("--bitmap-chunk={}K", self.bitmap_chunk >> 10),
        ];
        arguments.extend(self.write_behind.map(|writes| format!("--write-behind={writes}")));
        arguments
    }

    /// What a configuration of mdadm has to say: no list of bad blocks. With one, a leg whose writes fail could stay in the
    /// array, with holes that no bitmap knows of; without, it fails, and comes back whole.
    pub const CONFIGURATION: &str = "CREATE bbl=no\n";

    /// Arguments that stand before the leg.
    pub fn leg_arguments() -> [&'static str; 2] {
        ["--write-mostly", "--failfast"]
    }
}

impl fmt::Display for Options {
    /// What was chosen, and why, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = self.latency.as_secs_f64() * 1e3;
        writeln!(f, "the leg answers after {latency:.2} ms (median)")?;
        writeln!(
            f,
            "  bitmap, {} MiB per bit: after a cut only what changed is copied; a new bit costs a flush of both legs",
            self.bitmap_chunk >> 20
        )?;
        writeln!(f, "  write-mostly: reads stay on the local device")?;
        match self.write_behind {
            Some(writes) => writeln!(
                f,
                "  write-behind, {writes} writes: they do not wait for the leg; if the local device is lost, so are they"
            )?,
            None => writeln!(f, "  no write-behind: every write is on both legs when it is answered")?,
        }
        write!(
            f,
            "  failfast, no list of bad blocks: a write that the leg fails takes it out, whole; the array goes on"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_legs_are_waited_for_and_far_ones_are_not() {
        let of = |micros| Options::for_latency(Duration::from_micros(micros));
        for (micros, behind) in [
            (0, None),
            (300, None),
            (1_999, None),
            (2_000, Some(256)),
            (40_000, Some(256)),
            (100_000, Some(512)),
            (3_000_000, Some(BEHIND_MAX)),
        ] {
            assert_eq!(of(micros).write_behind, behind, "{micros} us");
        }
        assert_eq!(of(300).bitmap_chunk, CHUNK_NEAR);
        assert_eq!(of(40_000).bitmap_chunk, CHUNK_FAR);
    }

    #[test]
    fn what_is_chosen_is_what_is_told() {
        let far = Options::for_latency(Duration::from_millis(100));
        assert_eq!(
            far.array_arguments(),
            [
                "--level=1",
                "--raid-devices=2",
                "--bitmap=internal",
                "--bitmap-chunk=65536K",
                "--write-behind=512"
            ]
        );
        let text = far.to_string();
        assert!(text.contains("100.00 ms") && text.contains("512 writes"), "{text}");
        let near = Options::for_latency(Duration::from_micros(200));
        assert!(
            !near
                .array_arguments()
                .iter()
                .any(|argument| argument.contains("behind"))
        );
        assert!(near.to_string().contains("no write-behind"), "{near}");
    }
}
