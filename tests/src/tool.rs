//! Other people's programs, run to their end under a deadline.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How a program ended and what it said.
pub struct Outcome {
    /// Its exit status; 124 means that its time was up.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Both outputs, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Run to the end, whatever the end is. `timeout` kills it after `deadline`.
pub fn run(program: &str, arguments: &[&str], deadline: Duration) -> Result<Outcome> {
    let output = Command::new("timeout")
        .args(["--kill-after=5", &deadline.as_secs().to_string(), program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(Outcome {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Run, require success, return standard output.
pub fn check(program: &str, arguments: &[&str], deadline: Duration) -> Result<String> {
    let outcome = run(program, arguments, deadline)?;
    ensure!(
        outcome.status.success(),
        "{program} {arguments:?}: {}\n{}",
        outcome.status,
        outcome.text()
    );
    Ok(outcome.stdout)
}

/// Where a binary of this workspace is: `BLOCKMIRROR_BIN_DIR`, or beside the test that asks.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("BLOCKMIRROR_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            let folder = own.parent().context("no folder")?;
            let folder = if folder.ends_with("deps") {
                folder.parent().context("no folder")?
            } else {
                folder
            };
            folder.to_owned()
        }
    };
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` (scripts/test does)",
        path.display()
    );
    Ok(path)
}

/// A TCP port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
