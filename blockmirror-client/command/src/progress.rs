//! How far a wait is: a bar for a person, plain lines for a log.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use blockmirror_client::admin::{ConnectionState, PeerStatus, ResyncStatus, VerifyStatus};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::human::{bytes, clean, duration, percent, rate};
use crate::render;

/// Between two plain lines about the same thing.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// The bar, then words.
const TEMPLATE: &str = "{prefix} [{bar:30}] {msg}";

/// Shows on stderr, so that stdout has only results.
pub struct Progress {
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines {
        name: String,
        last: Option<(Instant, &'static str)>,
    },
}

impl Progress {
    /// For the peer `name`, or whatever else is waited for.
    pub fn new(name: &str) -> Self {
        let name = clean(name).into_owned();
        if !std::io::stderr().is_terminal() {
            return Self {
                shown: Shown::Lines { name, last: None },
            };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_prefix(name);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { shown: Shown::Bar(bar) }
    }

    /// The present state of a peer.
    pub fn peer(&mut self, peer: &PeerStatus) {
        match &peer.resync {
            Some(resync) => self.show(
                "resync",
                resync.done_bytes,
                resync.dirty_at_start_bytes,
                &render::resync(resync),
            ),
            None if peer.connection_state == ConnectionState::Connected => {
                self.show(
                    "connected",
                    0,
                    0,
                    &format!(
                        "Connected, {}, {} dirty",
                        peer.replication_state,
                        bytes(peer.dirty_bytes)
                    ),
                );
            }
            None => {
                let error = peer
                    .last_error
                    .as_deref()
                    .map(|error| format!(": {}", clean(error)))
                    .unwrap_or_default();
                self.show(
                    "waiting",
                    0,
                    0,
                    &format!("{}, attempt {}{error}", peer.connection_state, peer.attempts),
                );
            }
        }
    }

    /// The resync is done; leaves the last line standing.
    pub fn resync_done(&mut self, resync: &ResyncStatus) {
        let total = resync.dirty_at_start_bytes;
        self.show("done", total, total, &format!("100 %: {}", render::resync_done(resync)));
    }

    /// So many bytes of what began `elapsed` ago are done.
    pub fn moved(&mut self, what: &'static str, done: u64, total: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let speed = done as f64 / seconds;
        let left = if done > 0 {
            format!(", {} left", duration((total - done) as f64 / speed))
        } else {
            String::new()
        };
        let text = format!(
            "{}: {} of {}, {}{left}",
            percent(done, total),
            bytes(done),
            bytes(total),
            rate(speed)
        );
        self.show(what, done, total, &text);
    }

    /// How far a comparison with a peer is.
    pub fn verify(&mut self, verify: &VerifyStatus) {
        self.show("verify", verify.done_bytes, verify.total_bytes, &render::verify(verify));
    }

    /// Ends the display. The bar stays when `keep`.
    pub fn end(self, keep: bool) {
        match self.shown {
            Shown::Bar(bar) if keep => bar.abandon(),
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Lines { .. } => {}
        }
    }

    fn show(&mut self, what: &'static str, done: u64, total: u64, text: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(text.to_owned());
                bar.tick();
            }
            Shown::Lines { name, last } => {
                let now = Instant::now();
                if last.is_none_or(|(at, before)| before != what || now - at >= PLAIN_INTERVAL) {
                    *last = Some((now, what));
                    // A log that is gone must not stop the wait.
                    let _ = writeln!(std::io::stderr(), "{name}: {text}");
                }
            }
        }
    }
}
