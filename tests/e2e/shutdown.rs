//! Ends that are asked for: what is in flight is finished; and clients that go without a word.

use anyhow::{Result, ensure};
use blockmirror_tests::compare;
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::{self, PATIENT, PROMPT};
use nix::sys::signal::Signal;

#[test]
fn requests_in_flight_are_answered_before_the_daemon_ends() -> Result<()> {
    let mut pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    pair.relay.delay(std::time::Duration::from_millis(100));
    let mut raw = pair.primary.open(EXPORT)?;
    let cookies = (0..16_u64)
        .map(|n| raw.send_write(0, n * 4096, &[n as u8 + 1; 4096]))
        .collect::<Result<Vec<_>>>()?;
    wait::until("the writes to arrive", PROMPT, || {
        (pair.primary.volume(EXPORT).ok()?.requests_in_flight == 16).then_some(())
    })?;
    pair.primary.signal(Signal::SIGTERM)?;
    let mut answered = Vec::new();
    for _ in &cookies {
        let (cookie, error) = raw.reply()?;
        ensure!(error == 0, "request {cookie}: error {error}");
        answered.push(cookie);
    }
    answered.sort_unstable();
    ensure!(answered == cookies, "{answered:?} of {cookies:?} were answered");
    ensure!(raw.is_closed(), "the connection is closed afterwards");
    let status = pair.primary.wait_exit()?;
    ensure!(status.success(), "{status}:\n{}", pair.primary.log());
    compare::assert_identical(&pair.image, &pair.remote_image)
}

#[test]
fn a_client_that_dies_mid_request_leaves_nothing_behind() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    for n in 0..50 {
        let mut raw = pair.primary.open(EXPORT)?;
        // Whole requests, and half of one more: header only, or some of the payload.
        raw.send_write(0, n * 8192, &[1; 4096])?;
        raw.request(0, blockmirror_tests::raw::command::READ, 0, 1 << 20)?;
        raw.request(0, blockmirror_tests::raw::command::WRITE, n * 8192, 1 << 20)?;
        raw.send(&vec![2; (n as usize) * 1000])?;
    }
    wait::until("every trace to be gone", PROMPT, || {
        let volume = pair.primary.volume(EXPORT).ok()?;
        ((volume.connections, volume.requests_in_flight, volume.bytes_in_flight) == (0, 0, 0)).then_some(())
    })?;
    pair.assert_converges()
}

#[test]
fn a_restart_finds_its_sockets_free() -> Result<()> {
    let mut pair = Pair::new(&Setup::default())?;
    for _ in 0..3 {
        pair.primary.kill();
        pair.primary.restart()?;
    }
    pair.primary.stop()?;
    ensure!(!pair.primary.socket().exists(), "a clean end removes the NBD socket");
    ensure!(
        !pair.primary.admin_socket().exists(),
        "a clean end removes the admin socket"
    );
    Ok(())
}
