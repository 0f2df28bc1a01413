//! Every test, scenario and strike that docs/SCENARIOS.md names exists, and every scenario of the simulator is in it.

use std::collections::BTreeSet;

use crate::assert_none;
use crate::promises::{script_paths, test_names};
use crate::source::{self, Source};

/// Fewest rows the document is believed to have been read with.
const ROWS: usize = 100;
/// What a row says that names nothing.
const EXCUSES: [&str; 3] = ["**does not apply**", "**not built**", "**not tested**"];

#[test]
fn every_row_names_what_exists_or_says_why_not() {
    let files = source::all();
    let known = known_names(&files);
    let rows = rows(document(&files));
    assert!(rows.len() >= ROWS, "only {} rows were read", rows.len());
    let mut findings = Vec::new();
    for (scenario, here) in &rows {
        let named = quoted(here);
        if named.is_empty() && !EXCUSES.iter().any(|excuse| here.contains(excuse)) {
            findings.push(format!("{scenario}: names nothing and gives no reason"));
        }
        for name in named.iter().filter(|name| !known.contains(**name)) {
            findings.push(format!("{scenario}: `{name}` does not exist"));
        }
    }
    assert_none("scenario", &findings);
}

#[test]
fn every_scenario_of_the_simulator_is_in_a_row() {
    let files = source::all();
    let text = document(&files);
    let scenarios = scenario_names(&files);
    assert!(scenarios.len() > 60, "only {} scenarios were read", scenarios.len());
    let findings: Vec<String> = scenarios
        .into_iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert_none("scenario in no row", &findings);
}

#[test]
fn the_rule_reads_rows_and_names() {
    let text = "| scenario there | about | here |\n|---|---|---|\n| a | b | `scenario c`, `d_e` |\n\n| other | table |\n| x | y |\n";
    assert_eq!(rows(text), [("a", "`scenario c`, `d_e`")]);
    assert_eq!(quoted("`scenario c`, `d_e` and `f"), ["scenario c", "d_e"]);
    let table = "    (\"io-errors\", io_errors),\n    (\"x\", y),\n";
    assert_eq!(first_strings(table, "(\""), ["io-errors", "x"]);
}

fn document(files: &[Source]) -> &str {
    let found = files.iter().find(|file| file.path == "docs/SCENARIOS.md");
    &found.expect("docs/SCENARIOS.md exists").text
}

/// The first and the last cell of every row of the tables headed "scenario there".
fn rows(text: &str) -> Vec<(&str, &str)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            in_table = false;
        } else if cells[0] == "scenario there" {
            in_table = true;
        } else if in_table && !line.starts_with("|---") {
            rows.push((cells[0], cells[cells.len() - 1]));
        }
    }
    rows
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    let pieces: Vec<&str> = text.split('`').collect();
    let closed = pieces.len() - 1 + pieces.len() % 2;
    pieces[..closed].iter().skip(1).step_by(2).copied().collect()
}

fn known_names(files: &[Source]) -> BTreeSet<String> {
    let mut known = test_names(files);
    known.extend(scenario_names(files));
    known.extend(strike_names(files));
    known.extend(script_paths(files).into_iter().map(str::to_owned));
    known
}

fn scenario_names(files: &[Source]) -> Vec<String> {
    let scripts = files
        .iter()
        .filter(|file| file.path.starts_with("tests/cluster/scenarios/"));
    let names = scripts.flat_map(|file| first_strings(&file.text, "(\""));
    names.map(|name| format!("scenario {name}")).collect()
}

fn strike_names(files: &[Source]) -> Vec<String> {
    let strikes = files.iter().filter(|file| file.path == "tests/src/chaos/strikes.rs");
    let names = strikes.flat_map(|file| {
        let arms = file.text.lines().filter_map(|line| line.split_once("=> \""));
        arms.filter_map(|(_, rest)| rest.split('"').next().map(str::to_owned))
    });
    names.map(|name| format!("strike {name}")).collect()
}

/// The first text of every line that begins with `opening`: a row of a table of names and functions.
fn first_strings(text: &str, opening: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.trim().strip_prefix(opening));
    rows.filter_map(|rest| rest.split_once("\","))
        .map(|(name, _)| name.to_owned())
        .collect()
}
