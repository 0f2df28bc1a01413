//! What is exported, and where it is served.

use std::sync::Arc;

use nbd_proto::server::Exports;
use nbd_proto::{BlockSizes, ExportInfo, TransmissionFlags};
use tokio::sync::Semaphore;

use crate::config::Volume;

/// Requests aligned to this are efficient: a block of the dirty bitmap, a page of memory.
const PREFERRED_BLOCK: u32 = 4096;
/// Longest READ or WRITE.
pub(super) const MAXIMUM_PAYLOAD: u32 = 32 << 20;

/// A volume's place: the data thread, and the volume within its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) thread: usize,
    pub(super) volume: usize,
}

/// One export.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info: ExportInfo,
    pub(super) place: Place,
    /// Connections it may still have.
    pub(super) slots: Arc<Semaphore>,
}

/// All exports, in the order of the configuration.
#[derive(Debug)]
pub(super) struct ExportTable {
    entries: Vec<Entry>,
}

impl ExportTable {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The export that a handshake has agreed on, by its canonical name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.info.name == name)
    }
}

impl Exports for ExportTable {
    /// The only export is the default one; of several none is, since a guess could destroy data.
    fn find(&self, name: &str) -> Option<ExportInfo> {
        let entry = match (name, self.entries.as_slice()) {
            ("", [only]) => Some(only),
            _ => self.entry(name),
        };
        entry.map(|entry| entry.info.clone())
    }

    fn list(&self) -> Vec<(String, String)> {
        let pair = |entry: &Entry| (entry.info.name.clone(), entry.info.description.clone());
        self.entries.iter().map(pair).collect()
    }
}

/// What NBD clients are told about a volume of `size` bytes.
pub(super) fn export_info(volume: &Volume, size: u64) -> ExportInfo {
    let mut flags = TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_CACHE
        // A flush covers every connection of the export (I5).
        | TransmissionFlags::CAN_MULTI_CONN;
    flags |= if volume.read_only {
        TransmissionFlags::READ_ONLY
    } else {
        TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES
    };
    ExportInfo {
        name: volume.export.clone(),
        description: volume.description.clone(),
        size,
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
    use super::*;
    use crate::config::{ImageSource, Io};

    fn volume(export: &str) -> Volume {
        Volume {
            export: export.to_owned(),
            description: format!("about {export}"),
            image: ImageSource::Memory,
            size: Some(1 << 20),
            preallocate: false,
            io: Io::Buffered,
            read_only: false,
            minimum_block: 1,
            metadata: None,
        }
    }

    pub(in crate::control) fn table(names: &[&str]) -> ExportTable {
        let entry = |(volume_index, name): (usize, &&str)| Entry {
            info: export_info(&volume(name), 1 << 20),
            place: Place {
                thread: 0,
                volume: volume_index,
            },
            slots: Arc::new(Semaphore::new(2)),
        };
        ExportTable::new(names.iter().enumerate().map(entry).collect())
    }

    #[test]
    fn the_only_export_is_the_default() {
        assert_eq!(table(&["db"]).find("").unwrap().name, "db");
        let two = table(&["db", "log"]);
        assert_eq!(two.find(""), None);
        assert_eq!(two.find("log").unwrap().name, "log");
        assert_eq!(two.find("lo"), None);
        assert_eq!(two.list()[1], ("log".to_owned(), "about log".to_owned()));
        assert_eq!(two.entry("log").unwrap().place, Place { thread: 0, volume: 1 });
    }

    #[test]
    fn what_is_advertised_keeps_the_protocols_rules() {
        let mut volume = volume("db");
        for minimum in [1, 512, 4096] {
            volume.minimum_block = minimum;
            assert!(export_info(&volume, 1 << 30).block_sizes.are_valid(1 << 30));
        }
        volume.read_only = true;
        let flags = export_info(&volume, 1 << 20).flags;
        assert!(flags.contains(TransmissionFlags::READ_ONLY));
        assert!(!flags.intersects(TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES));
    }
}
