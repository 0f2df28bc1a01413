//! What a service that keeps a device tells: systemd in a line, and the log in lines.

use std::cell::RefCell;
use std::io::{self, Write};

use blockmirror_client::uri::UriList;
use raid1_glue::attach::Event;
use raid1_glue::nbd::sysfs::NbdIndex;
use sd_notify::NotifyState;

use crate::human::{bytes, clean, duration};

/// Says what happens to one device.
pub struct Service {
    index: NbdIndex,
    /// The latest line: the same again is not said.
    said: RefCell<String>,
}

impl Service {
    pub fn new(index: NbdIndex) -> Self {
        Self {
            index,
            said: RefCell::default(),
        }
    }

    /// There is a device; what depends on it may begin.
    pub fn ready(&self, uris: &UriList, size: u64) {
        let status = format!("{} is attached to {uris}: {}", self.index, bytes(size));
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// No node serves yet.
    pub fn waits(&self, why: &str) {
        self.say(&format!("waits: {why}"));
    }

    /// It is about to end, and the device with it or not.
    pub fn stops(&self, what: &str) {
        notify(&[NotifyState::Stopping]);
        self.say(what);
    }

    pub fn tell(&self, event: &Event<'_>) {
        self.say(&words(event));
    }

    fn say(&self, what: &str) {
        let line = clean(&format!("{} {what}", self.index)).into_owned();
        if *self.said.borrow() == line {
            return;
        }
        // Nobody may read it any more.
        let _ = writeln!(io::stderr(), "{line}");
        notify(&[NotifyState::Status(&line)]);
        *self.said.borrow_mut() = line;
    }
}

fn words(event: &Event<'_>) -> String {
    match event {
        Event::Lost => "has lost connections".to_owned(),
        Event::Still => "has requests that stand still: it is brought new connections, should it lack some".to_owned(),
        Event::Unanswered => {
            "is connected to a node that answers nothing: what waits fails when that has lasted as long as requests wait for a node"
                .to_owned()
        }
        Event::Waiting(error) => format!("waits: {error}"),
        Event::Failing => {
            "has found no node for as long as requests wait: THEY FAIL NOW, until one is there. Whatever was \
                           writing has seen I/O errors"
                .to_owned()
        }
        Event::Back(uri, after) => format!("is connected to {uri} again, after {}", duration(after.as_secs_f64())),
        Event::Resized(size) => format!("has {} now", bytes(*size)),
        Event::Kernel(error) => format!("is not helped by the kernel: {error}"),
    }
}

/// Where there is nobody to tell nothing happens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        let _ = writeln!(io::stderr(), "systemd could not be told: {error}");
    }
}
