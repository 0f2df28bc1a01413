//! A daemon in this process, and what tests ask of it.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod pair;

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockmirror_client::admin::{AdminClient, PeerStatus};
use blockmirror_client::client::Client;
use blockmirror_client::uri::NbdUri;
use blockmirror_server::config::Config;
use blockmirror_server::control::{self, Options, RunError, ShutdownTrigger, shutdown};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Waiting gives up after this; nothing is judged by how long it took.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    pub dir: PathBuf,
    pub addresses: Vec<String>,
    pub trigger: ShutdownTrigger,
    pub task: JoinHandle<Result<(), RunError>>,
}

/// The text of a daemon `name` whose sockets are in `dir`, with these resources.
pub fn text(dir: &Path, name: &str, more: &str) -> String {
    let dir = dir.display();
    format!(
        "name = \"{name}\"\nadmin = \"{dir}/{name}.admin\"\nlisten = [\"unix:{dir}/{name}.nbd\", \"tcp:127.0.0.1:0\"]\n{more}"
    )
}

pub async fn try_start(dir: &Path, text: &str, adopt: &[&str]) -> Result<Daemon, RunError> {
    let config = Config::parse(text, "test.toml").unwrap();
    // Where it is read again from.
    let file = dir.join(format!("{}.toml", config.name));
    std::fs::write(&file, text).unwrap();
    let (trigger, stop) = shutdown();
    let (ready, started) = oneshot::channel();
    let adopt = adopt.iter().map(|name| (*name).to_owned()).collect();
    let options = Options {
        adopt,
        ready: Some(ready),
        file: Some(file),
        ..Options::default()
    };
    let task = tokio::spawn(control::run(config, options, stop));
    match started.await {
        Ok(ready) => Ok(Daemon {
            dir: dir.to_owned(),
            addresses: ready.addresses,
            trigger,
            task,
        }),
        Err(_) => Err(task.await.unwrap().unwrap_err()),
    }
}

pub async fn start(dir: &Path, text: &str) -> Daemon {
    try_start(dir, text, &[]).await.unwrap()
}

impl Daemon {
    pub async fn stop(self) -> Result<(), RunError> {
        self.trigger.escalate();
        self.task.await.unwrap()
    }

    pub async fn client(&self, name: &str, export: &str) -> Client {
        let socket = self.dir.join(format!("{name}.nbd"));
        let uri: NbdUri = format!("nbd+unix:///{export}?socket={}", socket.display())
            .parse()
            .unwrap();
        Client::connect(&uri).await.unwrap()
    }

    pub fn admin(&self, name: &str) -> AdminClient {
        AdminClient::new(self.dir.join(format!("{name}.admin")))
    }

    /// The peer's status once it is as wanted.
    pub async fn peer(&self, name: &str, export: &str, peer: &str, wanted: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let admin = self.admin(name);
        let polling = async {
            loop {
                let report = admin.status().await.unwrap();
                let status = report.peer(export, peer).unwrap().clone();
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polling).await.unwrap()
    }
}
