//! The blockmirror daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use blockmirror_server::config::Config;
use blockmirror_server::control::{self, Options, ShutdownTrigger, Urgency};
use blockmirror_server::log;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Threads of the control side: negotiation, admin API, connecting to peers. Data has threads of its own.
const CONTROL_THREADS: usize = 2;

/// Serves images over NBD and mirrors every write to NBD peers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the files it names, say what would be served and mirrored, and end.
    #[arg(long)]
    check: bool,
    /// Take the image of EXPORT as the right one although its metadata file names another; all its peers are copied in
    /// full. May be given more than once.
    #[arg(long, value_name = "EXPORT")]
    adopt: Vec<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: log::Format,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blockmirror-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        print!("{}", config.explain());
        return Ok(());
    }
    log::start(arguments.log_format)?;
    raise_file_limit();
    tracing::info!(node = %config.name, version = env!("CARGO_PKG_VERSION"), "starting");
    let options = Options {
        adopt: arguments.adopt.into_iter().collect(),
        ready: None,
        file: Some(arguments.config),
        reload: None,
        wrap: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control threads cannot be started")?;
    let outcome = runtime.block_on(async {
        let (trigger, shutdown) = control::shutdown();
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [terminate, interrupt] = signals;
        let (terminate, interrupt) = (terminate.context("SIGTERM")?, interrupt.context("SIGINT")?);
        tokio::spawn(follow_signals(trigger, terminate, interrupt));
        let (asked, reload) = mpsc::channel(1);
        tokio::spawn(follow_hangups(signal(SignalKind::hangup()).context("SIGHUP")?, asked));
        let options = Options {
            reload: Some(reload),
            ..options
        };
        Ok(control::run(config, options, shutdown).await?)
    });
    // A host name that resolves slowly must not hold the end.
    runtime.shutdown_background();
    outcome
}

/// The first signal asks for a graceful stop, the second for an immediate one.
async fn follow_signals(trigger: ShutdownTrigger, mut terminate: Signal, mut interrupt: Signal) {
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
