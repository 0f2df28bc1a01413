//! Every method of libnbd's handle, called by the script beside this file.

use anyhow::{Context, Result, bail, ensure};

use super::table::Cell;
use crate::scratch::Scratch;
use crate::tool;
use crate::wait::PATIENT;

const SCRIPT: &str = include_str!("libnbd.py");

/// Calls them against the export at `uri`; `ways` are further arguments of the script. A cell per method that was called.
pub fn methods(scratch: &Scratch, uri: &str, ways: &[String]) -> Result<Vec<(String, Cell)>> {
    let script = scratch.join("libnbd.py");
    std::fs::write(&script, SCRIPT)?;
    let script = script.display().to_string();
    let mut arguments = vec![script.as_str(), uri];
    arguments.extend(ways.iter().map(String::as_str));
    let text = tool::check(python()?, &arguments, PATIENT)?;
    let cells: Vec<(String, Cell)> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, outcome)| (name.to_owned(), cell(outcome)))
        .collect();
    ensure!(cells.len() > 20, "only {} methods were called: {text}", cells.len());
    Ok(cells)
}

fn cell(outcome: &str) -> Cell {
    match outcome {
        "ok" => Cell::Works,
        "not in this libnbd" => Cell::NotTheirs,
        other => Cell::Fails(anyhow::anyhow!("{other}")),
    }
}

/// The version of libnbd.
pub fn version() -> Result<String> {
    let text = tool::check(
        python()?,
        &["-c", "import nbd; print(nbd.NBD().get_version())"],
        PATIENT,
    )?;
    Ok(text.trim().to_owned())
}

/// A Python that has the module: the distribution's need not be the first one found.
fn python() -> Result<&'static str> {
    for python in ["python3", "/usr/bin/python3"] {
        let found = tool::run(python, &["-c", "import nbd"], PATIENT).context("no Python")?;
        if found.status.success() {
            return Ok(python);
        }
    }
    bail!("no Python here has libnbd's module (package python3-libnbd)")
}
