//! The data side: threads that own volumes and everything that moves their data.
//!
//! One thread owns a volume whole: its image, its host connections in their transmission phase, its mirror core, its
//! metadata file and its links to peers, all driven by one [`Driver`]. Nothing is shared between
//! threads and nothing is locked. The control side talks to a thread by [`ToData`] and hears from it by [`FromData`].
//!
//! ```text
//!   wait for completions ──▶ dispatch each to its owner ──▶ drain the cores ──▶ deliver replies ──▶ one send per socket
//!          ▲                  connection: parse requests     outputs become                             │
//!          │                  image, metadata: inputs        operations                                 │
//!          │                  link: answers                                                             │
//!          └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

mod arriving;
mod budget;
mod connection;
mod inbox;
mod message;
mod metadata;
mod outbox;
mod peer;
mod plan;
mod resource;
mod slab;
mod snapshot;
mod socket;
mod staging;
mod stop;
mod stream;
mod thread;
mod token;
mod turn;
mod volume;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

pub use self::message::{
    BranchSnapshot, ClientHandover, FromData, PeerHandover, PeerSnapshot, ResourceOrder, ResourceSnapshot,
    ResyncSnapshot, StreamHandover, StreamSnapshot, ToData, VolumeSnapshot,
};
pub use self::plan::{
    BranchPlan, DataPlan, Limits, MirrorPlan, PartnerPlan, PeerPlan, ResourcePlan, ViewPlan, VolumePlan,
};
pub use self::resource::{Gate, StreamHello};
use self::thread::DataThread;
use self::turn::Turn;
pub(crate) use self::volume::{ALLOCATION, ATTACHING, DIRTY_PREFIXES};
use crate::layers::TlsLayer;
use crate::ring::{Driver, Waker, open_driver};

/// A running data thread.
pub struct DataHandle {
    sender: DataSender,
    engine: String,
    thread: JoinHandle<()>,
}

/// Sends messages to a data thread; clones send to the same one.
#[derive(Clone)]
pub struct DataSender {
    messages: mpsc::Sender<ToData>,
    waker: Waker,
}

impl DataHandle {
    /// Send a message. False: the thread has ended, the message is lost.
    pub fn send(&self, message: ToData) -> bool {
        self.sender.send(message)
    }

    /// A sender of one's own.
    pub fn sender(&self) -> DataSender {
        self.sender.clone()
    }

    /// The I/O engine it runs on and why, in words.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Wait for its end. False: it panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

impl DataSender {
    /// Send a message. False: the thread has ended, the message is lost.
    pub fn send(&self, message: ToData) -> bool {
        let sent = self.messages.send(message).is_ok();
        self.waker.wake();
        sent
    }
}

#[cfg(test)]
impl DataSender {
    /// To no data thread, and what is sent to it.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn to_nobody() -> (Self, mpsc::Receiver<ToData>) {
        let (messages, sent) = mpsc::channel();
        let waker = open_driver(crate::ring::EngineChoice::Auto).unwrap().waker();
        (Self { messages, waker }, sent)
    }
}

/// Tells the control side when the thread panics: its volumes are dead, and the daemon must not go on as if not.
struct PanicAlarm {
    thread: usize,
    control: UnboundedSender<(usize, FromData)>,
}

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = "a data thread panicked; this is a bug, its volumes are not served any more".to_owned();
            // Nobody is left to tell when this fails.
            let _ = self.control.send((self.thread, FromData::Fatal(message)));
        }
    }
}

/// Start a data thread. Returns once its I/O engine is open and its volumes are taken over; what it has to say goes to
/// `from_data`, with its own number `thread`.
///
/// # Errors
/// The engine cannot be opened, a metadata file cannot be used, or the system has no thread left.
pub fn spawn(plan: DataPlan, thread: usize, from_data: UnboundedSender<(usize, FromData)>) -> io::Result<DataHandle> {
    spawn_wrapped(plan, thread, from_data, |driver| driver)
}

/// As [`spawn`], with a layer around its I/O engine.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_wrapped(
    plan: DataPlan,
    thread: usize,
    from_data: UnboundedSender<(usize, FromData)>,
    wrap: impl FnOnce(Box<dyn Driver>) -> Box<dyn Driver> + Send + 'static,
) -> io::Result<DataHandle> {
    let (messages, inbox) = mpsc::channel();
    let (ready, started) = mpsc::sync_channel(1);
    let builder = std::thread::Builder::new().name(plan.name.clone());
    let thread = builder.spawn(move || {
        let alarm = PanicAlarm {
            thread,
            control: from_data.clone(),
        };
        // The engine belongs to the thread that opens it.
        let opened = open_driver(plan.engine).map(wrap).and_then(|driver| {
            let driver = Box::new(TlsLayer::new(driver));
            let (waker, engine) = (driver.waker(), driver.describe().to_string());
            let turn = Turn::new(driver, plan.limits, from_data, thread);
            Ok((DataThread::new(plan, turn, inbox)?, waker, engine))
        });
        match opened {
            Ok((data, waker, engine)) => {
                let _alarm = alarm;
                if ready.send(Ok((waker, engine))).is_ok() {
                    data.run();
                }
            }
            // Whoever spawned us waits for this.
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let (waker, engine) = started
        .recv()
        .map_err(|_| io::Error::other("the data thread ended before it started"))??;
    Ok(DataHandle {
        sender: DataSender { messages, waker },
        engine,
        thread,
    })
}
