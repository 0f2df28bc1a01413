//! The `blockmirror` command and the client library on other people's servers, and on our own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use blockmirror_client::client::Client;
use blockmirror_client::connect::Wishes;
use blockmirror_tests::compare;
use blockmirror_tests::foreign::Foreign;
use blockmirror_tests::interop::legs::{LEG, same_look};
use blockmirror_tests::interop::programs::Served;
use blockmirror_tests::pair::{EXPORT, Pair, Setup, seed};
use blockmirror_tests::raw::command;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PATIENT;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// Size of a volume with room for long zeroes.
const LARGE: u64 = 512 * MIB;

/// An image with data at its beginning, at odd places, and nowhere else.
fn sparse(scratch: &Scratch, size: u64) -> Result<std::path::PathBuf> {
    let image = scratch.sparse_file("sparse.img", size)?;
    seed(&image, 3 * MIB)?;
    let file = File::options().write(true).open(&image)?;
    for place in [7 * MIB + 123, 20 * MIB, 40 * MIB - 1] {
        file.write_all_at(b"data", place)?;
    }
    file.sync_all()?;
    Ok(image)
}

/// Everything about one export: as nbdinfo sees it, and copied as it is.
fn looked_at_and_copied(image: &Path, uri: &str) -> Result<()> {
    same_look(uri)?;
    let scratch = Scratch::new()?;
    let target = scratch.sparse_file("target.img", image.metadata()?.len())?;
    // What is there before must be gone where the source has zeroes.
    seed(&target, 10 * MIB)?;
    let to = Foreign::qemu_nbd(scratch.path(), &target)?;
    let program = tool::binary("blockmirror")?.display().to_string();
    tool::check(&program, &["copy", uri, &to.uri()], PATIENT)?;
    compare::assert_identical(image, &target)
}

fn with(serve: impl FnOnce(&Path, &Path) -> Result<Foreign>) -> Result<()> {
    let scratch = Scratch::new()?;
    let image = sparse(&scratch, 64 * MIB)?;
    let server = serve(scratch.path(), &image)?;
    looked_at_and_copied(&image, &server.uri())
}

#[test]
fn exports_of_nbdkit() -> Result<()> {
    with(|folder, image| Foreign::nbdkit_file(folder, image, &[], &[]))
}

#[test]
fn exports_of_nbdkit_without_structured_replies() -> Result<()> {
    with(|folder, image| Foreign::nbdkit_file(folder, image, &["--no-sr"], &[]))
}

#[test]
fn exports_of_nbd_server() -> Result<()> {
    with(Foreign::nbd_server)
}

#[test]
fn exports_of_qemu_storage_daemon() -> Result<()> {
    with(Foreign::qemu_storage_daemon)
}

#[test]
fn exports_of_qemu_nbd() -> Result<()> {
    with(Foreign::qemu_nbd)
}

#[test]
fn exports_of_our_own() -> Result<()> {
    let served = Served::new("")?;
    seed(&served.image(), 3 * MIB)?;
    served
        .uris()
        .iter()
        .try_for_each(|uri| looked_at_and_copied(&served.image(), uri))
}

/// nbdkit cuts READs of this disk into data and holes.
#[test]
fn holes_in_reads_are_zeroes() -> Result<()> {
    let scratch = Scratch::new()?;
    let server = Foreign::nbdkit(
        scratch.path(),
        "sparse-random",
        &[],
        &["size=64M", "seed=7", "percent=40"],
    )?;
    let (theirs, ours) = (scratch.join("theirs.img"), scratch.sparse_file("ours.img", 64 * MIB)?);
    tool::check("nbdcopy", &[&server.uri(), &theirs.display().to_string()], PATIENT)?;
    let file = File::options().write(true).open(&ours)?;
    runtime()?.block_on(async {
        let client = Client::connect(&server.uri().parse()?).await?;
        for at in (0..64 * MIB).step_by(5 << 20) {
            let length = (64 * MIB - at).min(5 << 20);
            file.write_all_at(&client.read(at, length as usize).await?, at)?;
        }
        anyhow::Ok(client.disconnect().await?)
    })?;
    compare::assert_identical(&theirs, &ours)
}

/// Ranges that compact headers have no room for, on a server that is not ours.
#[test]
fn qemu_takes_lengths_of_64_bits() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("large.img", TIB)?;
    seed(&image, MIB)?;
    let server = Foreign::qemu_nbd(scratch.path(), &image)?;
    runtime()?.block_on(async {
        let context = "base:allocation";
        let wishes = Wishes {
            contexts: vec![context.to_owned()],
            ..Wishes::default()
        };
        let client = Client::connect_wishing(&server.uri().parse()?, &wishes, PATIENT).await?;
        let replies = format!("{:?}", client.limits().replies);
        ensure!(replies == "Extended", "{replies}: is QEMU older than 8.2?");
        let before = client.status(context, 0, TIB).await?;
        ensure!(before.len() == 2 && before[1].length == TIB - MIB, "{before:?}");
        client.write(TIB - 4096, &[7; 4096], true).await?;
        client.zero(0, TIB - 4096, false, false).await?;
        client.trim(4096, TIB - 8192, false).await?;
        let after = client.status(context, 0, TIB).await?;
        ensure!(after.len() == 2 && after[0].length == TIB - 4096, "{after:?}");
        ensure!(client.read(TIB - 4096, 4096).await? == [7; 4096]);
        anyhow::Ok(client.disconnect().await?)
    })
}

/// Zeroes of a length that is asked of the leg as fast ones, where it offers that.
fn long_zeroes(serve: impl FnOnce(&Path, &Path) -> Result<Foreign>) -> Result<()> {
    let setup = Setup {
        size: LARGE,
        seeded: 200 * MIB,
        ..Setup::default()
    };
    let pair = Pair::with_foreign(&setup, LEG, serve)?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut raw = pair.primary.open(EXPORT)?;
    for (command, offset, length) in [
        (command::WRITE_ZEROES, MIB, 150 * MIB),
        (command::TRIM, 160 * MIB, LARGE - 170 * MIB),
    ] {
        ensure!(raw.call(0, command, offset, u32::try_from(length)?)? == 0);
    }
    ensure!(raw.write(0, 20 * MIB, &[5; 8192])? == 0);
    raw.flush()?;
    pair.assert_converges()
}

#[test]
fn long_zeroes_are_fast_on_qemu_nbd() -> Result<()> {
    long_zeroes(Foreign::qemu_nbd)
}

/// It offers FAST_ZERO and refuses it every time.
#[test]
fn long_zeroes_are_asked_for_again_where_they_are_not_fast() -> Result<()> {
    long_zeroes(|folder, image| {
        let parameters = ["zeromode=notrim", "fastzeromode=slow"];
        Foreign::nbdkit_file(folder, image, &["--filter=nozero"], &parameters)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
