//! What is exported to NBD clients, and whether they may come.

use mirror_core::resource::HostAccess;
use nbd_proto::constants::MAX_CONTEXTS;
use nbd_proto::server::Exports;
use nbd_proto::{BlockSizes, ExportInfo, TransmissionFlags};

use super::roster::{Present, Roster, Served, VolumeView};
use crate::config::Volume;
use crate::data::{ALLOCATION, DIRTY_PREFIXES};

/// Requests aligned to this are efficient: a block of the dirty bitmap, a page of memory.
const PREFERRED_BLOCK: u32 = 4096;
/// Longest READ or WRITE.
pub(super) const MAXIMUM_PAYLOAD: u32 = 32 << 20;

impl Exports for Roster {
    /// The only export is the default one; of several none is, since a guess could destroy data.
    fn find(&self, name: &str) -> Option<ExportInfo> {
        let present = self.look();
        if name.is_empty() {
            let mut volumes = present.volumes();
            return match (volumes.next(), volumes.next()) {
                (Some(only), None) => info_now(only),
                _ => None,
            };
        }
        present.volume(name).and_then(info_now).or_else(|| {
            let branch = present.branch(name)?;
            Some(export_info(&branch.volume, branch.size, HostAccess::ReadOnly))
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        let present = self.look();
        let branches = present.resources.iter().flat_map(|served| &served.branches);
        let volumes = present.volumes().map(|view| view.config);
        volumes
            .chain(branches.map(|branch| &branch.volume))
            .map(|volume| (volume.export.clone(), volume.description.clone()))
            .collect()
    }

    /// Where it has data, and for each peer of a mirrored one what differs from it, under a name of our own and in the shape
    /// that QEMU's users know.
    fn contexts(&self, export: &str) -> Vec<String> {
        let mut names = vec![ALLOCATION.to_owned()];
        let present = self.look();
        if let Some(view) = present.volume(export).filter(|view| view.resource.config.mirror) {
            let peers = &view.resource.config.peers;
            let dirty = DIRTY_PREFIXES
                .iter()
                .flat_map(|prefix| peers.iter().map(move |peer| (prefix, peer)));
            names.extend(dirty.map(|(prefix, peer)| format!("{prefix}{}", peer.name)));
        }
        names.truncate(MAX_CONTEXTS);
        names
    }

    /// A Secondary sends hosts to the Primary.
    fn admit(&self, export: &ExportInfo) -> Result<(), String> {
        let present = self.look();
        match present.volume(&export.name) {
            Some(view) => admitted(&present, view.resource),
            None => Ok(()),
        }
    }
}

fn admitted(present: &Present, resource: &Served) -> Result<(), String> {
    if resource.gate.access() != HostAccess::Shut {
        return Ok(());
    }
    let (node, name) = (&present.config.name, &resource.config.name);
    Err(match resource.gate.primary() {
        Some(primary) => format!("resource \"{name}\" is Secondary on node {node}: its Primary is node {primary}"),
        None => format!(
            "resource \"{name}\" is Secondary on node {node}, and no Primary is known: \
             `blockmirror promote {name}` makes one"
        ),
    })
}

fn info_now(view: VolumeView<'_>) -> Option<ExportInfo> {
    Some(export_info(view.config, view.size()?, view.resource.gate.access()))
}

/// The same export for clients that may not change it.
pub(super) fn make_read_only(mut info: ExportInfo) -> ExportInfo {
    info.flags.remove(
        TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO,
    );
    info.flags.insert(TransmissionFlags::READ_ONLY);
    info
}

/// What NBD clients are told about a volume of `size` bytes.
fn export_info(volume: &Volume, size: u64, access: HostAccess) -> ExportInfo {
    let mut flags = TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_CACHE
        // A flush covers every connection of the export (I5).
        | TransmissionFlags::CAN_MULTI_CONN;
    flags |= if volume.read_only || access == HostAccess::ReadOnly {
        TransmissionFlags::READ_ONLY
    } else {
        TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO
    };
    ExportInfo {
        name: volume.export.clone(),
        description: volume.description.clone(),
        // What is behind the last whole block cannot be asked for.
        size: size - size % u64::from(volume.minimum_block),
        flags,
        block_sizes: BlockSizes {
            minimum: volume.minimum_block,
            preferred: PREFERRED_BLOCK,
            maximum_payload: MAXIMUM_PAYLOAD,
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::super::roster::{Place, ResourcePlace, ServedVolume};
    use super::*;
    use crate::config::Config;
    use crate::data::{Gate, StreamHello};

    /// A roster of resources with one volume of the same name each, and with this text in each resource.
    pub(in crate::control) fn roster_with(names: &[&str], resource: &str, peer: &str) -> Roster {
        let mut text = "name = \"alpha\"\nlisten = [\"tcp:[::1]:0\"]\n".to_owned();
        for name in names {
            text.push_str(&format!(
                "[[resource]]\nname = \"{name}\"\n{resource}\n[[resource.volume]]\nexport = \"{name}\"\n\
                 image = \"/i/{name}\"\ndescription = \"about {name}\"\n{peer}\n"
            ));
        }
        let config = Config::parse(&text, "test.toml").unwrap();
        let served = |(index, resource): (usize, &crate::config::Resource)| {
            let volumes = resource.volumes.iter().map(|volume| (volume.export.clone(), 1 << 20));
            Served {
                place: ResourcePlace {
                    thread: 0,
                    resource: index,
                },
                gate: Arc::new(Gate::new(StreamHello {
                    node: "alpha".to_owned(),
                    incarnation: 7,
                    resource: resource.name.clone(),
                    version: mirror_core::stream::frame::VERSION,
                    digest_seed: 0,
                    checksum: mirror_core::stream::codec::Checksum::default(),
                    volumes: volumes.collect(),
                    credit_bytes: 1 << 20,
                    credit_requests: 16,
                })),
                config: resource.clone(),
                volumes: vec![ServedVolume {
                    place: Place {
                        thread: 0,
                        volume: index,
                    },
                    number: 0,
                    slots: Arc::new(Semaphore::new(2)),
                    identity: None,
                }],
                peers: (0..resource.peers.len()).collect(),
                peers_ever: resource.peers.len(),
                branches: Vec::new(),
                joining: Vec::new(),
            }
        };
        let resources = config.resources.iter().enumerate().map(served).collect();
        Roster::new(config, resources)
    }

    pub(in crate::control) fn roster(names: &[&str]) -> Roster {
        roster_with(names, "", "")
    }

    #[test]
    fn the_only_export_is_the_default() {
        assert_eq!(roster(&["db"]).find("").unwrap().name, "db");
        let two = roster(&["db", "log"]);
        assert_eq!(two.find(""), None);
        assert_eq!(two.find("log").unwrap().name, "log");
        assert_eq!(two.find("lo"), None);
        assert_eq!(two.list()[1], ("log".to_owned(), "about log".to_owned()));
        let place = two.look().volume("log").unwrap().served.place;
        assert_eq!(place, Place { thread: 0, volume: 1 });
    }

    #[test]
    fn a_secondary_sends_hosts_away() {
        let roster = roster(&["db"]);
        let db = roster.find("db").unwrap();
        assert_eq!(roster.admit(&db), Ok(()));
        let gate = Arc::clone(&roster.look().resources[0].gate);
        gate.set_access(HostAccess::Shut);
        let refusal = roster.admit(&db).unwrap_err();
        assert!(refusal.contains("no Primary is known"), "{refusal}");
        gate.set_primary(Some("bravo".to_owned()));
        let refusal = roster.admit(&db).unwrap_err();
        assert!(refusal.contains("its Primary is node bravo"), "{refusal}");
        gate.set_access(HostAccess::ReadOnly);
        assert_eq!(roster.admit(&db), Ok(()));
        assert!(roster.find("db").unwrap().flags.contains(TransmissionFlags::READ_ONLY));
        gate.set_access(HostAccess::ReadWrite);
        gate.set_size("db", 2 << 20);
        let grown = roster.find("db").unwrap();
        assert_eq!((grown.size, grown.flags), (2 << 20, db.flags));
    }

    #[test]
    fn what_is_advertised_keeps_the_protocols_rules() {
        let roster = roster(&["db"]);
        let mut volume = roster.look().volume("db").unwrap().config.clone();
        for minimum in [1, 512, 4096] {
            volume.minimum_block = minimum;
            let info = export_info(&volume, (1 << 30) + 512, HostAccess::ReadWrite);
            assert!(info.block_sizes.are_valid(1 << 30));
            assert!(
                info.size >= 1 << 30 && info.size.is_multiple_of(u64::from(minimum)),
                "{minimum}"
            );
        }
        volume.read_only = true;
        let flags = export_info(&volume, 1 << 20, HostAccess::ReadWrite).flags;
        assert!(flags.contains(TransmissionFlags::READ_ONLY));
        assert!(!flags.intersects(TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES));
    }
}
