//! `replay-log LOG IMAGE COMMAND...`, within a guest: what a disk held after every flush, out of a log of dm-log-writes.
//!
//! A device of the kind `log-writes` passes everything on to one disk, and writes to another what was done, in the order in which
//! it became durable: a write that is not covered by a flush yet is not in the log yet. The log is played onto the file IMAGE, as
//! large as the disk and without anything at first. From the mark `begin` on COMMAND is run whenever a flush, or a write with FUA,
//! has ended and something had changed, and behind marks: what they say is in the log already. IMAGE.marks has the marks until then,
//! a line each. The first that fails ends it.

mod log;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::log::{Deed, Log};

const USAGE: &str = "usage: replay-log LOG IMAGE COMMAND...";
/// The mark from which on points are looked at.
const BEGIN: &str = "begin";
/// What a disk may show where something was given up.
static RUBBISH: [u8; 64 << 10] = [0xDD; 64 << 10];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [log, path, program, arguments @ ..] = &words[..] else {
        bail!("{USAGE}");
    };
    let mut log = Log::open(File::open(log).with_context(|| log.clone())?)?;
    let mut marks = File::create(format!("{path}.marks"))?;
    let mut disk = Disk::open(path)?;
    let look = |number: u64| {
        let ended = Command::new(program).args(arguments).status();
        let ended = ended.with_context(|| program.clone())?;
        ensure!(
            ended.success(),
            "entry {number} of the log: {program} ended with {ended}"
        );
        Ok(())
    };
    let (mut number, mut points, mut begun, mut marked) = (0, 0, false, false);
    while let Some(entry) = log.next()? {
        if begun && entry.deed.is_of_the_disk() && std::mem::take(&mut marked) {
            look(number)?;
            points += 1;
        }
        match &entry.deed {
            Deed::Mark(text) => {
                (begun, marked) = (begun || text == BEGIN, true);
                writeln!(marks, "{text}")?;
            }
            // The disk was given up before it was used.
            Deed::Discard(..) if !begun => {}
            deed => disk.play(deed)?,
        }
        if begun && entry.point && std::mem::take(&mut disk.changed) {
            look(number)?;
            points += 1;
        }
        number += 1;
    }
    ensure!(begun, "there is no mark {BEGIN:?} in the log");
    println!("{points} points, {number} entries");
    Ok(())
}

/// The disk as it was.
struct Disk {
    image: File,
    /// Since the last point.
    changed: bool,
}

impl Disk {
    fn open(path: &str) -> Result<Self> {
        let image = File::options()
            .write(true)
            .open(path)
            .with_context(|| path.to_owned())?;
        Ok(Self { image, changed: false })
    }

    fn play(&mut self, deed: &Deed) -> Result<()> {
        match deed {
            Deed::Write(from, data) => self.image.write_all_at(data, *from)?,
            // What is there afterwards is anybody's guess: nothing that anybody may have counted on.
            Deed::Discard(from, bytes) => {
                for at in (*from..from + bytes).step_by(RUBBISH.len()) {
                    let rest = RUBBISH.len().min((from + bytes - at) as usize);
                    self.image.write_all_at(&RUBBISH[..rest], at)?;
                }
            }
            Deed::Mark(_) | Deed::Nothing => return Ok(()),
        }
        self.changed = true;
        Ok(())
    }
}
