//! The reasons behind the present state of a resource, from the core's words to the admin API's.

use std::time::Duration;

use blockmirror_client::admin::{DecisionReport, DiskState, HandshakeReport, IdentityReport, Loss, Role, WhyReport};
use mirror_core::identity::{NodeIdentity, VolumeIdentity};
use mirror_core::resource::{HostAccess, LinkState, PeerWhy, VolumeRecord, Why};
use mirror_core::state::LocalDisk;

use crate::data::ResourceSnapshot;

/// Why the resource is as it is; `None`: it is not mirrored.
pub(super) fn report(node: &str, snapshot: &ResourceSnapshot) -> Option<WhyReport> {
    let why = snapshot.why.as_ref()?;
    Some(WhyReport {
        node: node.to_owned(),
        resource: snapshot.name.clone(),
        role: role(why.role),
        role_because: why.because.clone(),
        facts: facts(why),
        advice: why.next.clone(),
        handshakes: why.peers.iter().map(|peer| handshake(peer, snapshot.now)).collect(),
    })
}

fn facts(why: &Why) -> Vec<String> {
    let hosts = match why.hosts {
        HostAccess::ReadWrite => "hosts may read and write here",
        HostAccess::ReadOnly => "hosts may read here (read_only_secondary)",
        HostAccess::Shut => "hosts are shut out here",
    };
    let mut facts = vec![hosts.to_owned()];
    facts.extend(why.limits.iter().cloned());
    facts
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
