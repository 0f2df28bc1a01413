//! What has changed in a configuration.

use crate::config::{Config, Peer, Resource, Volume};

/// What is to be done to one resource, beyond what waits for a restart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) new_peers: Vec<Peer>,
    /// Names.
    pub(super) gone_peers: Vec<String>,
    pub(super) new_volumes: Vec<Volume>,
    /// Names.
    pub(super) gone_volumes: Vec<String>,
    /// What takes effect by being known.
    pub(super) settings: Vec<String>,
    pub(super) needs_restart: Vec<String>,
}

/// Keys of the daemon that have changed.
pub(super) fn daemon_changes(before: &Config, wanted: &Config) -> Vec<String> {
    let Config {
        name,
        admin,
        listeners,
        tls,
        engine,
        data_threads,
        limits,
        resources: _,
    } = wanted;
    let changed = [
        ("name", *name != before.name),
        ("admin", *admin != before.admin),
        ("listen", *listeners != before.listeners),
        ("[tls]", *tls != before.tls),
        ("engine", *engine != before.engine),
        ("data_threads", *data_threads != before.data_threads),
        ("[limits]", *limits != before.limits),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("{key} has changed")).collect()
}

/// What has changed in a resource.
pub(super) fn changes(before: &Resource, wanted: &Resource) -> Changes {
    let mut changes = Changes::default();
    // Everything but what is looked at one by one.
    let rest = |resource: &Resource| Resource {
        verify: wanted.verify,
        verify_repair: wanted.verify_repair,
        branch_keep: wanted.branch_keep,
        volumes: Vec::new(),
        peers: Vec::new(),
        ..resource.clone()
    };
    if rest(before) != rest(wanted) {
        changes.needs_restart.push("its own keys have changed".to_owned());
    }
    if (before.verify, before.verify_repair) != (wanted.verify, wanted.verify_repair) {
        changes.settings.push("verify schedule".to_owned());
    }
    if before.branch_keep != wanted.branch_keep {
        changes.settings.push("branch_keep".to_owned());
    }
    if access_changed(before, wanted) {
        changes.settings.push("access rules".to_owned());
    }
    for peer in &wanted.peers {
        match before.peers.iter().find(|known| known.name == peer.name) {
            None => changes.new_peers.push(peer.clone()),
            Some(known) if known != peer => changes.needs_restart.push(format!("peer {} has changed", peer.name)),
            Some(_) => {}
        }
    }
    for peer in &before.peers {
        if !wanted.peers.iter().any(|known| known.name == peer.name) {
            changes.gone_peers.push(peer.name.clone());
        }
    }
    for volume in &wanted.volumes {
        match before.volumes.iter().find(|known| known.export == volume.export) {
            None => changes.new_volumes.push(volume.clone()),
            // It may have grown since.
            Some(known)
                if *known
                    != (Volume {
                        size: known.size,
                        access: known.access.clone(),
                        ..volume.clone()
                    }) =>
            {
                changes
                    .needs_restart
                    .push(format!("volume {} has changed", volume.export));
            }
            Some(_) => {}
        }
    }
    for volume in &before.volumes {
        if !wanted.volumes.iter().any(|known| known.export == volume.export) {
            changes.gone_volumes.push(volume.export.clone());
        }
    }
    changes
}

/// Of the volumes that are in both.
fn access_changed(before: &Resource, wanted: &Resource) -> bool {
    wanted.volumes.iter().any(|volume| {
        let known = before.volumes.iter().find(|known| known.export == volume.export);
        known.is_some_and(|known| known.access != volume.access)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BEFORE: &str = r#"
name = "alpha"
listen = ["tcp:[::1]:0"]
[[resource]]
name = "db"
verify = "weekly"
[[resource.volume]]
export = "db"
image = "/i/db"
[[resource.volume]]
export = "log"
image = "/i/log"
[[resource.peer]]
name = "bravo"
uri = "nbd://bravo"
[[resource.peer]]
name = "charlie"
uri = "nbd://charlie"
"#;

    fn changed(edit: impl Fn(String) -> String) -> Changes {
        let parse = |text: &str| Config::parse(text, "test.toml").unwrap();
        changes(
            &parse(BEFORE).resources[0],
            &parse(&edit(BEFORE.to_owned())).resources[0],
        )
    }

    #[test]
    fn nothing() {
        assert_eq!(changed(|text| text), Changes::default());
    }

    #[test]
    fn what_comes_and_goes() {
        let peers = changed(|text| text.replace("\"charlie\"", "\"delta\""));
        assert_eq!(peers.gone_peers, ["charlie"]);
        assert_eq!(peers.new_peers[0].name, "delta");
        let volumes = changed(|text| text.replace("\"log\"", "\"undo\"").replace("/i/log", "/i/undo"));
        assert_eq!(volumes.gone_volumes, ["log"]);
        assert_eq!(volumes.new_volumes[0].export, "undo");
        assert!(volumes.needs_restart.is_empty() && peers.needs_restart.is_empty());
    }

    #[test]
    fn what_takes_effect_and_what_waits() {
        let schedule = changed(|text| text.replace("weekly", "3d"));
        assert_eq!(
            (schedule.settings, schedule.needs_restart),
            (vec!["verify schedule".to_owned()], vec![])
        );
        let rate = changed(|text| text.replace("verify =", "resync_min = \"1MiB\"\nverify ="));
        assert_eq!(rate.needs_restart, ["its own keys have changed"]);
        let peer = changed(|text| text.replace("nbd://bravo", "nbd://bravo:1"));
        assert_eq!(peer.needs_restart, ["peer bravo has changed"]);
        let volume = changed(|text| text.replace("\"/i/log\"", "\"/i/log\"\nio = \"direct\""));
        assert_eq!(volume.needs_restart, ["volume log has changed"]);
        let grown = changed(|text| text.replace("\"/i/log\"", "\"/i/log\"\nsize = \"1GiB\""));
        assert_eq!(grown, Changes::default());
        let rules = "[[resource.volume.access]]\nfrom = [\"unix\"]\npermit = \"read-only\"\n";
        let access = changed(|text| text.replace("\"/i/log\"\n", &format!("\"/i/log\"\n{rules}")));
        assert_eq!(
            (access.settings, access.needs_restart),
            (vec!["access rules".to_owned()], vec![])
        );
        let parse = |text: &str| Config::parse(text, "test.toml").unwrap();
        let other = BEFORE.replace("alpha", "omega");
        assert_eq!(daemon_changes(&parse(BEFORE), &parse(&other)), ["name has changed"]);
    }
}
