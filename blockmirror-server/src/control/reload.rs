//! Reading the configuration again: peers and volumes come and go, schedules change; the rest waits for a restart.

mod changes;

use std::path::PathBuf;
use std::sync::Arc;

use blockmirror_client::admin::ReloadReport;
use mirror_core::resource::{Answer, Command};
use tokio::sync::Mutex;

use self::changes::{Changes, changes, daemon_changes};
use super::ask::{self, Silent};
use super::open;
use super::roster::{Joining, ResourcePlace, Roster};
use super::security::Keyring;
use super::words;
use crate::config::{Config, Peer, Protocol, Resource, Sockets, Volume};
use crate::data::{DataSender, ResourceOrder};

/// Reads the configuration again when it is asked to; one after the other.
#[derive(Clone)]
pub(super) struct Reloader {
    shared: Arc<Shared>,
}

struct Shared {
    roster: Roster,
    threads: Vec<DataSender>,
    keyring: Arc<Keyring>,
    /// Where the configuration is; `None`: it did not come from a file.
    file: Option<PathBuf>,
    one_at_a_time: Mutex<()>,
}

impl Reloader {
    pub(super) fn new(roster: Roster, threads: Vec<DataSender>, keyring: Arc<Keyring>, file: Option<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                roster,
                threads,
                keyring,
                file,
                one_at_a_time: Mutex::new(()),
            }),
        }
    }

    /// Read it, and carry out what can be carried out now. An error: it is not right, and nothing was done.
    pub(super) async fn reload(&self) -> Result<ReloadReport, String> {
        let _turn = self.shared.one_at_a_time.lock().await;
        let mut report = ReloadReport::default();
        match self.shared.file.clone() {
            Some(file) => self.read_configuration(file, &mut report).await?,
            None if self.shared.keyring.is_empty() => {
                return Err("the configuration did not come from a file, and there are no certificates".to_owned());
            }
            // Certificates are files all the same.
            None => {}
        }
        self.read_certificates(&mut report).await;
        for line in &report.applied {
            tracing::info!(change = %line, "the configuration was read again");
        }
        for line in &report.failed {
            tracing::warn!(problem = %line, "a change of the configuration could not be carried out");
        }
        Ok(report)
    }

    async fn read_configuration(&self, file: PathBuf, report: &mut ReloadReport) -> Result<(), String> {
        let sockets = if self.shared.roster.look().config.listeners.is_empty() {
            Sockets::Given
        } else {
            Sockets::Ours
        };
        let loading = tokio::task::spawn_blocking(move || Config::load_with(&file, sockets));
        let wanted = loading.await.map_err(|error| format!("reading broke off: {error}"))?;
        let wanted = wanted.map_err(|error| error.to_string())?;
        for (resource, place, changes) in self.compare(&wanted, report) {
            self.carry_out(&resource, place, changes, report).await;
        }
        Ok(())
    }

    /// Connections that are there keep what they have agreed on.
    async fn read_certificates(&self, report: &mut ReloadReport) {
        if self.shared.keyring.is_empty() {
            return;
        }
        let keyring = Arc::clone(&self.shared.keyring);
        let reading = tokio::task::spawn_blocking(move || keyring.reload());
        let problems = reading
            .await
            .unwrap_or_else(|error| vec![format!("reading broke off: {error}")]);
        if problems.is_empty() {
            report.applied.push("certificates read again".to_owned());
        }
        let kept = |problem| format!("certificates, those of before stay: {problem}");
        report.failed.extend(problems.into_iter().map(kept));
    }

    /// Every resource that is in both, with what has changed.
    fn compare(&self, wanted: &Config, report: &mut ReloadReport) -> Vec<(Resource, ResourcePlace, Changes)> {
        let present = self.shared.roster.look();
        report.needs_restart = daemon_changes(&present.config, wanted);
        for served in &present.resources {
            if !wanted
                .resources
                .iter()
                .any(|resource| resource.name == served.config.name)
            {
                let line = format!("resource {} is not in the file any more", served.config.name);
                report.needs_restart.push(line);
            }
        }
        let mut changed = Vec::new();
        for resource in &wanted.resources {
            match present.resource(&resource.name) {
                Some(served) => changed.push((resource.clone(), served.place, changes(&served.config, resource))),
                None => report.needs_restart.push(format!("resource {} is new", resource.name)),
            }
        }
        changed
    }

    async fn carry_out(&self, wanted: &Resource, place: ResourcePlace, changes: Changes, report: &mut ReloadReport) {
        let name = &wanted.name;
        let about = |what: &str| format!("resource {name}: {what}");
        report
            .needs_restart
            .extend(changes.needs_restart.iter().map(|line| about(line)));
        if !changes.settings.is_empty() {
            self.set(wanted, place);
            report.applied.extend(changes.settings.iter().map(|line| about(line)));
        }
        let mut done = |what: String, outcome: Result<(), String>| match outcome {
            Ok(()) => report.applied.push(about(&what)),
            Err(why) => report.failed.push(about(&format!("{what}: {why}"))),
        };
        for peer in &changes.gone_peers {
            done(format!("peer {peer} removed"), self.remove_peer(place, peer).await);
        }
        for volume in &changes.gone_volumes {
            done(
                format!("volume {volume} removed"),
                self.remove_volume(place, volume).await,
            );
        }
        for peer in &changes.new_peers {
            done(format!("peer {} added", peer.name), self.add_peer(place, peer).await);
        }
        for volume in &changes.new_volumes {
            let outcome = self.add_volume(wanted, place, volume).await;
            done(format!("volume {} added", volume.export), outcome);
        }
    }

    /// Take over what takes effect by being known.
    fn set(&self, wanted: &Resource, place: ResourcePlace) {
        let mut present = self.shared.roster.change();
        if let Some(served) = present.resources.iter_mut().find(|served| served.place == place) {
            served.config.verify = wanted.verify;
            served.config.verify_repair = wanted.verify_repair;
            served.config.branch_keep = wanted.branch_keep;
            for volume in &mut served.config.volumes {
                if let Some(found) = wanted.volumes.iter().find(|found| found.export == volume.export) {
                    volume.access = found.access.clone();
                }
            }
        }
    }

    async fn add_peer(&self, place: ResourcePlace, peer: &Peer) -> Result<(), String> {
        let kind = match peer.protocol {
            Protocol::Auto => None,
            Protocol::Nbd => Some(mirror_core::config::PeerKind::Plain),
            Protocol::Blockmirror => Some(mirror_core::config::PeerKind::Partner),
        };
        // Known before the data thread may ask for it to be dialled.
        let number = {
            let mut present = self.shared.roster.change();
            let served = present.resources.iter_mut().find(|served| served.place == place);
            let served = served.ok_or("the resource is gone")?;
            let number = served.peers_ever;
            served.peers_ever += 1;
            served.config.peers.push(peer.clone());
            served.peers.push(number);
            number
        };
        let order = ResourceOrder::AddPeer {
            config: words::peer_config(peer, kind),
            plan: words::peer_plan(peer),
            partner: words::partner_plan(peer),
        };
        let outcome = self.order(place, order).await;
        if outcome.is_err() {
            self.forget_peer(place, number, true);
        }
        outcome
    }

    async fn remove_peer(&self, place: ResourcePlace, name: &str) -> Result<(), String> {
        let number = {
            let present = self.shared.roster.look();
            let peer = present
                .at(place)
                .and_then(|served| served.peer(name).map(|peer| peer.number));
            peer.ok_or("it is not there")?
        };
        let index = u8::try_from(number).map_err(|_| "there have been too many peers: restart the daemon")?;
        let disconnect = Command::Disconnect(mirror_core::event::PeerIndex(index));
        self.order(place, ResourceOrder::Core(disconnect)).await?;
        self.order(place, ResourceOrder::RemovePeer(number)).await?;
        self.forget_peer(place, number, false);
        Ok(())
    }

    /// `unused`: the data thread never took it, so its number is free.
    fn forget_peer(&self, place: ResourcePlace, number: usize, unused: bool) {
        let mut present = self.shared.roster.change();
        let Some(served) = present.resources.iter_mut().find(|served| served.place == place) else {
            return;
        };
        if let Some(at) = served.peers.iter().position(|peer| *peer == number) {
            served.peers.remove(at);
            served.config.peers.remove(at);
        }
        if unused {
            served.peers_ever = number;
        }
    }

    async fn add_volume(&self, resource: &Resource, place: ResourcePlace, volume: &Volume) -> Result<(), String> {
        let (owner, opened) = (resource.clone(), volume.clone());
        let node = self.shared.roster.look().config.name.clone();
        let opening = tokio::task::spawn_blocking(move || open::volume(&node, &owner, &opened));
        let plan = opening
            .await
            .map_err(|error| format!("opening broke off: {error}"))?
            .map_err(|error| error.to_string())?;
        let identity = open::identity(&plan);
        {
            let mut present = self.shared.roster.change();
            let served = present.resources.iter_mut().find(|served| served.place == place);
            let served = served.ok_or("the resource is gone")?;
            served.joining.push(Joining {
                volume: volume.clone(),
                identity,
            });
        }
        let outcome = self.order(place, ResourceOrder::AddVolume(Box::new(plan))).await;
        if outcome.is_err() {
            let mut present = self.shared.roster.change();
            if let Some(served) = present.resources.iter_mut().find(|served| served.place == place) {
                served.joining.retain(|joining| joining.volume.export != volume.export);
            }
        }
        outcome
    }

    async fn remove_volume(&self, place: ResourcePlace, export: &str) -> Result<(), String> {
        let number = {
            let present = self.shared.roster.look();
            let view = present.volume(export).filter(|view| view.resource.place == place);
            view.map(|view| view.served.number).ok_or("it is not there")?
        };
        self.order(place, ResourceOrder::RemoveVolume(number)).await?;
        let mut present = self.shared.roster.change();
        if let Some(served) = present.resources.iter_mut().find(|served| served.place == place)
            && let Some(at) = served.volumes.iter().position(|volume| volume.number == number)
        {
            served.volumes.remove(at);
            served.config.volumes.remove(at);
        }
        Ok(())
    }

    async fn order(&self, place: ResourcePlace, order: ResourceOrder) -> Result<(), String> {
        let thread = self.shared.threads.get(place.thread).ok_or("its data thread is gone")?;
        match ask::order(thread, place.resource, order).await {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Refused(why) | Answer::HalfDone(why)) => Err(why),
            Ok(Answer::NeedsAccept { .. }) => Err("data would be lost".to_owned()),
            Err(Silent) => Err("its data thread does not answer".to_owned()),
        }
    }
}
