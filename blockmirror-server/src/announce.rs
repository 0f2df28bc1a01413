//! What is told, written and started once clients are served.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use blockmirror_server::control::{Ready, Shutdown, ShutdownTrigger};
use tokio::process::Command;
use tokio::sync::oneshot;

/// What there is to announce.
pub(crate) struct Announce {
    /// Standard output is not for words of ours.
    pub(crate) quiet: bool,
    pub(crate) pid_file: Option<PidFile>,
    /// The daemon runs for this command.
    pub(crate) run: Option<String>,
}

/// What lasts as long as the daemon, and the exit code of the command.
pub(crate) struct Announced {
    _pid_file: Option<PidFile>,
    code: Option<ExitCode>,
}

/// A file with our process id, removed when this is dropped after it was written.
pub(crate) struct PidFile {
    path: PathBuf,
    written: bool,
}

impl Announce {
    /// Announce when the daemon is `ready`; end it with the command, or when an announcement fails.
    pub(crate) async fn when(
        mut self,
        ready: oneshot::Receiver<Ready>,
        trigger: Arc<ShutdownTrigger>,
        mut shutdown: Shutdown,
    ) -> anyhow::Result<Announced> {
        let mut code = None;
        // An error: the daemon has ended before.
        if let Ok(ready) = ready.await {
            if let Err(error) = self.pid_file.as_mut().map_or(Ok(()), PidFile::write) {
                trigger.ask();
                return Err(error);
            }
            match &self.run {
                Some(command) => {
                    let ended = tokio::select! {
                        ended = run(command, &ready) => ended,
                        // Told to stop before: the command is killed.
                        () = shutdown.graceful() => Ok(ExitCode::FAILURE),
                    };
                    trigger.ask();
                    code = Some(ended?);
                }
                None if self.quiet => {}
                None => say(&ready),
            }
        }
        Ok(Announced {
            _pid_file: self.pid_file,
            code,
        })
    }
}

impl Announced {
    pub(crate) fn code(&self) -> ExitCode {
        self.code.unwrap_or(ExitCode::SUCCESS)
    }
}

/// One line for whoever started us. Nobody has to read it.
fn say(ready: &Ready) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "ready {}", ready.uris.join(" "));
    let _ = out.flush();
}

async fn run(command: &str, ready: &Ready) -> anyhow::Result<ExitCode> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    let mut paths = ready
        .addresses
        .iter()
        .filter_map(|address| address.strip_prefix("unix:"));
    let status = Command::new("sh")
        .args(["-c", command])
        .env("uri", first(&ready.uris))
        .env("unixsocket", paths.next().unwrap_or_default())
        .kill_on_drop(true)
        .status()
        .await
        .context("--run: sh cannot be started")?;
    // Killed by a signal: as a shell says it.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

impl PidFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, written: false }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(&self.path, text).with_context(|| format!("--pid-file {}", self.path.display()))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.written {
            // It may have been removed by somebody else.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
