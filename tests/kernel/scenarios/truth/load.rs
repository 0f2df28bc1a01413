//! A load that fsyncs files, and what it says is durable: kept here, outside of the guest that may lose its power.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use blockmirror_tests::wait;

use crate::daemon::PATIENT;
use crate::guest::Guest;

/// That many write at a time.
const WRITERS: usize = 3;
/// The longest a load may run.
const DEADLINE: Duration = Duration::from_secs(400);
/// Lines that a command to a guest may have: it takes 128 KiB.
const LINES: usize = 1000;

/// `guest/writer` at work on `/mnt`.
pub struct Load {
    guest: Arc<Guest>,
    journal: Arc<Mutex<Journal>>,
    thread: JoinHandle<Result<()>>,
}

/// What has to be found again.
#[derive(Debug)]
pub struct Journal {
    unfinished: Vec<u8>,
    files: BTreeMap<String, String>,
    counts: BTreeMap<String, u64>,
    said: usize,
    last: Instant,
    pause: Duration,
}

impl Load {
    /// Begins on `/mnt` of the guest, in folders of this name, and is going on when this returns.
    pub fn begin(guest: &Arc<Guest>, name: &str) -> Result<Self> {
        Self::start(guest, &format!("/scenarios/writer /mnt {name} {WRITERS}"))
    }

    /// The same; what is durable is a mark in the log of that device of dm-log-writes, too.
    pub fn begin_marking(guest: &Arc<Guest>, device: &str) -> Result<Self> {
        Self::start(guest, &format!("LOG={device} /scenarios/writer /mnt marked {WRITERS}"))
    }

    fn start(guest: &Arc<Guest>, writer: &str) -> Result<Self> {
        let journal = Arc::new(Mutex::new(Journal::new()));
        let script = format!("rm -f /tmp/enough; {writer}");
        let (writing, heard) = (Arc::clone(guest), Arc::clone(&journal));
        let thread = std::thread::spawn(move || {
            let outcome = writing.listen(&script, DEADLINE, |bytes| lock(&heard).hear(bytes))?;
            ensure!(outcome.status == 0, "a write has failed:\n{}", outcome.output);
            Ok(())
        });
        let load = Self {
            guest: Arc::clone(guest),
            journal,
            thread,
        };
        load.goes_on()?;
        Ok(load)
    }

    /// Until every writer has done some more.
    pub fn goes_on(&self) -> Result<()> {
        let enough = self.journal().said + 40;
        wait::until("the load to go on", PATIENT, || {
            (self.thread.is_finished() || self.journal().said > enough).then_some(())
        })?;
        ensure!(!self.thread.is_finished(), "the load has ended");
        Ok(())
    }

    /// The longest time, since this was asked last, in which nothing became durable.
    pub fn pause(&self) -> Duration {
        let mut journal = self.journal();
        std::mem::take(&mut journal.pause)
    }

    /// Ends it in order: no write has failed.
    pub fn end(self) -> Result<Journal> {
        self.guest.run("touch /tmp/enough")?;
        let (journal, ended) = self.join()?;
        ended.map(|()| journal)
    }

    /// Its guest has been killed, and it with it.
    pub fn killed(self) -> Result<Journal> {
        let (journal, ended) = self.join()?;
        ensure!(
            ended.is_err(),
            "the load has ended in order, though its guest was killed"
        );
        Ok(journal)
    }

    fn join(self) -> Result<(Journal, Result<()>)> {
        let Ok(ended) = self.thread.join() else {
            bail!("the thread of a load has panicked");
        };
        let journal = std::mem::replace(&mut *lock(&self.journal), Journal::new());
        Ok((journal, ended))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }
}

impl Journal {
    fn new() -> Self {
        Self {
            unfinished: Vec::new(),
            files: BTreeMap::new(),
            counts: BTreeMap::new(),
            said: 0,
            last: Instant::now(),
            pause: Duration::ZERO,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.pause = self.pause.max(self.last.elapsed());
        self.last = Instant::now();
        self.unfinished.extend_from_slice(bytes);
        while let Some(end) = self.unfinished.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            self.note(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["file", path, sum] => {
                self.files.insert(path.to_owned(), sum.to_owned());
            }
            ["gone", path] => {
                self.files.remove(path);
            }
            ["count", name, number] => {
                self.counts.insert(name.to_owned(), number.parse().unwrap_or(u64::MAX));
            }
            // What failed: the load's status tells, too.
            _ => return,
        }
        self.said += 1;
    }

    /// What was durable is on `/mnt` of the guest.
    pub fn check(&self, guest: &Guest) -> Result<()> {
        ensure!(self.files.len() >= WRITERS, "too little was written: {self:?}");
        let sums: Vec<String> = self.files.iter().map(|(path, sum)| format!("{sum}  {path}")).collect();
        guest.run("rm -f /tmp/sums")?;
        for lines in sums.chunks(LINES) {
            guest.run(&format!("cat >>/tmp/sums <<'END'\n{}\nEND", lines.join("\n")))?;
        }
        let mut script = "cd /mnt && sha256sum --quiet -c /tmp/sums\n".to_owned();
        for (name, number) in &self.counts {
            script += &format!("[ $((10#$(<{name}/count))) -ge {number} ]\n");
            script += &format!("seq {number} >/tmp/lines; head -n {number} {name}/lines | cmp - /tmp/lines\n");
        }
        guest.run(&script).map(drop)
    }

    /// How much that is, for the table.
    pub fn size(&self) -> String {
        let numbers: u64 = self.counts.values().sum();
        format!("{} files there, {numbers} were written", self.files.len())
    }
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
