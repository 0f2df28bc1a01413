//! What happens to host writes while a peer is gone: `suspend` holds them, `fail` refuses them. Reads always go on.

use anyhow::{Result, ensure};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::partners::{self, Partners, RESOURCE};
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

#[test]
fn suspend_holds_writes_until_the_peer_is_back() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "on_disconnect = \"suspend\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    pair.relay.cut();
    pair.primary.wait_lost(EXPORT)?;
    let (mut writer, mut reader) = (pair.primary.open(EXPORT)?, pair.primary.open(EXPORT)?);
    let cookie = writer.send_write(0, 4096, &[6; 4096])?;
    wait::until("the write to arrive", PROMPT, || {
        (pair.primary.volume(EXPORT).ok()?.requests_in_flight == 1).then_some(())
    })?;
    for _ in 0..50 {
        ensure!(reader.read(0, 4096)?.len() == 4096, "reads go on");
    }
    ensure!(
        pair.primary.volume(EXPORT)?.requests_in_flight == 1,
        "the write is still held"
    );
    pair.relay.restore();
    ensure!(
        writer.reply()? == (cookie, 0),
        "the write is answered when the peer is back"
    );
    pair.primary.wait_established(EXPORT, PATIENT)?;
    pair.assert_converges()
}

/// Who parts with a partner goes on without it; until then he is told who is waited for, and how he does.
#[test]
fn who_parts_with_a_partner_that_writes_wait_for_goes_on_without_it() -> Result<()> {
    let mut partners = Partners::new(partners::Setup {
        peer: "on_disconnect = \"suspend\"".to_owned(),
        ..partners::Setup::default()
    })?;
    let mut raw = partners.open(0, RESOURCE)?;
    ensure!(raw.write(0, 0, &[5; 4096])? == 0);
    partners.nodes[1].kill();
    let cookie = raw.send_write(0, 4096, &[6; 4096])?;
    wait::until("the write to be held", PROMPT, || {
        (partners.nodes[0].volume(RESOURCE).ok()?.requests_held == 1).then_some(())
    })?;
    ensure!(
        partners.nodes[0].volume(RESOURCE)?.peers[0]
            .waited_for_seconds
            .is_some()
    );
    let told = "writes and flushes of hosts wait for bravo";
    let alerts = partners.resource(0)?.alerts;
    ensure!(alerts.iter().any(|alert| alert.contains(told)), "{alerts:?}");
    let why = partners.nodes[0].why(RESOURCE)?;
    ensure!(
        why.facts
            .iter()
            .any(|fact| fact.contains(told) && fact.ends_with(": 1 request waits")),
        "{why:?}"
    );
    ensure!(why.advice[0].ends_with("`blockmirror disconnect db bravo`"), "{why:?}");
    partners.disconnect(0)?;
    ensure!(raw.reply()? == (cookie, 0), "it goes without the partner");
    ensure!(raw.write(0, 8192, &[7; 4096])? == 0, "and so does what comes next");
    ensure!(
        partners.nodes[0].volume(RESOURCE)?.peers[0]
            .waited_for_seconds
            .is_none()
    );
    partners.nodes[1].restart()?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()?;
    partners.nodes[1].kill();
    let cookie = raw.send_write(0, 12288, &[8; 4096])?;
    wait::until("the write to be held", PROMPT, || {
        (partners.nodes[0].volume(RESOURCE).ok()?.requests_held == 1).then_some(())
    })?;
    partners.nodes[1].restart()?;
    ensure!(raw.reply()? == (cookie, 0), "the partner is back");
    Ok(())
}

#[test]
fn fail_refuses_writes_until_the_peer_is_back() -> Result<()> {
    let pair = Pair::new(&Setup {
        peer: "on_disconnect = \"fail\"",
        ..Setup::default()
    })?;
    pair.assert_converges()?;
    let mut raw = pair.primary.open(EXPORT)?;
    ensure!(raw.write(0, 0, &[1; 4096])? == 0);
    pair.relay.cut();
    pair.primary.wait_lost(EXPORT)?;
    ensure!(
        raw.write(0, 4096, &[6; 4096])? != 0,
        "a write without the peer must fail"
    );
    ensure!(raw.read(0, 4096)? == vec![1; 4096], "reads go on");
    pair.relay.restore();
    pair.primary.wait_established(EXPORT, PATIENT)?;
    ensure!(raw.write(0, 4096, &[7; 4096])? == 0, "writes are accepted again");
    pair.assert_converges()
}
