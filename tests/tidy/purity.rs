//! The pure crates stay pure, every package takes the shared lints, every script is a careful one.

use std::os::unix::fs::PermissionsExt;

use crate::assert_none;
use crate::source;

/// Crates where the compiler itself must refuse sockets, files, threads and clocks.
const PURE: [&str; 2] = ["nbd-proto", "mirror-core"];
/// Crates without a line of `unsafe`.
const SAFE: [&str; 4] = ["nbd-proto", "mirror-core", "blockmirror-client", "raid1-glue"];

#[test]
fn pure_crates_are_no_std() {
    let findings = missing_attribute(&PURE, "#![no_std]");
    assert_none("no_std", &findings);
}

#[test]
fn safe_crates_forbid_unsafe() {
    let findings = missing_attribute(&SAFE, "#![forbid(unsafe_code)]");
    assert_none("forbid(unsafe_code)", &findings);
}

#[test]
fn pure_crates_do_not_know_each_other() {
    let files = source::all();
    let manifest = |name: &str| {
        let path = format!("{name}/Cargo.toml");
        files
            .iter()
            .find(|f| f.path == path)
            .unwrap_or_else(|| panic!("{path} is missing"))
            .text
            .clone()
    };
    assert!(
        !manifest("nbd-proto").contains("mirror-core"),
        "nbd-proto depends on mirror-core"
    );
    assert!(
        !manifest("mirror-core").contains("nbd-proto"),
        "mirror-core depends on nbd-proto"
    );
}

#[test]
fn every_package_takes_the_shared_lints() {
    let mut findings = Vec::new();
    let mut packages = 0;
    for file in source::all()
        .iter()
        .filter(|f| f.path.ends_with("/Cargo.toml") && !f.path.contains("/fuzz/"))
    {
        packages += 1;
        if !file.text.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: no `[lints] workspace = true`", file.path));
        }
    }
    assert!(packages >= 7, "only {packages} packages were seen");
    assert_none("shared lints", &findings);
}

#[test]
fn scripts_stop_at_the_first_error() {
    let mut findings = Vec::new();
    let scripts: Vec<_> = source::all()
        .into_iter()
        .filter(|f| f.path.starts_with("scripts/") || f.path == ".ci/run")
        .collect();
    assert!(scripts.len() >= 7, "only {} scripts were seen", scripts.len());
    for file in scripts.iter().filter(|f| !f.path.starts_with("scripts/lib/")) {
        let mode = source::root()
            .join(&file.path)
            .metadata()
            .expect("script exists")
            .permissions()
            .mode();
        if mode & 0o111 == 0 {
            findings.push(format!("{}: not executable", file.path));
        }
        if !file.text.starts_with("#!/usr/bin/env bash\n") || !file.text.contains("\nset -euo pipefail\n") {
            findings.push(format!("{}: must start with bash and `set -euo pipefail`", file.path));
        }
    }
    assert_none("scripts", &findings);
}

fn missing_attribute(crates: &[&str], attribute: &str) -> Vec<String> {
    let files = source::rust();
    let mut findings = Vec::new();
    for name in crates {
        let path = format!("{name}/src/lib.rs");
        let root = files
            .iter()
            .find(|f| f.path == path)
            .unwrap_or_else(|| panic!("{path} is missing"));
        if !root.text.lines().any(|line| line == attribute) {
            findings.push(format!("{path}: no {attribute}"));
        }
    }
    findings
}
