//! The device under a leg, as the kernel has it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use raid1_glue::md::heal::DeviceState;
use raid1_glue::md::{Hold, LegDevice, Record};
use raid1_glue::nbd::Nbd;
use raid1_glue::nbd::sysfs::{NbdIndex, System};
use rustix::fs::OFlags;

use crate::agent;
use crate::failure::Failure;

/// A device that has not answered a read by then does not answer.
const PROBE: Duration = Duration::from_secs(3);
/// A device that is let go is free by then.
const GONE: Duration = Duration::from_secs(5);
/// Between looks for that.
const LOOK: Duration = Duration::from_millis(20);
/// What is read, and how its memory has to be aligned.
const BLOCK: usize = 4096;

/// The device of a record.
pub struct Leg<'a> {
    record: &'a Record,
    index: NbdIndex,
    system: System,
}

impl<'a> Leg<'a> {
    pub fn of(record: &'a Record) -> Result<Self, Failure> {
        let index = record.device.parse();
        let index = index.map_err(|error| Failure::Failed(format!("the record of {}: {error}", record.array)))?;
        Ok(Self {
            record,
            index,
            system: System::here(),
        })
    }

    /// The process that keeps it attached.
    pub fn agent(&self) -> Option<u32> {
        agent::of(self.index)
    }

    /// How it is, as far as it can be told without asking it: a look must not wait for it.
    pub fn seen(&self) -> DeviceState {
        match self.hold() {
            Hold::Free => DeviceState::Absent,
            Hold::Other(_) => DeviceState::Foreign,
            Hold::Ours | Hold::Untold => DeviceState::Alive,
        }
    }

    /// Who has it.
    fn hold(&self) -> Hold {
        self.record.hold(self.system.standing(self.index))
    }

    /// Whether it may be let go, or given to the array: in words why not.
    pub fn may_touch(&self, was_member: bool) -> Result<Hold, String> {
        let hold = self.hold();
        let may = self.record.may_touch(hold.clone(), was_member);
        may.map(|()| hold).map_err(|error| error.to_string())
    }

    /// What `blockmirror attach` is told.
    pub fn arguments(&self) -> Vec<OsString> {
        let record = self.record;
        let mut arguments: Vec<OsString> = vec!["attach".into(), (&record.uris).into(), (&record.device).into()];
        for (name, value) in [
            ("--connections", record.connections as u64),
            ("--answer-timeout", record.answer_timeout),
            ("--dead-timeout", record.dead_timeout),
        ] {
            arguments.extend([name.into(), value.to_string().into()]);
        }
        let tls = record.tls.clone().unwrap_or_default();
        for (name, file) in [
            ("--tls-ca", tls.ca),
            ("--tls-certificate", tls.certificate),
            ("--tls-key", tls.key),
        ] {
            arguments.extend(file.into_iter().flat_map(|file| [name.into(), file.into()]));
        }
        arguments
    }
}

impl LegDevice for Leg<'_> {
    fn state(&self, was_member: bool) -> Result<DeviceState, String> {
        match self.may_touch(was_member)? {
            Hold::Free => return Ok(DeviceState::Absent),
            Hold::Ours => {}
            // What it answers with is not known to be the export: it is never given to the array.
            Hold::Untold | Hold::Other(_) => return Ok(DeviceState::Dead),
        }
        let path = self.index.to_string();
        let (tell, told) = mpsc::channel();
        // The kernel gives the read up after the device's own timeouts: the thread ends then.
        std::thread::spawn(move || tell.send(read(&path)));
        Ok(match told.recv_timeout(PROBE) {
            Ok(Ok(())) => DeviceState::Alive,
            _ if self.agent().is_some() => DeviceState::Waiting,
            _ => DeviceState::Dead,
        })
    }

    fn attach(&self) -> Result<(), String> {
        let started = agent::start(self.index, self.arguments());
        started.map(drop).map_err(Failure::message)
    }

    fn detach(&self, was_member: bool) -> Result<(), String> {
        self.may_touch(was_member)?;
        let users = self.system.users(self.index);
        if !users.is_empty() {
            return Err(format!(
                "{} is used: {}; end that first (umount, swapoff, mdadm --fail --remove)",
                self.index,
                users.join(", ")
            ));
        }
        let failed = |error| format!("{} cannot be detached: {error}", self.index);
        let nbd = Nbd::open().map_err(failed)?;
        nbd.disconnect(self.index.0).map_err(failed)?;
        let since = Instant::now();
        while !self.system.is_gone(self.index) {
            if since.elapsed() > GONE {
                return Err(format!("{} is detached, but still open somewhere", self.index));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// The first block, from the device itself.
fn read(path: &str) -> io::Result<()> {
    let device: File = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)?;
    let mut room = vec![0; 2 * BLOCK];
    let begin = room.as_ptr().align_offset(BLOCK);
    let block = room.get_mut(begin..begin + BLOCK).ok_or(io::ErrorKind::OutOfMemory)?;
    device.read_exact_at(block, 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use clap::Parser;
    use raid1_glue::md::Certificates;

    use super::*;
    use crate::args::{Args, Command};

    fn record() -> Record {
        Record {
            array: "/dev/md0".to_owned(),
            uuid: "1:2:3:4".to_owned(),
            local: "/dev/vda".to_owned(),
            uris: "nbds://a/db,nbds://b/db".to_owned(),
            device: "/dev/nbd3".to_owned(),
            connections: 4,
            answer_timeout: 7,
            dead_timeout: 0,
            is_removed: false,
            is_local_behind: false,
            tls: Some(Certificates {
                ca: Some(PathBuf::from("/etc/ca.pem")),
                ..Certificates::default()
            }),
        }
    }

    /// A leg whose device the kernel shows with these files.
    fn shown<'a>(record: &'a Record, root: &Path, files: &[(&str, &str)]) -> Leg<'a> {
        let folder = root.join("sys/block/nbd3");
        let _ = std::fs::remove_dir_all(&folder);
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut leg = Leg::of(record).unwrap();
        leg.system = System::at(root);
        leg
    }

    #[test]
    fn what_is_attached_to_something_else_is_neither_asked_nor_let_go() {
        let (record, root) = (record(), tempfile::tempdir().unwrap());
        let free = shown(&record, root.path(), &[("size", "0")]);
        assert_eq!(free.state(false), Ok(DeviceState::Absent));
        let other = [("pid", "1\n"), ("backend", "nbd://a/other\n")];
        let untold = [("pid", "1\n")];
        for (files, was_member) in [(&other[..], true), (&other, false), (&untold, false)] {
            let leg = shown(&record, root.path(), files);
            for refused in [leg.state(was_member).unwrap_err(), leg.detach(was_member).unwrap_err()] {
                assert!(refused.contains("it is not touched"), "{refused}");
            }
        }
        assert_eq!(shown(&record, root.path(), &other).seen(), DeviceState::Foreign);
        let leg = shown(&record, root.path(), &untold);
        assert_eq!(leg.state(true), Ok(DeviceState::Dead));
        let used = [("pid", "1\n"), ("backend", &record.backend()), ("holders/md7/x", "")];
        let leg = shown(&record, root.path(), &used);
        let refused = leg.detach(true).unwrap_err();
        assert!(refused.contains("part of /dev/md7"), "{refused}");
    }

    #[test]
    fn attach_is_told_what_it_understands() {
        let record = record();
        let arguments = Leg::of(&record).unwrap().arguments();
        let typed = std::iter::once("blockmirror".into()).chain(arguments);
        let Command::Attach(attach) = Args::try_parse_from(typed).unwrap().command else {
            unreachable!("it says attach");
        };
        assert_eq!((attach.what, attach.device), (record.uris, Some(NbdIndex(3))));
        let kernel = attach.kernel;
        assert_eq!(
            (kernel.connections, kernel.answer_timeout, kernel.dead_timeout),
            (4, 7, 0)
        );
        assert_eq!(attach.tls.ca, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn a_file_that_is_too_short_does_not_answer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(read(&file.path().display().to_string()).is_err());
    }
}
