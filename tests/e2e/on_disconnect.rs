//! What happens to host writes while a peer is gone: `suspend` holds them, `fail` refuses them. Reads always go on.

use anyhow::{Result, ensure};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
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
