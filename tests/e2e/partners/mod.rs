//! Two blockmirrors that are partners, as an operator and a host see them.

mod crossing;
mod disks;
mod resync;
mod roles;
mod split_brain;
mod timing;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::raw::Raw;

const MIB: u64 = 1 << 20;
/// The only volume of most of these.
const VOLUME: &str = "db";

/// The usual partners, with a lost one noticed soon.
fn partners() -> Result<Partners> {
    Partners::new(Setup::default())
}

/// Write `count` blocks of 4 KiB, each filled with its number and `mark`.
fn fill(raw: &mut Raw, first: u64, count: u64, mark: u8) -> Result<()> {
    for block in first..first + count {
        ensure!(raw.write(0, block * 4096, &content(block, mark))? == 0, "block {block}");
    }
    Ok(())
}

/// Require that they are there.
fn expect(raw: &mut Raw, first: u64, count: u64, mark: u8) -> Result<()> {
    for block in first..first + count {
        ensure!(
            raw.read(block * 4096, 4096)? == content(block, mark),
            "block {block} is not the one marked {mark}"
        );
    }
    Ok(())
}

fn content(block: u64, mark: u8) -> Vec<u8> {
    let mut bytes = vec![mark; 4096];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes
}

/// Change bytes of an image behind the daemon's back.
fn tamper(image: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(image)
        .with_context(|| image.display().to_string())?;
    file.write_all_at(bytes, offset)?;
    file.sync_all()?;
    Ok(())
}
