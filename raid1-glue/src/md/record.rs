//! Arrays that were created or adopted here. No other one is touched.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Where records are, when nothing else is said.
pub const FOLDER: &str = "/var/lib/blockmirror/raid";

/// One array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The array: `/dev/md0`, `/dev/md/data`.
    pub array: String,
    /// Its UUID, as mdadm writes it: what makes it ours.
    pub uuid: String,
    /// The local leg.
    pub local: String,
    /// The export behind the other leg, on every node that may serve it.
    pub uris: String,
    /// The nbd device of that leg.
    pub device: String,
    /// Connections of it.
    pub connections: usize,
    /// Seconds in which the leg has to answer a request, before it is sent again on another connection.
    pub answer_timeout: u64,
    /// Seconds that requests wait for a connection, before they fail and the leg with them.
    pub dead_timeout: u64,
    /// An operator has taken the leg out: it is not brought back before it is added.
    #[serde(default)]
    pub is_removed: bool,
    /// The leg alone has everything: the local one was not in sync when both were seen last. Nobody can ask the leg at a boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_local_behind: bool,
    /// Certificates, where the URIs name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Certificates>,
}

/// What the leg's attachment is told of certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Who signs those of the servers.
    pub ca: Option<PathBuf>,
    /// What we show.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none.
    #[error("{name} is no array of blockmirror's: {}", listed(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// There is one of this name already.
    #[error("{name} is there already ({path}); take another name, or remove that one first", path = .path.display())]
    Taken {
        /// The name.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// Another command, or a watch, has it.
    #[error("something is being done to {0} by another process: try again when that has ended")]
    Busy(String),
    /// The array has a name.
    #[error("the array with UUID {uuid} is under care as {name} already")]
    Known {
        /// Its UUID.
        uuid: String,
        /// Its name.
        name: String,
    },
    /// The name cannot be one of a file.
    #[error("{0:?} is no name for an array: letters, digits, \"-\" and \"_\"")]
    Name(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Nobody else does anything to an array for as long as this is there.
#[derive(Debug)]
pub struct Held(fs::File);

impl Drop for Held {
    /// Closing it is not enough: a program that another thread is about to start has it open, too, until it runs.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The folder with the records.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    /// In this folder.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let name = |entry: fs::DirEntry| {
            entry
                .file_name()
                .to_string_lossy()
                .strip_suffix(".toml")
                .map(str::to_owned)
        };
        let mut names: Vec<String> = entries.flatten().filter_map(name).collect();
        names.sort_unstable();
        names
    }

    /// The record of this name.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Record, RecordError> {
        let path = self.path(name)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordError::Unknown {
                    name: name.to_owned(),
                    known: self.names(),
                });
            }
            Err(source) => return Err(RecordError::File { path, source }),
        };
        toml::from_str(&text).map_err(|error| RecordError::File {
            path,
            source: io::Error::other(error),
        })
    }

    /// Whether a new one can have this name.
    ///
    /// # Errors
    /// It is no name, or is taken.
    pub fn is_free(&self, name: &str) -> Result<(), RecordError> {
        let path = self.path(name)?;
        if path.exists() {
            return Err(RecordError::Taken {
                name: name.to_owned(),
                path,
            });
        }
        Ok(())
    }

    /// Keeps a name for a new one, before anything is done that could not be noted; nobody else does anything to it until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// It is no name, or is taken, or nothing can be written here.
    pub fn claim(&self, name: &str) -> Result<Held, RecordError> {
        self.is_free(name)?;
        let held = self.try_lock(name)?;
        let held = held.ok_or_else(|| RecordError::Busy(name.to_owned()))?;
        self.is_free(name)?;
        Ok(held)
    }

    /// A new one, durable when this returns.
    ///
    /// # Errors
    /// The name is taken, its array has one already, or the file cannot be written.
    pub fn add(&self, name: &str, record: &Record) -> Result<(), RecordError> {
        self.is_free(name)?;
        let is_it = |other: &String| self.read(other).is_ok_and(|other| other.uuid == record.uuid);
        if let Some(other) = self.names().into_iter().find(is_it) {
            return Err(RecordError::Known {
                uuid: record.uuid.clone(),
                name: other,
            });
        }
        self.write(&self.path(name)?, record)
    }

    /// Another one in the place of the one of this name, durable when this returns.
    ///
    /// # Errors
    /// There is none of this name, or the file cannot be written.
    pub fn replace(&self, name: &str, record: &Record) -> Result<(), RecordError> {
        self.read(name)?;
        self.write(&self.path(name)?, record)
    }

    /// Notes whether the local leg is behind, unless somebody else does something to the array, or its record is another one by
    /// now. True: it is noted.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn note_behind(&self, name: &str, record: &Record, is_local_behind: bool) -> Result<bool, RecordError> {
        if record.is_local_behind == is_local_behind {
            return Ok(false);
        }
        let Some(_held) = self.try_lock(name)? else {
            return Ok(false);
        };
        if self.read(name)? != *record {
            return Ok(false);
        }
        let noted = Record {
            is_local_behind,
            ..record.clone()
        };
        self.replace(name, &noted).map(|()| true)
    }

    fn write(&self, path: &Path, record: &Record) -> Result<(), RecordError> {
        let write = || {
            fs::create_dir_all(&self.0)?;
            let text = toml::to_string(record).map_err(io::Error::other)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            fs::File::open(&self.0)?.sync_all()
        };
        write().map_err(|source: io::Error| RecordError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Nobody else does anything to the array of this name until what is returned is dropped.
    ///
    /// # Errors
    /// The file that is locked cannot be made.
    pub fn lock(&self, name: &str) -> Result<Held, RecordError> {
        let (file, path) = self.lock_file(name)?;
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => Ok(Held(file)),
            Err(error) => Err(RecordError::File {
                path,
                source: error.into(),
            }),
        }
    }

    /// As [`lock`](Self::lock); `None`: somebody else has it.
    ///
    /// # Errors
    /// The file that is locked cannot be made.
    pub fn try_lock(&self, name: &str) -> Result<Option<Held>, RecordError> {
        let (file, _) = self.lock_file(name)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(locked.ok().map(|()| Held(file)))
    }

    fn lock_file(&self, name: &str) -> Result<(fs::File, PathBuf), RecordError> {
        let path = self.path(name)?.with_extension("lock");
        let opened = fs::create_dir_all(&self.0).and_then(|()| {
            fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        });
        match opened {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(RecordError::File { path, source }),
        }
    }

    /// Forget it. The array itself stays, and so does the file that is locked: somebody may wait for it, and another one under
    /// the same name would be no lock for him.
    ///
    /// # Errors
    /// There is none, or its file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), RecordError> {
        self.read(name)?;
        let path = self.path(name)?;
        fs::remove_file(&path).map_err(|source| RecordError::File { path, source })
    }

    fn path(&self, name: &str) -> Result<PathBuf, RecordError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.starts_with('-') || !name.chars().all(is_plain) {
            return Err(RecordError::Name(name.to_owned()));
        }
        Ok(self.0.join(format!("{name}.toml")))
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "there is none; create or adopt one".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests;
