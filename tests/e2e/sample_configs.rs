//! Every file in configs/ is accepted by the daemon.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use blockmirror_tests::node::check_config;
use blockmirror_tests::scratch::Scratch;

#[test]
fn every_sample_configuration_is_accepted() -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let scratch = Scratch::new()?;
    let here = scratch.path().display().to_string();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        // The folders of the samples need not exist on this machine.
        let text = std::fs::read_to_string(&path)?;
        let text = text
            .replace("/run/blockmirror", &here)
            .replace("/var/lib/blockmirror", &here);
        let copy = scratch.join("sample.toml");
        std::fs::write(&copy, text)?;
        let said = check_config(&copy)?;
        ensure!(said.is_ok(), "{}: {}", path.display(), said.unwrap_or_else(|said| said));
        seen += 1;
    }
    ensure!(seen >= 3, "only {seen} sample configurations were seen");
    Ok(())
}
