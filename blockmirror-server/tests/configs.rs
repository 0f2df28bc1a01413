//! Every configuration this project shows to a user is right.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use blockmirror_server::config::Config;

#[test]
fn every_shipped_configuration_is_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut seen = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let config = Config::parse(&text, &name).unwrap_or_else(|error| panic!("{error}"));
            assert!(config.explain().contains(&config.resources[0].name));
            seen.push(name);
        }
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "partner-alpha.toml",
            "partner-bravo.toml",
            "primary-async.toml",
            "primary-sync.toml",
            "remote-leg.toml",
            "replica-alpha.toml",
            "replica-bravo.toml",
            "standalone.toml"
        ]
    );
}

#[test]
fn the_example_of_the_manual_is_right() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    let text = fs::read_to_string(manual).unwrap();
    let example = text
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let config = Config::parse(example, "CONFIGURATION.md").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.resources[0].peers[0].name, "bravo");
}
