//! The blockmirror daemon.

mod announce;
mod arguments;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use blockmirror_server::activation::{self, Passed};
use blockmirror_server::control::{self, Entry, OnlyClient, Options, Ready, ShutdownTrigger, Urgency};
use blockmirror_server::log;
use blockmirror_server::stdio::{self, Relay};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::announce::{Announce, PidFile};
use crate::arguments::{Arguments, Job};

/// Threads of the control side: negotiation, admin API, connecting to peers. Data has threads of its own.
const CONTROL_THREADS: usize = 2;
/// A client on pipes has this long to take its last replies.
const LAST_REPLIES: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // First of all: it changes the environment.
    let passed = activation::take();
    match run(Arguments::parse(), passed) {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads it may have gone; that is no reason to end otherwise.
            let _ = writeln!(std::io::stderr(), "blockmirror-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, passed: Result<Passed, activation::PassedError>) -> anyhow::Result<ExitCode> {
    let passed = passed?;
    let common = arguments.common();
    let (check, log_format, pid_file) = (common.check, common.log_format, common.pid_file.clone());
    let usual_log = arguments.usual_log();
    let mut job = arguments.job(&passed)?;
    if check {
        write!(std::io::stdout(), "{}", job.config.explain()).context("the configuration cannot be shown")?;
        return Ok(ExitCode::SUCCESS);
    }
    log::start(log_format, usual_log)?;
    raise_file_limit();
    become_io_flusher();
    tracing::info!(node = %job.config.name, version = env!("CARGO_PKG_VERSION"), "starting");
    let (left, client_left) = oneshot::channel();
    let (entry, relay) = enter(passed, job.stdio, left)?;
    let announce = Announce {
        // Whoever made the sockets knows them, and may have lent us a standard output that is read by others.
        quiet: !matches!(entry, Entry::Listen),
        pid_file: pid_file.map(PidFile::new),
        run: job.run.take(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control threads cannot be started")?;
    let outcome = runtime.block_on(serve(job, entry, announce, client_left));
    if let Some(relay) = relay {
        relay.finish(LAST_REPLIES);
    }
    // A host name that resolves slowly must not hold the end.
    runtime.shutdown_background();
    outcome
}

/// How clients come in. `left` is dropped when the only one has left.
fn enter(passed: Passed, stdio: bool, left: oneshot::Sender<()>) -> anyhow::Result<(Entry, Option<Relay>)> {
    let only = |socket| {
        Entry::Client(OnlyClient {
            socket,
            left: Box::new(left),
        })
    };
    Ok(match passed {
        Passed::Listening(sockets) => (Entry::Sockets(sockets), None),
        Passed::Client(socket) => (only(socket), None),
        Passed::Nothing if stdio => {
            let client = stdio::take().context("--stdio")?;
            (only(client.socket), client.relay)
        }
        Passed::Nothing => (Entry::Listen, None),
    })
}

async fn serve(
    job: Job,
    entry: Entry,
    announce: Announce,
    client_left: oneshot::Receiver<()>,
) -> anyhow::Result<ExitCode> {
    let (trigger, shutdown) = control::shutdown();
    let trigger = Arc::new(trigger);
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminate, interrupt] = signals;
    let (terminate, interrupt) = (terminate.context("SIGTERM")?, interrupt.context("SIGINT")?);
    tokio::spawn(follow_signals(Arc::clone(&trigger), terminate, interrupt));
    let (asked, reload) = mpsc::channel(1);
    tokio::spawn(follow_hangups(signal(SignalKind::hangup()).context("SIGHUP")?, asked));
    if matches!(entry, Entry::Client(_)) {
        tokio::spawn(follow_client(Arc::clone(&trigger), client_left));
    }
    let (told, ready) = oneshot::channel::<Ready>();
    let announcing = tokio::spawn(announce.when(ready, Arc::clone(&trigger), shutdown.clone()));
    let options = Options {
        adopt: job.adopt.into_iter().collect(),
        entry,
        mask: job.mask,
        ready: Some(told),
        file: job.file,
        reload: Some(reload),
        wrap: None,
    };
    let outcome = control::run(job.config, options, shutdown).await;
    // However it ended.
    trigger.ask();
    let announced = announcing.await.context("the announcement")?;
    outcome?;
    Ok(announced?.code())
}

/// The daemon ends with its only client.
async fn follow_client(trigger: Arc<ShutdownTrigger>, left: oneshot::Receiver<()>) {
    // Nothing is ever sent.
    let _ = left.await;
    tracing::debug!("the only client has left");
    trigger.ask();
}

/// The first signal asks for a graceful stop, the second for an immediate one.
async fn follow_signals(trigger: Arc<ShutdownTrigger>, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        trigger.escalate();
        match trigger.urgency() {
            Urgency::Immediate => tracing::warn!(signal = name, "asked again: stopping at once"),
            _ => tracing::info!(signal = name, "asked to stop; once more to stop at once"),
        }
    }
}

/// SIGHUP has the configuration read again; one that comes while another waits is the same wish.
async fn follow_hangups(mut hangup: Signal, asked: mpsc::Sender<()>) {
    while hangup.recv().await.is_some() {
        if let Err(mpsc::error::TrySendError::Closed(())) = asked.try_send(()) {
            return;
        }
    }
}

/// A kernel of this machine that uses an export as a device writes memory out through this process: it must not wait, for
/// memory of ours, for what it writes through us. All threads to come are as this one.
fn become_io_flusher() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(%error, "no CAP_SYS_RESOURCE: no kernel of this machine should use buffered volumes as devices");
    }
}

/// Connections, images and rings need more files than the usual soft limit of 1024.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}
