//! A machine of a test: a folder in place of `/sys/block`, and a script in place of mdadm.
#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Blocks, Machine, Mdadm, Record};

/// The UUID of the array in it.
pub const UUID: &str = "11111111:22222222:33333333:44444444";

pub struct Scene(tempfile::TempDir);

impl Scene {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn machine(&self) -> Machine {
        Machine {
            mdadm: Mdadm::at(&self.path("mdadm")),
            blocks: Blocks::at(&self.path("block")),
        }
    }

    /// What mdadm does: lines of a shell. What it was told is kept.
    pub fn mdadm(&self, script: &str) {
        let path = self.path("mdadm");
        let told = self.path("told");
        let text = format!("#!/bin/sh\necho \"$@\" >> {}\n{script}\n", told.display());
        // A file that is open for writing cannot be run. Were it written by us, a child of another test could have it open.
        let (text_file, beside) = (self.path("mdadm.text"), self.path("mdadm.new"));
        fs::write(&text_file, text).unwrap();
        let mut install = Command::new("install");
        let installed = install.arg("-m755").arg(text_file).arg(&beside).status().unwrap();
        assert!(installed.success());
        fs::rename(beside, path).unwrap();
    }

    /// What mdadm was told since the last time this was asked.
    pub fn told(&self) -> Vec<String> {
        let path = self.path("told");
        let told = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        told.lines().map(str::to_owned).collect()
    }

    pub fn put(&self, folder: &str, files: &[(&str, &str)]) {
        let folder = self.path("block").join(folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// An array md0 of vda and, when it has a state, nbd0.
    pub fn array(&self, leg: Option<&str>) {
        let _ = fs::remove_dir_all(self.path("block/md0"));
        self.put("md0", &[("size", "131072\n")]);
        let in_sync = leg.is_some_and(|state| state.contains("in_sync"));
        let degraded = if in_sync { "0\n" } else { "1\n" };
        self.put(
            "md0/md",
            &[
                ("array_state", "active\n"),
                ("level", "raid1\n"),
                ("degraded", degraded),
                ("sync_action", "idle\n"),
                ("sync_completed", "none\n"),
            ],
        );
        self.put(
            "md0/md/dev-vda",
            &[("state", "in_sync\n"), ("slot", "0\n"), ("errors", "0\n")],
        );
        if let Some(state) = leg {
            self.put(
                "md0/md/dev-nbd0",
                &[("state", state), ("slot", "1\n"), ("errors", "0\n")],
            );
        }
    }

    pub fn record(&self) -> Record {
        Record {
            array: "md0".to_owned(),
            uuid: UUID.to_owned(),
            local: "/dev/vda".to_owned(),
            uris: "nbd://a/db,nbd://b/db".to_owned(),
            device: "/dev/nbd0".to_owned(),
            connections: 1,
            answer_timeout: 10,
            dead_timeout: 5,
            is_removed: false,
            is_local_behind: false,
            tls: None,
        }
    }
}
