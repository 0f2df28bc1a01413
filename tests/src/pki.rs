//! Certificates for tests, made by scripts/pki.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::scratch::Scratch;
use crate::tool;
use crate::wait::PROMPT;

/// The directory with all sets, made once per process.
pub fn directory() -> Result<PathBuf> {
    static MADE: OnceLock<Option<Scratch>> = OnceLock::new();
    match MADE.get_or_init(|| make().ok()) {
        Some(scratch) => Ok(scratch.path().to_owned()),
        None => bail!("scripts/pki makes no certificates here: is openssl installed?"),
    }
}

fn make() -> Result<Scratch> {
    let scratch = Scratch::new()?;
    fill(scratch.path())?;
    Ok(scratch)
}

/// Another set of sets.
pub fn fill(directory: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pki");
    let script = script.to_str().context("the path is text")?;
    tool::check(script, &[&directory.display().to_string()], PROMPT).map(|_| ())
}
