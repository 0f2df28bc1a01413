//! Are two images the same, byte by byte?

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const STEP: usize = 1 << 20;
const BLOCK: usize = 4096;

/// An error that names the first difference and the number of different 4 KiB blocks.
pub fn assert_identical(a: &Path, b: &Path) -> Result<()> {
    match differences(a, b)? {
        (_, None) => Ok(()),
        (different, Some(first)) => bail!(
            "{} and {} differ in {different} blocks of {BLOCK} bytes, the first at {first}",
            a.display(),
            b.display()
        ),
    }
}

/// How many blocks of 4 KiB differ.
pub fn different_blocks(a: &Path, b: &Path) -> Result<u64> {
    Ok(differences(a, b)?.0)
}

/// How many blocks differ, and where the first of them is.
fn differences(a: &Path, b: &Path) -> Result<(u64, Option<u64>)> {
    let (length_a, length_b) = (a.metadata()?.len(), b.metadata()?.len());
    ensure!(
        length_a == length_b,
        "{} has {length_a} bytes, {} has {length_b}",
        a.display(),
        b.display()
    );
    let mut files = (open(a)?, open(b)?);
    let mut buffers = (vec![0; STEP], vec![0; STEP]);
    let (mut different, mut first, mut at) = (0u64, None, 0u64);
    while at < length_a {
        let step = STEP.min(usize::try_from(length_a - at)?);
        let (one, two) = (&mut buffers.0[..step], &mut buffers.1[..step]);
        files.0.read_exact(one)?;
        files.1.read_exact(two)?;
        if one != two {
            for (index, (x, y)) in one.chunks(BLOCK).zip(two.chunks(BLOCK)).enumerate() {
                if x != y {
                    different += 1;
                    first.get_or_insert(at + (index * BLOCK) as u64);
                }
            }
        }
        at += step as u64;
    }
    Ok((different, first))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| path.display().to_string())
}
