//! What of a file survives a power cut: the file beside it with the suffix `.platter`, kept by the daemon under test.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

const BLOCK: usize = 4096;
const STEP: usize = 1 << 20;
const SUFFIX: &str = ".platter";
const METADATA: &str = ".blockmirror";

/// The power is back: every file of the folder that begins so holds what was durable, and nothing else. Returns how many
/// blocks of the images the cut has taken.
pub fn restore(folder: &Path, prefix: &str) -> Result<u64> {
    let mut lost = 0;
    for entry in std::fs::read_dir(folder)? {
        let beside = entry?.path();
        let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(of) = name.strip_suffix(SUFFIX).filter(|of| of.starts_with(prefix)) else {
            continue;
        };
        // The file itself stays: its inode is part of its identity.
        let file = File::options().read(true).write(true).open(folder.join(of))?;
        let durable = File::open(&beside)?;
        if !is_metadata(Path::new(of)) {
            lost += different_blocks(&file, &durable)?;
        }
        copy(&durable, &file)?;
        std::fs::remove_file(&beside)?;
    }
    Ok(lost)
}

/// Where the durable part of this file is.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Whether this is a metadata file.
pub fn is_metadata(path: &Path) -> bool {
    path.to_string_lossy().ends_with(METADATA)
}

/// Make `to` what `from` is; what is equal is not written.
pub fn copy(from: &File, to: &File) -> Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    for_each_difference(from, to, length, |at, bytes| Ok(to.write_all_at(bytes, at)?))
}

fn different_blocks(one: &File, other: &File) -> Result<u64> {
    let mut count = 0;
    for_each_difference(one, other, one.metadata()?.len(), |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Call `differs` with every block of `one` that is another one in `other`.
fn for_each_difference(
    one: &File,
    other: &File,
    length: u64,
    mut differs: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffers = (vec![0; STEP], vec![0; STEP]);
    let mut at = 0;
    while at < length {
        let wanted = STEP.min((length - at) as usize);
        let read = read_at(one, &mut buffers.0[..wanted], at)?;
        let there = read_at(other, &mut buffers.1[..wanted], at)?;
        if read == 0 {
            break;
        }
        buffers.1[there..].fill(0);
        for (index, bytes) in buffers.0[..read].chunks(BLOCK).enumerate() {
            let place = index * BLOCK;
            if bytes != &buffers.1[place..place + bytes.len()] {
                differs(at + place as u64, bytes)?;
            }
        }
        at += read as u64;
    }
    Ok(())
}

/// Fewer bytes than asked for only at the end.
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}
