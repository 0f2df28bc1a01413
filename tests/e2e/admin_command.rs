//! The `blockmirror` command against a real daemon.

use anyhow::{Result, ensure};
use blockmirror_client::admin::{ConnectionState, StatusReport};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::tool::{self, Outcome};
use blockmirror_tests::wait::{PATIENT, PROMPT};

fn blockmirror(pair: &Pair, arguments: &[&str]) -> Result<Outcome> {
    let binary = tool::binary("blockmirror")?.display().to_string();
    let admin = pair.primary.admin_socket().display().to_string();
    tool::run(&binary, &[&["--admin", &admin], arguments].concat(), PROMPT)
}

#[test]
fn status_is_for_people_and_for_programs() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let people = blockmirror(&pair, &["status"])?;
    ensure!(people.status.success(), "{}", people.text());
    for word in ["db", "bravo", "Established", "UpToDate"] {
        ensure!(people.stdout.contains(word), "{word} is not in:\n{}", people.stdout);
    }
    let programs = blockmirror(&pair, &["status", "--json"])?;
    let report: StatusReport = serde_json::from_str(&programs.stdout)?;
    ensure!(
        report.name == "alpha" && report.peer(EXPORT, "bravo").is_some(),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn disconnect_connect_and_resync() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    ensure!(blockmirror(&pair, &["disconnect", EXPORT, "bravo"])?.status.success());
    pair.primary.wait_peer(EXPORT, "StandAlone", PROMPT, |peer| {
        peer.connection_state == ConnectionState::StandAlone
    })?;
    ensure!(blockmirror(&pair, &["connect", EXPORT, "bravo"])?.status.success());
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let resync = blockmirror(&pair, &["resync", EXPORT, "bravo", "--full", "--wait"])?;
    ensure!(resync.status.success(), "{}", resync.text());
    pair.assert_converges()
}

#[test]
fn mistakes_are_explained() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    for (arguments, word) in [
        (vec!["disconnect", "nothing", "bravo"], "nothing"),
        (vec!["connect", EXPORT, "nobody"], "nobody"),
    ] {
        let outcome = blockmirror(&pair, &arguments)?;
        ensure!(
            !outcome.status.success() && outcome.stderr.contains(word),
            "{arguments:?}: {}",
            outcome.text()
        );
    }
    let binary = tool::binary("blockmirror")?.display().to_string();
    let outcome = tool::run(&binary, &["--admin", "/nowhere/admin", "status"], PROMPT)?;
    ensure!(
        !outcome.status.success() && outcome.stderr.contains("/nowhere/admin"),
        "{}",
        outcome.text()
    );
    Ok(())
}
