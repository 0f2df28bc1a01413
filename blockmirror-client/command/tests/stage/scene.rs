//! The command, run beside a daemon with canned answers.

use std::path::PathBuf;
use std::process::Stdio;

use blockmirror_client::admin::{PeerStatus, StatusReport};
use tokio::process::Command;

use super::daemon::{self, Script, report};

pub struct Scene {
    pub directory: tempfile::TempDir,
    pub daemon: Option<daemon::Shared>,
}

/// What a command came to.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Scene {
    pub fn without_daemon() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            daemon: None,
        }
    }

    pub fn new(peers: Vec<PeerStatus>, command: Option<(u16, &str)>) -> Self {
        let mut scene = Self::without_daemon();
        let reports = peers.into_iter().map(report).collect();
        let command = command.map(|(status, body)| (status, body.to_owned()));
        scene.daemon = Some(daemon::serve(
            &scene.socket(),
            Script {
                reports,
                command,
                ..Script::default()
            },
        ));
        scene
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("alpha.sock")
    }

    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blockmirror"));
        command
            .args(arguments)
            .env("BLOCKMIRROR_ADMIN", self.socket())
            .stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Change the report that comes next.
    pub fn change_first(&self, change: impl FnOnce(&mut StatusReport)) {
        let mut script = self.daemon.as_ref().unwrap().lock().unwrap();
        change(script.reports.front_mut().unwrap());
    }

    pub fn asked(&self) -> Vec<String> {
        let script = self.daemon.as_ref().unwrap().lock().unwrap();
        script
            .asked
            .iter()
            .filter(|asked| asked.starts_with("POST"))
            .cloned()
            .collect()
    }
}
