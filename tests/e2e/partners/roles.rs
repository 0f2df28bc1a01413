//! Who may serve hosts, and how that moves.

use anyhow::{Result, ensure};
use blockmirror_client::admin::{Order, Role};
use blockmirror_tests::namespaces;
use blockmirror_tests::partners::{Partners, Setup, assert_refused};
use blockmirror_tests::raw::errno;
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

use super::{VOLUME, expect, fill, partners};

#[test]
fn a_fresh_pair_waits_for_the_word_whose_data_is_good() -> Result<()> {
    let partners = Partners::fresh(Setup::default())?;
    ensure!(partners.role(0)? == Role::Secondary && partners.role(1)? == Role::Secondary);
    assert_refused(partners.promote(0), "--force")?;
    partners.promote_whatever(0)?;
    partners.wait_in_step(0, PATIENT)
}

#[test]
fn an_answered_write_is_on_both_nodes() -> Result<()> {
    let partners = partners()?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 3, 200, 7)?;
    // Not even a flush is needed: the page caches of both have it.
    partners.assert_identical()
}

#[test]
fn a_secondary_refuses_hosts_and_names_the_primary() -> Result<()> {
    let partners = partners()?;
    let error = format!(
        "{:#}",
        partners
            .open(1, VOLUME)
            .err()
            .map_or_else(String::new, |error| error.to_string())
    );
    let log = partners.nodes[1].log();
    ensure!(!error.is_empty(), "the host was let in");
    ensure!(log.contains("alpha") || error.contains("alpha"), "{error}\n{log}");
    Ok(())
}

#[test]
fn a_read_only_secondary_lets_hosts_read_and_nothing_else() -> Result<()> {
    let partners = Partners::new(Setup {
        resource: "read_only_secondary = true".to_owned(),
        ..Setup::default()
    })?;
    fill(&mut partners.open(0, VOLUME)?, 0, 8, 5)?;
    let mut raw = partners.open(1, VOLUME)?;
    expect(&mut raw, 0, 8, 5)?;
    ensure!(raw.write(0, 0, &[1; 512])? == errno::PERM);
    partners.assert_identical()
}

#[test]
fn a_switchover_loses_nothing_and_needs_no_resync() -> Result<()> {
    let partners = partners()?;
    for round in 0..4_u8 {
        let (old, new) = (usize::from(round % 2), usize::from(1 - round % 2));
        fill(&mut partners.open(old, VOLUME)?, u64::from(round) * 50, 50, round + 1)?;
        partners.promote(new)?;
        ensure!(partners.role(new)? == Role::Primary);
        let mut raw = partners.open(new, VOLUME)?;
        for earlier in 0..=round {
            expect(&mut raw, u64::from(earlier) * 50, 50, earlier + 1)?;
        }
        partners.wait_in_step(new, PATIENT)?;
        let peer = partners.nodes[new].peer(VOLUME)?;
        ensure!(
            peer.last_resync.is_none_or(|resync| resync.copied_bytes == 0),
            "the switchover copied"
        );
    }
    partners.assert_identical()
}

#[test]
fn a_takeover_after_kill_9_of_the_primary_has_every_answered_write_and_loses_none() -> Result<()> {
    let mut partners = partners()?;
    let mut raw = partners.open(0, VOLUME)?;
    fill(&mut raw, 0, 300, 9)?;
    partners.nodes[0].kill();
    wait::until("the takeover", PROMPT, || partners.promote(1).ok())?;
    let mut raw = partners.open(1, VOLUME)?;
    expect(&mut raw, 0, 300, 9)?;
    fill(&mut raw, 100, 300, 10)?;
    partners.nodes[0].restart()?;
    partners.wait_in_step(1, PATIENT)?;
    partners.assert_identical()
}

#[test]
fn a_primary_that_is_restarted_resumes_its_role() -> Result<()> {
    let mut partners = partners()?;
    fill(&mut partners.open(0, VOLUME)?, 0, 20, 1)?;
    partners.nodes[0].stop()?;
    partners.nodes[0].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    expect(&mut partners.open(0, VOLUME)?, 0, 20, 1)
}

#[test]
fn promoting_without_contact_names_the_loss_and_wants_it_quoted_back() -> Result<()> {
    if !namespaces::possible("a lost contact") {
        return Ok(());
    }
    let partners = Partners::new(Setup {
        namespaces: true,
        peer: "heartbeat = \"100ms\"\ndead_after = \"500ms\"".to_owned(),
        ..Setup::default()
    })?;
    fill(&mut partners.open(0, VOLUME)?, 0, 20, 1)?;
    let link = partners.link.as_ref().expect("they are in namespaces");
    link.cut()?;
    wait::until("the loss", PROMPT, || (!partners.is_connected(1)).then_some(()))?;
    assert_refused(partners.promote(1), "did not hand over")?;
    ensure!(partners.role(1)? == Role::Secondary);
    partners.promote_whatever(1)?;
    ensure!(partners.role(1)? == Role::Primary);
    Ok(())
}

#[test]
fn why_tells_the_rule_and_what_to_do() -> Result<()> {
    let partners = partners()?;
    let why = partners.nodes[1].why("db")?;
    ensure!(why.role == Role::Secondary && !why.role_because.is_empty());
    let handshake = why.handshakes.first().map(|handshake| &handshake.volumes);
    let decision = handshake.and_then(|volumes| volumes.first());
    ensure!(decision.is_some_and(|decision| !decision.rule.is_empty() && !decision.because.is_empty()));
    let stop = Order::VerifyStop {
        name: "db".to_owned(),
        peer: None,
    };
    assert_refused(
        partners.nodes[0].order(&stop).map(drop),
        "no comparison of \"db\" is under way",
    )?;
    Ok(())
}
