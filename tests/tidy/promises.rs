//! Every promise in docs/SPECIFICATION.md names a command that exists; so does every script the docs mention.

use std::collections::BTreeSet;

use crate::assert_none;
use crate::source::{self, Source};

#[test]
fn every_promise_is_enforced_by_something_that_exists() {
    let files = source::all();
    let specification = files
        .iter()
        .find(|f| f.path == "docs/SPECIFICATION.md")
        .expect("docs/SPECIFICATION.md exists");
    let tests = test_names(&files);
    let scripts = script_paths(&files);
    let scenarios = guest_scenarios(&files);
    let rows = promise_rows(&specification.text);
    assert!(rows.len() >= 15, "only {} promises were read", rows.len());
    let mut findings = Vec::new();
    for (promise, enforced_by) in rows {
        if enforced_by.is_empty() {
            findings.push(format!("\"{promise}\": names no command"));
        }
        for command in enforced_by {
            let first = command.split_whitespace().next().unwrap_or("");
            if !scripts.contains(first) && !tests.contains(command.as_str()) {
                findings.push(format!("\"{promise}\": `{command}` is neither a script nor a test"));
            }
            if let Some(name) = command.strip_prefix("scripts/kernel-test --only ")
                && !scenarios.contains(name)
            {
                findings.push(format!("\"{promise}\": no scenario is called {name}"));
            }
        }
    }
    assert_none("promise", &findings);
}

#[test]
fn documents_name_scripts_that_exist() {
    let files = source::all();
    let scripts = script_paths(&files);
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".md")) {
        for word in file
            .text
            .split(|c: char| c.is_whitespace() || "`()[],;:\"'|".contains(c))
        {
            let word = word.trim_end_matches('.').trim_start_matches("./");
            if word.starts_with("scripts/") && word != "scripts/" && !scripts.contains(word) {
                findings.push(format!("{}: {word}", file.path));
            }
        }
    }
    assert_none("script that does not exist", &findings);
}

#[test]
fn the_rule_reads_rows() {
    let table =
        "| promise | number | enforced by |\n|---|---|---|\n| a | 1 | `scripts/x --y`, `b_c` |\n| d | 2 | word |\n";
    let rows = promise_rows(table);
    assert_eq!(rows[0], ("a".into(), vec!["scripts/x --y".into(), "b_c".into()]));
    assert_eq!(rows[1], ("d".into(), vec![]));
}

/// Rows of every table whose last column is headed "enforced by": the promise and the commands in backquotes.
fn promise_rows(text: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            in_table = false;
        } else if cells.last() == Some(&"enforced by") {
            in_table = true;
        } else if in_table && !line.contains("|---") {
            let commands = cells
                .last()
                .unwrap_or(&"")
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            rows.push((cells[0].to_owned(), commands));
        }
    }
    rows
}

/// Paths of all scripts.
pub fn script_paths(files: &[Source]) -> BTreeSet<&str> {
    files
        .iter()
        .map(|f| f.path.as_str())
        .filter(|path| path.starts_with("scripts/"))
        .collect()
}

/// What `scripts/kernel-test --only` takes.
fn guest_scenarios(files: &[Source]) -> BTreeSet<&str> {
    let scenarios = files.iter().filter(|f| f.path.starts_with("tests/kernel/scenarios/"));
    let lines = scenarios.flat_map(|f| f.text.lines());
    lines
        .filter_map(|line| line.trim().strip_prefix("name: \"")?.strip_suffix("\","))
        .collect()
}

/// Names of all `#[test]` functions and property tests of the tree.
pub fn test_names(files: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|f| f.is_rust()) {
        let mut attribute = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                attribute = true;
            } else if attribute && let Some(rest) = line.split("fn ").nth(1) {
                names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
                attribute = false;
            }
        }
    }
    names
}
