//! Two daemons that are partners.

use std::path::Path;
use std::time::Duration;

use blockmirror_client::admin::{AdminClient, AdminError, ConnectionState, Order, ReplicationState, ResourceStatus};
use blockmirror_client::uri::{NbdUri, UriList};

use super::{Daemon, PATIENCE, start, text};

const SIZE: &str = "16MiB";

pub struct Pair {
    pub dir: tempfile::TempDir,
    pub alpha: Daemon,
    pub bravo: Daemon,
}

/// The resource "db" with one volume per name, shared with these other nodes.
fn resource(dir: &Path, node: &str, others: &[&str], volumes: &[&str], more: &str) -> String {
    let dir = dir.display();
    let mut text = format!("[[resource]]\nname = \"db\"\nbranch_dir = \"{dir}/{node}-branches\"\n{more}\n");
    for volume in volumes {
        text.push_str(&format!(
            "[[resource.volume]]\nexport = \"{volume}\"\nimage = \"{dir}/{node}-{volume}.img\"\nsize = \"{SIZE}\"\n"
        ));
    }
    for other in others {
        text.push_str(&format!(
            "[[resource.peer]]\nname = \"{other}\"\nuri = \"nbd+unix://?socket={dir}/{other}.nbd\"\n"
        ));
    }
    text
}

/// The node with the resource "db", which it shares with `others`.
pub fn config_with(dir: &Path, node: &str, others: &[&str], volumes: &[&str]) -> String {
    text(dir, node, &resource(dir, node, others, volumes, ""))
}

pub fn config(dir: &Path, node: &str, volumes: &[&str], more: &str) -> String {
    let other = if node == "alpha" { "bravo" } else { "alpha" };
    text(dir, node, &resource(dir, node, &[other], volumes, more))
}

impl Pair {
    pub async fn new(volumes: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for node in ["alpha", "bravo"] {
            std::fs::create_dir(dir.path().join(format!("{node}-branches"))).unwrap();
        }
        let alpha = start(dir.path(), &config(dir.path(), "alpha", volumes, more)).await;
        let bravo = start(dir.path(), &config(dir.path(), "bravo", volumes, more)).await;
        let pair = Self { dir, alpha, bravo };
        pair.until("alpha", |db| {
            db.partners[0].connection_state == ConnectionState::Connected
        })
        .await;
        pair
    }

    /// alpha's data is the data, and bravo has it.
    pub async fn established(volumes: &[&str], more: &str) -> Self {
        let pair = Self::new(volumes, more).await;
        let promote = Order::Promote {
            resource: "db".to_owned(),
            force: true,
            accept: None,
        };
        pair.admin("alpha").order(&promote).await.unwrap();
        pair.in_step("alpha").await;
        pair
    }

    pub fn admin(&self, node: &str) -> AdminClient {
        self.alpha.admin(node)
    }

    pub async fn until(&self, node: &str, wanted: impl Fn(&ResourceStatus) -> bool) -> ResourceStatus {
        let admin = self.admin(node);
        let polling = async {
            loop {
                let status = admin.status().await.unwrap().resources.remove(0);
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polling).await.unwrap()
    }

    pub async fn in_step(&self, node: &str) -> ResourceStatus {
        self.until(node, |db| {
            let mut peers = db.volumes.iter().flat_map(|volume| &volume.peers);
            peers.all(|peer| peer.replication_state == ReplicationState::Established && peer.dirty_bytes == 0)
        })
        .await
    }

    pub fn uri(&self, node: &str, export: &str) -> NbdUri {
        let dir = self.dir.path().display();
        format!("nbd+unix:///{export}?socket={dir}/{node}.nbd").parse().unwrap()
    }

    pub fn both(&self, export: &str) -> UriList {
        format!("{},{}", self.uri("alpha", export), self.uri("bravo", export))
            .parse()
            .unwrap()
    }

    pub fn image(&self, node: &str, volume: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(format!("{node}-{volume}.img"))).unwrap()
    }

    pub async fn promote(&self, node: &str) {
        let promote = Order::Promote {
            resource: "db".to_owned(),
            force: false,
            accept: None,
        };
        self.admin(node).order(&promote).await.unwrap();
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.alpha.stop().await.unwrap();
        self.bravo.stop().await.unwrap();
        self.dir
    }
}

pub fn refused(outcome: Result<impl std::fmt::Debug, AdminError>) -> String {
    match outcome {
        Err(AdminError::Refused { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}
