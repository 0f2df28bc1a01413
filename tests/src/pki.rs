//! Certificates for tests, made by scripts/pki.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::tool;
use crate::wait::PROMPT;

/// The directory with all sets: made once, beside the program that asks, and kept as long as the script is the same.
pub fn directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("a program lies in a directory")?;
    let script = crc32fast::hash(include_bytes!("../../scripts/pki"));
    let kept = beside.join(format!("certificates-{script:08x}"));
    if kept.exists() {
        return Ok(kept);
    }
    let making = beside.join(format!("certificates-{}-{}", std::process::id(), unique()));
    fill(&making).context("scripts/pki makes no certificates here: is openssl installed?")?;
    // Whoever comes second throws its own away.
    if std::fs::rename(&making, &kept).is_err() {
        std::fs::remove_dir_all(&making)?;
    }
    Ok(kept)
}

/// A number no other thread of this process gets.
fn unique() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Another set of sets.
pub fn fill(directory: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pki");
    let script = script.to_str().context("the path is text")?;
    tool::check(script, &[&directory.display().to_string()], PROMPT).map(|_| ())
}
