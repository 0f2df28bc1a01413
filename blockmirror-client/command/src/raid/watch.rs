//! `blockmirror raid watch`: stays, says what happens to arrays, and heals them.
//!
//! One thread per array looks, and does what has to be done; one more waits for the kernel's word that something has happened to
//! any array (`/proc/mdstat`, as mdadm's own monitor does it).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raid1_glue::md::heal::{Copying, Step};
use raid1_glue::md::record::{Held, RecordError};
use raid1_glue::md::watch::{Backoff, Event, changes, told_of};
use raid1_glue::md::{Healing, LegDevice, Machine, Record, Records, Report, Standing};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Care;
use super::leg::Leg;
use super::metrics::{self, Metrics};
use crate::failure::{Failure, print};

/// Looks when nothing is told, and looks for arrays that are new.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// Looks at a device that waits for its connections.
const QUICK_LOOK: Duration = Duration::from_millis(500);
/// Steps in one go: no leg needs more.
const STEPS_MAX: usize = 8;
/// Where the kernel tells that something has happened.
const NEWS: &str = "/proc/mdstat";

/// Until it is told to end.
pub async fn run(care: Care, name: Option<String>, address: Option<SocketAddr>) -> Result<(), Failure> {
    if let Some(name) = &name {
        care.records.read(name)?;
    }
    let stop = |error| Failure::Failed(format!("signals cannot be caught: {error}"));
    let mut terminated = signal(SignalKind::terminate()).map_err(stop)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(stop)?;
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::Failed(error.to_string()))?);
    if let Some(address) = address {
        metrics::serve(address, Arc::clone(&metrics)).await?;
    }
    let news = Arc::new(News::default());
    let teller = Arc::clone(&news);
    std::thread::spawn(move || teller.listen());
    let mut watched: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        watched.retain(|_, thread| !thread.is_finished());
        for name in care.names(name.as_deref()) {
            let array = Watched::of(&care, name.clone(), Arc::clone(&metrics));
            let news = Arc::clone(&news);
            let thread = || std::thread::spawn(move || array.watch(&news));
            watched.entry(name).or_insert_with(thread);
        }
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            () = tokio::time::sleep(SLOW_LOOK) => {}
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

/// How often something has happened to any array.
#[derive(Default)]
struct News {
    count: Mutex<u64>,
    changed: Condvar,
}

impl News {
    /// For ever.
    fn listen(&self) {
        let mut text = String::new();
        let mut mdstat: Option<File> = None;
        loop {
            // Without a module of md there is none yet.
            let Some(file) = mdstat.as_mut() else {
                std::thread::sleep(SLOW_LOOK);
                mdstat = File::open(NEWS).ok();
                continue;
            };
            text.clear();
            // What has been read is what the next word is news to.
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            let waited = poll(&mut [PollFd::new(&*file, PollFlags::PRI)], None);
            if read.is_err() || waited.is_err() {
                mdstat = None;
            }
            *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.changed.notify_all();
        }
    }

    /// Until something happens beyond what was `seen`, or for so long.
    fn wait(&self, seen: &mut u64, longest: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, _) = self
            .changed
            .wait_timeout_while(count, longest, |count| *count == *seen)
            .unwrap_or_else(PoisonError::into_inner);
        *seen = *count;
    }
}

/// One array.
struct Watched {
    name: String,
    machine: Machine,
    records: Records,
    json: bool,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    before: Option<Report>,
    /// The last trouble that was told: the same one is not told again.
    trouble: Option<Event>,
    /// A copy under way: since when, what was written to the device before, what the bitmap called changed.
    copy: Option<(Instant, u64)>,
}

impl Watched {
    fn of(care: &Care, name: String, metrics: Arc<Metrics>) -> Self {
        Self {
            name,
            machine: care.machine.clone(),
            records: care.records.clone(),
            json: care.json,
            metrics,
            backoff: Backoff::default(),
            before: None,
            trouble: None,
            copy: None,
        }
    }

    /// Until its record is gone.
    fn watch(mut self, news: &News) {
        let mut seen = 0;
        while let Some(pause) = self.round() {
            news.wait(&mut seen, pause);
        }
        self.metrics.forget(&self.name);
    }

    /// How long it is until the next one; `None`: there is no such record any more.
    fn round(&mut self) -> Option<Duration> {
        match self.records.read(&self.name) {
            Ok(record) => Some(self.look(&record)),
            Err(RecordError::Unknown { .. }) => None,
            Err(error) => {
                self.trouble(error.to_string());
                Some(SLOW_LOOK)
            }
        }
    }

    /// One look, and what follows from it; how long it is until the next one.
    fn look(&mut self, record: &Record) -> Duration {
        let leg = match Leg::of(record) {
            Ok(leg) => leg,
            Err(failure) => {
                self.trouble(failure.message());
                return SLOW_LOOK;
            }
        };
        let report = self.machine.report(&self.name, record, leg.seen(), leg.agent());
        self.tell_changes(&report);
        self.metrics.update(&report);
        let noted = self.records.note_behind(&self.name, record, report.is_local_behind);
        let is_in = matches!(report.leg.standing, Some(Standing::InSync | Standing::Syncing));
        let has_to = report.is_running && !record.is_removed && !is_in;
        self.before = Some(report);
        match noted {
            // The record is another one now.
            Ok(true) => return Duration::ZERO,
            Ok(false) => {}
            Err(error) => self.trouble(error.to_string()),
        }
        if !has_to {
            return SLOW_LOOK;
        }
        let now = Instant::now();
        if self.backoff.is_due(now) {
            return match self.take(record) {
                Ok(Some(_held)) => self.heal(record, &leg),
                Ok(None) => SLOW_LOOK,
                Err(error) => {
                    self.trouble(error.to_string());
                    SLOW_LOOK
                }
            };
        }
        self.backoff.left(now).min(SLOW_LOOK)
    }

    /// `None`: somebody else does something to the array, and knows what; or has done so since this record was read.
    fn take(&self, record: &Record) -> Result<Option<Held>, RecordError> {
        let Some(held) = self.records.try_lock(&self.name)? else {
            return Ok(None);
        };
        let is_same = self.records.read(&self.name)? == *record;
        Ok(is_same.then_some(held))
    }

    fn tell_changes(&mut self, now: &Report) {
        for event in changes(self.before.as_ref(), now) {
            match &event {
                Event::LegFailed { .. } => self.backoff.leg_failed(Instant::now()),
                Event::InSync => self.backoff.healed(Instant::now()),
                _ => {}
            }
            if event == Event::InSync
                && let Some((since, before)) = self.copy.take()
            {
                let written = self.machine.blocks.written(&now.leg.device).unwrap_or(before);
                self.tell(&Event::Healed {
                    copied_bytes: written.saturating_sub(before),
                    milliseconds: since.elapsed().as_millis() as u64,
                });
                continue;
            }
            self.tell(&event);
        }
    }

    /// As many steps as lead on; how long it is until the next look.
    fn heal(&mut self, record: &Record, leg: &dyn LegDevice) -> Duration {
        let (machine, device) = (self.machine.clone(), record.device.clone());
        let mut healing = Healing::of(&machine, record, leg, Copying::Changed);
        let since = Instant::now();
        for _ in 0..STEPS_MAX {
            let written = machine.blocks.written(&device).unwrap_or_default();
            let done = match healing.next_step() {
                Ok(step) => healing.perform(step).map(|()| step),
                Err(error) => Err(error),
            };
            let step = match done {
                Ok(step) => step,
                Err(error) => {
                    self.trouble(error.to_string());
                    return self.again();
                }
            };
            if let Some(event) = told_of(step) {
                match step {
                    Step::AskBeforeCopyingWhole => self.say_once(event),
                    _ => self.tell(&event),
                }
            }
            match step {
                Step::Nothing => return Duration::ZERO,
                Step::Wait => return QUICK_LOOK,
                Step::AskBeforeCopyingWhole => return self.again(),
                Step::ReAdd => self.copy = Some((since, written)),
                _ => {}
            }
        }
        self.again()
    }

    fn again(&mut self) -> Duration {
        let now = Instant::now();
        self.backoff.failed(now);
        self.backoff.left(now)
    }

    fn trouble(&mut self, error: String) {
        self.say_once(Event::Trouble { error });
    }

    fn say_once(&mut self, event: Event) {
        if self.trouble.as_ref() != Some(&event) {
            self.tell(&event);
            self.trouble = Some(event);
        }
    }

    fn tell(&mut self, event: &Event) {
        if !matches!(event, Event::Trouble { .. } | Event::Asks { .. }) {
            self.trouble = None;
        }
        self.metrics.count(&self.name, event);
        let line = if self.json {
            json_line(&self.name, event)
        } else {
            format!("{}: {event}\n", self.name)
        };
        // Nobody reads it: arrays are healed all the same.
        let _ = print(&line);
    }
}

fn json_line(name: &str, event: &Event) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({ "time": since.as_secs_f64(), "name": name });
    if let (Value::Object(line), Ok(Value::Object(event))) = (&mut line, serde_json::to_value(event)) {
        line.extend(event);
    }
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_lines_for_programs_too() {
        let device = "/dev/nbd0".to_owned();
        let line = json_line("data", &Event::LegFailed { device });
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (read["name"].as_str(), read["event"].as_str(), read["device"].as_str()),
            (Some("data"), Some("leg_failed"), Some("/dev/nbd0"))
        );
        assert!(read["time"].as_f64().unwrap() > 1e9 && line.ends_with('\n'));
    }

    #[test]
    fn a_record_is_acted_on_as_it_is_and_told_when_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let care = Care {
            records: Records::at(folder.path()),
            machine: Machine::default(),
            json: true,
        };
        let text = "array = '/dev/md/none'\nuuid = '1'\nlocal = '/dev/none'\nuris = 'nbd://a/b'\ndevice = '/dev/nbd99'\n\
                    connections = 1\nanswer_timeout = 1\ndead_timeout = 1\n";
        let file = folder.path().join("data.toml");
        std::fs::write(&file, text).unwrap();
        let mut watched = Watched::of(&care, "data".to_owned(), Arc::new(Metrics::new().unwrap()));
        let record = care.records.read("data").unwrap();
        assert!(watched.take(&record).unwrap().is_some());
        // An operator takes the leg out in the meantime.
        std::fs::write(&file, format!("{text}is_removed = true\n")).unwrap();
        assert!(watched.take(&record).unwrap().is_none());
        std::fs::write(&file, "array = 3").unwrap();
        assert_eq!(watched.round(), Some(SLOW_LOOK));
        let told = watched.trouble.clone();
        assert!(
            matches!(&told, Some(Event::Trouble { error }) if error.contains("data.toml")),
            "{told:?}"
        );
        std::fs::remove_file(&file).unwrap();
        assert_eq!(watched.round(), None);
    }

    #[test]
    fn who_waits_for_news_is_woken_by_them_and_misses_none() {
        let news = Arc::new(News::default());
        let mut seen = 0;
        news.wait(&mut seen, Duration::from_millis(1));
        assert_eq!(seen, 0);
        *news.count.lock().unwrap() += 1;
        // Told before it waited.
        news.wait(&mut seen, Duration::from_secs(60));
        assert_eq!(seen, 1);
        let teller = Arc::clone(&news);
        std::thread::spawn(move || {
            *teller.count.lock().unwrap() += 1;
            teller.changed.notify_all();
        });
        news.wait(&mut seen, Duration::from_secs(60));
        assert_eq!(seen, 2);
    }
}
