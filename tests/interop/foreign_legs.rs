//! The remote leg on other people's servers: load, a cut, more load, a resync, and both images identical.

use std::path::Path;

use anyhow::{Result, ensure};
use blockmirror_client::admin::{LinkKind, Role};
use blockmirror_tests::compare;
use blockmirror_tests::foreign::Foreign;
use blockmirror_tests::interop::legs::{
    LEG, SIZE, cut_and_resync, identical_after_cut, identical_after_deaths, uri_of,
};
use blockmirror_tests::load::{BLOCK, Load};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::tool;
use blockmirror_tests::wait::{PATIENT, PROMPT};

#[test]
fn leg_on_nbdkit_file() -> Result<()> {
    identical_after_cut(&Setup::default(), |folder, image| {
        Foreign::nbdkit_file(folder, image, &[], &[])
    })
}

#[test]
fn leg_on_nbdkit_memory() -> Result<()> {
    let pair = Pair::with_foreign(&Setup::default(), LEG, |folder, _| Foreign::nbdkit_memory(folder, SIZE))?;
    cut_and_resync(&pair)?;
    let copy = pair.scratch.join("memory.img");
    tool::check(
        "nbdcopy",
        &[&uri_of(&pair.remote), &copy.display().to_string()],
        PATIENT,
    )?;
    compare::assert_identical(&pair.image, &copy)
}

#[test]
fn leg_on_a_slow_nbdkit() -> Result<()> {
    identical_after_cut(&Setup::default(), |folder, image| {
        Foreign::nbdkit_file(folder, image, &["--filter=delay"], &["wdelay=5ms", "delay-zero=20ms"])
    })
}

#[test]
fn leg_on_nbdkit_without_zeroing() -> Result<()> {
    identical_after_cut(&Setup::default(), |folder, image| {
        Foreign::nbdkit_file(folder, image, &["--filter=nozero"], &["zeromode=none"])
    })
}

#[test]
fn leg_on_qemu_storage_daemon() -> Result<()> {
    identical_after_cut(&Setup::default(), Foreign::qemu_storage_daemon)
}

#[test]
fn leg_on_qemu_nbd() -> Result<()> {
    identical_after_cut(&Setup::default(), Foreign::qemu_nbd)
}

#[test]
fn leg_on_nbd_server() -> Result<()> {
    identical_after_cut(&Setup::default(), Foreign::nbd_server)
}

/// Nobody says what is there: the server is asked for a stream, says that it knows none, and is mirrored to as it is.
fn found_out(serve: impl FnOnce(&Path, &Path) -> Result<Foreign>) -> Result<()> {
    let setup = Setup {
        peer: "protocol = \"auto\"",
        ..Setup::default()
    };
    let mut pair = Pair::with_foreign(&setup, LEG, serve)?;
    let peer = pair.primary.wait_established(EXPORT, PATIENT)?;
    ensure!(peer.link == LinkKind::Nbd, "{peer:?}");
    ensure!(pair.primary.resource(EXPORT)?.role == Some(Role::Primary));
    cut_and_resync(&pair)?;
    pair.assert_converges()?;
    // It is remembered: there is nothing to wait for.
    pair.kill_remote();
    pair.primary.restart()?;
    ensure!(pair.primary.resource(EXPORT)?.role == Some(Role::Primary));
    pair.restart_remote()?;
    pair.assert_converges()
}

#[test]
fn nbdkit_is_found_out() -> Result<()> {
    found_out(|folder, image| Foreign::nbdkit_file(folder, image, &[], &[]))
}

#[test]
fn qemu_storage_daemon_is_found_out() -> Result<()> {
    found_out(Foreign::qemu_storage_daemon)
}

#[test]
fn qemu_nbd_is_found_out() -> Result<()> {
    found_out(Foreign::qemu_nbd)
}

#[test]
fn nbd_server_is_found_out() -> Result<()> {
    found_out(Foreign::nbd_server)
}

#[test]
fn async_leg_on_nbdkit_file() -> Result<()> {
    let setup = Setup {
        peer: "mode = \"async\"",
        ..Setup::default()
    };
    identical_after_cut(&setup, |folder, image| Foreign::nbdkit_file(folder, image, &[], &[]))
}

#[test]
fn a_leg_that_answers_with_errors_is_retried_until_it_does_not() -> Result<()> {
    let setup = Setup::default();
    let pair = Pair::with_foreign(&setup, LEG, |folder, image| {
        let switch = format!("error-file={}/errors", folder.display());
        let parameters = ["error=EIO", "error-pwrite-rate=20%", "error-zero-rate=20%", &switch];
        Foreign::nbdkit_file(folder, image, &["--filter=error"], &parameters)
    })?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let switch = pair.scratch.join("errors");
    let mut load = Load::new(SIZE / BLOCK, 16, 12);
    let mut raw = pair.primary.open(EXPORT)?;
    std::fs::write(&switch, "")?;
    load.run(&mut raw, |load| load.writes >= 500)?;
    let peer = pair
        .primary
        .wait_peer(EXPORT, "an error of the peer", PROMPT, |peer| peer.last_error.is_some())?;
    ensure!(
        peer.dirty_bytes > 0 || peer.last_resync.is_some(),
        "an error left no trace: {peer:?}"
    );
    std::fs::remove_file(&switch)?;
    load.run(&mut raw, |load| load.writes >= 800)?;
    load.flush(&mut raw)?;
    ensure!(load.verify(&mut raw)? == 0);
    pair.assert_converges()
}

#[test]
fn a_killed_foreign_server_is_resynchronised() -> Result<()> {
    identical_after_deaths(|folder, image| Foreign::nbdkit_file(folder, image, &[], &[]))
}
