//! For tests: files as the kernel shows them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::nbd::sysfs::{NbdIndex, System};

pub(crate) struct Fake(TempDir);

impl Fake {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn system(&self) -> System {
        System::at(self.root())
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A device with blocks of 4096 bytes, that flushes and discards.
    pub(crate) fn attached(&self, index: NbdIndex, size: u64, connections: usize) {
        let device = format!("sys/block/nbd{}", index.0);
        let put = |file: &str, text: &str| self.put(&format!("{device}/{file}"), text);
        put("size", &(size / 512).to_string());
        put("pid", "17\n");
        put("ro", "0\n");
        put("queue/logical_block_size", "4096\n");
        put("queue/write_cache", "write back\n");
        put("queue/fua", "1\n");
        put("queue/discard_max_bytes", "4294966784\n");
        put("queue/write_zeroes_max_bytes", "0\n");
        for queue in 0..connections {
            put(&format!("mq/{queue}/nr_tags"), "128\n");
        }
    }
}
