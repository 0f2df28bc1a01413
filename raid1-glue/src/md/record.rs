//! Arrays that were created or adopted here. No other one is touched.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// Seconds in which the leg has to answer.
    pub timeout: u64,
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

    /// A new one, durable when this returns.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be written.
    pub fn add(&self, name: &str, record: &Record) -> Result<(), RecordError> {
        let path = self.path(name)?;
        if path.exists() {
            return Err(RecordError::Taken {
                name: name.to_owned(),
                path,
            });
        }
        let write = || {
            fs::create_dir_all(&self.0)?;
            let text = toml::to_string(record).map_err(io::Error::other)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&path)?;
            fs::File::open(&self.0)?.sync_all()
        };
        write().map_err(|source: io::Error| RecordError::File {
            path: path.clone(),
            source,
        })
    }

    /// Forget it. The array itself stays.
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

impl Record {
    /// In which the leg has to answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_come_back_and_no_other_array_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::at(&folder.path().join("raid"));
        let record = Record {
            array: "/dev/md0".to_owned(),
            uuid: "1:2:3:4".to_owned(),
            local: "/dev/vda".to_owned(),
            uris: "nbd://a/db,nbd://b/db".to_owned(),
            device: "/dev/nbd0".to_owned(),
            connections: 4,
            timeout: 10,
        };
        let unknown = records.read("data").unwrap_err().to_string();
        assert!(unknown.contains("create or adopt"), "{unknown}");
        records.add("data", &record).unwrap();
        assert_eq!(records.read("data").unwrap(), record);
        assert!(matches!(records.add("data", &record), Err(RecordError::Taken { .. })));
        let unknown = records.read("date").unwrap_err().to_string();
        assert!(unknown.contains("there are data"), "{unknown}");
        for name in ["", "../x", "a/b", "-x", "a b"] {
            assert!(matches!(records.read(name), Err(RecordError::Name(_))), "{name}");
        }
        fs::write(folder.path().join("raid/odd.toml"), "array = 3").unwrap();
        assert!(matches!(records.read("odd"), Err(RecordError::File { .. })));
        records.remove("data").unwrap();
        assert_eq!(records.names(), ["odd"]);
    }
}
