//! Folders and small file systems that go away with the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A folder of one test; its path is short enough for Unix sockets.
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// A new empty folder.
    pub fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("bm-").tempdir()?,
        })
    }

    /// A new empty folder in memory, for tests that measure.
    pub fn in_memory() -> Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("bm-").tempdir_in("/dev/shm")?,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A sparse file of `size` bytes in it.
    pub fn sparse_file(&self, name: &str, size: u64) -> Result<PathBuf> {
        let path = self.join(name);
        std::fs::File::create(&path)?.set_len(size)?;
        Ok(path)
    }
}

/// A tmpfs of a given size, to be filled up. Unmounted when dropped. Needs root.
pub struct SmallFileSystem {
    folder: TempDir,
}

impl SmallFileSystem {
    /// Mounts one.
    pub fn new(size_bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bm-full-").tempdir()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"])
            .arg(folder.path())
            .status()
            .context("mount")?;
        ensure!(
            status.success(),
            "cannot mount a tmpfs (root is needed for the disk-full tests)"
        );
        Ok(Self { folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // Lazily, because a daemon that is being killed may still hold a file; nothing can be done about a failure.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
