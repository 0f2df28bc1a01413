//! The control side: everything that is not the transmission phase. It opens images and metadata, listens, negotiates
//! with clients and peers, hands their connections to the data threads, answers the operator, and stops in order.

mod accept;
mod access;
mod admin;
mod admission;
mod ask;
mod backoff;
mod branches;
mod client;
mod clients;
mod dialer;
mod door;
mod entry;
mod exports;
mod fit;
mod handshake;
mod listener;
mod notify;
mod open;
mod reload;
mod roster;
mod schedule;
mod security;
mod shutdown;
mod stalls;
mod start;
mod status;
mod stream;
mod why;
mod words;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nbd_proto::server::Mask;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::accept::Acceptor;
use self::admin::Admin;
use self::dialer::Dialer;
use self::listener::SocketFile;
use self::reload::Reloader;
use self::roster::{Place, ResourcePlace, Roster};
use self::security::Keyring;
use self::start::Prepared;
use crate::config::Config;
use crate::data::{self, DataHandle, DataSender, FromData, ToData};
use crate::layers::Wrap;

pub use entry::{Entry, OnlyClient, Ready};
pub use listener::ListenError;
pub use open::StartError;
pub use shutdown::{Shutdown, ShutdownTrigger, Urgency, shutdown};

/// After the deadline of a graceful stop, and in an immediate one, a data thread has this long to let go.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What is not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Exports whose image is taken as theirs whatever their metadata file says.
    pub adopt: BTreeSet<String>,
    /// How clients come in.
    pub entry: Entry,
    /// Features that clients do not see.
    pub mask: Mask,
    /// Told where clients can come in, once they are served.
    pub ready: Option<oneshot::Sender<Ready>>,
    /// Where the configuration came from, to be read again.
    pub file: Option<PathBuf>,
    /// Every message has the configuration read again (SIGHUP).
    pub reload: Option<mpsc::Receiver<()>>,
    /// A layer around the I/O engine, for tests: no configuration can ask for one.
    pub wrap: Option<Wrap>,
}

/// Why a daemon ended other than in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Images, metadata.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Addresses.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A data thread could not be made.
    #[error("data thread {thread} cannot start: {error}")]
    Thread {
        /// Its number.
        thread: usize,
        /// Why.
        error: io::Error,
    },
    /// A data thread gave up.
    #[error("data thread {thread} cannot go on: {reason}")]
    Fatal {
        /// Its number.
        thread: usize,
        /// Why.
        reason: String,
    },
    /// The stop was not in order; what was hot is resynchronised at the next start.
    #[error("not everything could be finished in time; hot extents are resynchronised at the next start")]
    Unclean,
}

/// Serve what the configuration says until told to stop.
pub async fn run(config: Config, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let started = Instant::now();
    // Addresses first: a taken port must not cost the reading of metadata.
    let keyring = Arc::new(Keyring::new(config.tls.kernel));
    let entry = options.entry.open(&config, &keyring)?;
    let ready = entry.ready();
    let admin_socket = config.admin.as_deref().map(bind_admin).transpose()?;
    let Prepared { plans, served } = tokio::task::block_in_place(|| start::prepare(&config, &options.adopt))?;
    let (sender, events) = mpsc::unbounded_channel();
    let threads = spawn_threads(plans, &sender, options.wrap)?;
    drop(sender);
    let senders: Vec<DataSender> = threads.iter().map(DataHandle::sender).collect();
    let limits = config.limits.clone();
    let roster = Roster::new(config, served);
    let dialer = Dialer::new(
        roster.clone(),
        senders.clone(),
        Arc::clone(&keyring),
        limits.handshake_timeout,
    );
    let acceptor = Acceptor::new(roster.clone(), senders.clone(), &limits, options.mask);
    let clients = acceptor.clients();
    let reloader = Reloader::new(roster.clone(), senders.clone(), Arc::clone(&keyring), options.file);
    let deadline = limits.shutdown_timeout;
    let mut tasks = JoinSet::new();
    start_accepting(&mut tasks, Arc::new(acceptor), entry, &shutdown);
    if let Some(socket) = admin_socket {
        let admin = Admin {
            roster: roster.clone(),
            reloader: reloader.clone(),
            threads: senders.clone(),
            engine: engine(&threads),
            keyring,
            clients,
            uris: ready.uris.clone(),
            started,
        };
        start_admin(&mut tasks, admin, socket);
    }
    tasks.spawn(schedule::run(roster.clone(), senders.clone()));
    if let Some(asked) = options.reload {
        tasks.spawn(reload_when_asked(reloader, asked));
    }
    tracing::info!("ready");
    notify::notify(notify::State::Ready);
    if let Some(waiting) = options.ready {
        // Nobody has to wait for it.
        let _ = waiting.send(ready);
    }
    let mut daemon = Daemon {
        senders,
        events,
        dialer,
        roster,
        deadline,
        stopped: vec![false; threads.len()],
        failure: None,
    };
    let outcome = daemon.serve(shutdown).await;
    tasks.shutdown().await;
    if daemon.stopped.iter().all(|stopped| *stopped) {
        for (thread, handle) in threads.into_iter().enumerate() {
            if !handle.join() {
                tracing::error!(thread, "the data thread panicked");
            }
        }
    }
    outcome
}

fn bind_admin(path: &Path) -> Result<(tokio::net::UnixListener, SocketFile), ListenError> {
    listener::bind_admin(path)
}

fn spawn_threads(
    plans: Vec<data::DataPlan>,
    events: &mpsc::UnboundedSender<(usize, FromData)>,
    wrap: Option<Wrap>,
) -> Result<Vec<DataHandle>, RunError> {
    let wrap = wrap.unwrap_or(|driver| driver);
    let spawn = |(thread, plan)| {
        data::spawn_wrapped(plan, thread, events.clone(), wrap).map_err(|error| RunError::Thread { thread, error })
    };
    plans.into_iter().enumerate().map(spawn).collect()
}

/// All threads have the same engine: they asked the same kernel.
fn engine(threads: &[DataHandle]) -> String {
    threads
        .first()
        .map_or_else(String::new, |thread| thread.engine().to_string())
}

fn start_accepting(tasks: &mut JoinSet<()>, acceptor: Arc<Acceptor>, entry: entry::Open, shutdown: &Shutdown) {
    for listener in entry.listeners {
        tracing::info!(address = %listener.name(), tls = listener.security().describe(), "listening");
        tasks.spawn(Arc::clone(&acceptor).run(listener, shutdown.clone()));
    }
    if let Some((stream, left)) = entry.client {
        tasks.spawn(acceptor.run_only(stream, left, shutdown.clone()));
    }
}

fn start_admin(tasks: &mut JoinSet<()>, admin: Admin, (socket, file): (tokio::net::UnixListener, SocketFile)) {
    let router = admin::router(Arc::new(admin));
    tasks.spawn(async move {
        let _removed_at_the_end = file;
        if let Err(error) = axum::serve(socket, router).await {
            tracing::error!(%error, "the admin API has ended");
        }
    });
}

/// On SIGHUP. What came of it is in the log.
async fn reload_when_asked(reloader: Reloader, mut asked: mpsc::Receiver<()>) {
    while asked.recv().await.is_some() {
        match reloader.reload().await {
            Ok(report) => {
                for change in &report.needs_restart {
                    tracing::warn!(%change, "a change of the configuration takes effect with a restart only");
                }
                tracing::info!("the configuration has been read again");
            }
            Err(error) => tracing::error!(%error, "the configuration cannot be read again; nothing has changed"),
        }
    }
}

/// The daemon while it serves.
struct Daemon {
    senders: Vec<DataSender>,
    events: mpsc::UnboundedReceiver<(usize, FromData)>,
    dialer: Dialer,
    roster: Roster,
    /// Time a graceful stop may take.
    deadline: Duration,
    /// Which data threads have said their last word.
    stopped: Vec<bool>,
    /// The first thing that went wrong.
    failure: Option<RunError>,
}

impl Daemon {
    /// Serve until told to stop or a data thread fails; then stop all of them.
    async fn serve(&mut self, mut shutdown: Shutdown) -> Result<(), RunError> {
        loop {
            tokio::select! {
                event = self.events.recv() => self.handle(event),
                () = shutdown.graceful() => break,
            }
            if self.failure.is_some() {
                break;
            }
        }
        self.stop(&mut shutdown).await;
        self.failure.take().map_or(Ok(()), Err)
    }

    async fn stop(&mut self, shutdown: &mut Shutdown) {
        tracing::info!(deadline = ?self.deadline, "stopping: finishing what is in flight");
        notify::notify(notify::State::Stopping);
        self.dialer.cancel_all();
        self.tell_all(self.deadline);
        let patience = tokio::time::sleep(self.deadline + LAST_WORD);
        tokio::pin!(patience);
        while !self.all_stopped() {
            tokio::select! {
                event = self.events.recv() => self.handle(event),
                () = shutdown.immediate() => return self.stop_now().await,
                () = &mut patience => return self.stop_now().await,
            }
        }
        tracing::info!("stopped");
    }

    async fn stop_now(&mut self) {
        tracing::warn!("stopping at once");
        self.failure.get_or_insert(RunError::Unclean);
        self.tell_all(Duration::ZERO);
        let last = tokio::time::sleep(LAST_WORD);
        tokio::pin!(last);
        while !self.all_stopped() {
            tokio::select! {
                event = self.events.recv() => self.handle(event),
                () = &mut last => return,
            }
        }
    }

    fn tell_all(&self, deadline: Duration) {
        for (sender, stopped) in self.senders.iter().zip(&self.stopped) {
            if !stopped {
                // A thread that is gone has said its last word, or will be seen as silent.
                sender.send(ToData::Stop { deadline });
            }
        }
    }

    fn all_stopped(&self) -> bool {
        self.stopped.iter().all(|stopped| *stopped)
    }

    /// `None`: every data thread is gone, with or without a last word.
    fn handle(&mut self, event: Option<(usize, FromData)>) {
        let Some((thread, event)) = event else {
            if !self.all_stopped() {
                self.failure.get_or_insert(RunError::Unclean);
                self.stopped.fill(true);
            }
            return;
        };
        match event {
            FromData::Connect { volume, peer, attempt } => {
                self.dialer.connect(Place { thread, volume }, peer, attempt);
            }
            FromData::CancelConnect { volume, peer } => self.dialer.cancel(Place { thread, volume }, peer),
            FromData::DialStream {
                resource,
                peer,
                attempt,
            } => self.dialer.stream(ResourcePlace { thread, resource }, peer, attempt),
            FromData::CancelStream { resource, peer } => {
                self.dialer.cancel_stream(ResourcePlace { thread, resource }, peer);
            }
            FromData::RestStream { resource, peer } => {
                self.dialer.rest_stream(ResourcePlace { thread, resource }, peer);
            }
            FromData::VolumeAdded {
                resource,
                export,
                volume,
                number,
            } => self
                .roster
                .added(ResourcePlace { thread, resource }, &export, (volume, number)),
            FromData::Stopped { clean } => {
                self.last_word(thread);
                if !clean {
                    self.failure.get_or_insert(RunError::Unclean);
                }
            }
            FromData::Fatal(reason) => {
                tracing::error!(thread, %reason, "a data thread cannot go on; stopping");
                self.last_word(thread);
                self.failure.get_or_insert(RunError::Fatal { thread, reason });
            }
        }
    }

    fn last_word(&mut self, thread: usize) {
        if let Some(stopped) = self.stopped.get_mut(thread) {
            *stopped = true;
        }
    }
}
