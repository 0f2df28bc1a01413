//! The reasons behind the present state of a resource, from the core's words to the admin API's.

use std::time::Duration;

use blockmirror_client::admin::{
    ConnectionState, DecisionReport, DiskState, HandshakeReport, IdentityReport, Loss, Role, WhyReport,
};
use mirror_core::config::PeerKind;
use mirror_core::identity::{NodeIdentity, VolumeIdentity};
use mirror_core::resource::{HostAccess, LinkState, PeerWhy, VolumeRecord, Why};
use mirror_core::state::LocalDisk;

use super::roster::Served;
use super::stalls::{self, Stall};
use super::status::{self, Known};
use crate::data::PeerSnapshot;

/// Why the resource is as it is; `None`: it is not mirrored.
pub(super) fn report(node: &str, served: &Served, known: &Known) -> Option<WhyReport> {
    let snapshot = known.resources.get(served.place.resource)?;
    let why = snapshot.why.as_ref()?;
    let mut stalls = Vec::new();
    for view in served.views() {
        let mut volumes = known.volumes.iter();
        let found = volumes.find(|volume| volume.export == view.config.export);
        stalls.extend(found.into_iter().flat_map(|volume| stalls::of(served, volume)));
    }
    let mut facts = facts(why, &stalls);
    for view in served.views() {
        let found = known.volumes.iter().find(|volume| volume.export == view.config.export);
        let peers = found.into_iter().flat_map(|volume| {
            let present = served.peer_views();
            present.filter_map(|peer| volume.peers.get(peer.number))
        });
        facts.extend(peers.flat_map(|peer| limits(&view.config.export, peer)));
    }
    Some(WhyReport {
        node: node.to_owned(),
        resource: snapshot.name.clone(),
        role: role(why.role),
        role_because: why.because.clone(),
        facts,
        advice: stalls
            .into_iter()
            .map(|stall| stall.remedy)
            .chain(why.next.clone())
            .collect(),
        handshakes: why.peers.iter().map(|peer| handshake(peer, snapshot.now)).collect(),
    })
}

fn facts(why: &Why, stalls: &[Stall]) -> Vec<String> {
    let hosts = match why.hosts {
        HostAccess::ReadWrite if stalls.is_empty() => "hosts may read and write here",
        HostAccess::ReadWrite => "hosts are let in here, but not everything that they ask for is done",
        HostAccess::ReadOnly => "hosts may read here (read_only_secondary)",
        HostAccess::Shut => "hosts are shut out here",
    };
    let mut facts = vec![hosts.to_owned()];
    facts.extend(stalls.iter().map(|stall| stall.what.clone()));
    facts.extend(why.limits.iter().cloned());
    facts
}

/// What keeps a volume's peer from having everything: the link of a plain peer, the rate of a resync.
fn limits(export: &str, peer: &PeerSnapshot) -> Vec<String> {
    let mut limits = Vec::new();
    if peer.kind == PeerKind::Plain && peer.connection_state != ConnectionState::Connected {
        let error = peer.last_error.as_ref().map(|error| format!(": {error}"));
        limits.push(format!(
            "volume {export}: the plain peer {} is {}{}",
            peer.name,
            peer.connection_state,
            error.unwrap_or_default()
        ));
    }
    if let Some(resync) = &peer.resync {
        let by = status::resync_status(resync).limit.map(|limit| format!(", {limit}"));
        limits.push(format!(
            "volume {export}: a resync with {} has {} bytes left{}",
            peer.name,
            resync.remaining_bytes,
            by.unwrap_or_default()
        ));
    }
    limits
}

fn handshake(peer: &PeerWhy, now: Duration) -> HandshakeReport {
    let state = match peer.link {
        LinkState::StandAlone => "StandAlone",
        LinkState::Connecting => "Connecting",
        LinkState::Handshake => "Connected, deciding",
        LinkState::Preparing => "Connected, preparing",
        LinkState::Connected => "Connected",
    };
    let record = peer.handshake.as_ref();
    HandshakeReport {
        peer: peer.name.clone(),
        seconds_ago: record.map(|record| now.saturating_sub(record.at).as_secs_f64()),
        state: state.to_owned(),
        outcome: peer.because.clone(),
        volumes: record.map_or_else(Vec::new, |record| {
            let decided = |volume| decision(volume, &record.mine, &record.theirs);
            record.volumes.iter().map(decided).collect()
        }),
    }
}

fn decision(volume: &VolumeRecord, mine: &NodeIdentity, theirs: &NodeIdentity) -> DecisionReport {
    let words = &volume.explanation;
    let said = |node: &NodeIdentity| {
        let mut volumes = node.volumes.iter();
        volumes.find(|identity| identity.name == volume.name).map(identity)
    };
    DecisionReport {
        volume: volume.name.clone(),
        rule: words.rule.to_owned(),
        verdict: words.verdict.clone(),
        because: words.because.clone(),
        inputs: words.inputs.clone(),
        tried: words.tried.iter().map(|rule| (*rule).to_owned()).collect(),
        alternatives: words.alternatives.clone(),
        mine: said(mine),
        theirs: said(theirs),
    }
}

fn identity(identity: &VolumeIdentity) -> IdentityReport {
    IdentityReport {
        current: hexadecimal(identity.current),
        for_peer: (identity.for_peer != 0).then(|| hexadecimal(identity.for_peer)),
        history: identity.history.iter().copied().map(hexadecimal).collect(),
        fresh: identity.fresh,
        crashed_primary: identity.crashed_primary,
        disk_state: disk_state(identity.disk),
        dirty_bytes: identity.dirty_bytes,
        size_bytes: identity.size,
    }
}

fn hexadecimal(generation: u64) -> String {
    format!("{generation:016x}")
}

pub(super) const fn role(role: mirror_core::identity::Role) -> Role {
    match role {
        mirror_core::identity::Role::Primary => Role::Primary,
        mirror_core::identity::Role::Secondary => Role::Secondary,
    }
}

pub(super) const fn disk_state(disk: LocalDisk) -> DiskState {
    match disk {
        LocalDisk::Diskless => DiskState::Diskless,
        LocalDisk::Inconsistent => DiskState::Inconsistent,
        LocalDisk::Outdated => DiskState::Outdated,
        LocalDisk::UpToDate => DiskState::UpToDate,
    }
}

pub(super) fn loss(loss: &mirror_core::resource::Loss) -> Loss {
    Loss {
        age_seconds: loss.age.as_secs_f64(),
        bytes: loss.bytes,
        flushes: loss.flushes,
        inconsistent_bytes: loss.inconsistent_bytes,
        unknown: loss.unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ResyncSnapshot;
    use mirror_core::status::Limit;

    #[test]
    fn what_a_resync_is_held_back_by_is_a_reason() {
        let resync = ResyncSnapshot {
            remaining_bytes: 8192,
            allowed_bytes_per_second: 1,
            limit: Limit::Application,
            ..ResyncSnapshot::default()
        };
        let bravo = PeerSnapshot {
            name: "bravo".to_owned(),
            kind: PeerKind::Partner,
            resync: Some(resync),
            ..PeerSnapshot::default()
        };
        let charlie = PeerSnapshot {
            name: "charlie".to_owned(),
            kind: PeerKind::Plain,
            last_error: Some("connection refused".to_owned()),
            ..PeerSnapshot::default()
        };
        let told = [&bravo, &charlie].map(|peer| limits("db", peer).join("\n"));
        assert_eq!(
            told,
            [
                "volume db: a resync with bravo has 8192 bytes left, held back for the application",
                "volume db: the plain peer charlie is StandAlone: connection refused"
            ]
        );
    }
}
