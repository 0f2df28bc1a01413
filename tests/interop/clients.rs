//! nbdinfo, nbdcopy, qemu-img, qemu-io and fio against an export. All of them, and more, are in `scripts/interop`.

use std::time::Duration;

use anyhow::Result;
use blockmirror_tests::interop::programs::{
    Served, fio_verifies, nbdcopy_both_ways, nbdinfo_describes, nbdinfo_lists, qemu_img_converts, qemu_io,
};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::wait::PATIENT;

/// On a Unix socket and on TCP.
fn both_ways(act: impl Fn(&Served, &str) -> Result<()>) -> Result<()> {
    let served = Served::new("")?;
    served.uris().iter().try_for_each(|uri| act(&served, uri))
}

#[test]
fn nbdinfo_sees_the_export() -> Result<()> {
    both_ways(|_, uri| {
        nbdinfo_describes(uri)?;
        nbdinfo_lists(uri)
    })
}

#[test]
fn nbdcopy_copies_both_ways() -> Result<()> {
    both_ways(nbdcopy_both_ways)
}

#[test]
fn qemu_img_and_qemu_io_agree() -> Result<()> {
    both_ways(|served, uri| {
        qemu_img_converts(served, uri)?;
        qemu_io(served, uri)
    })
}

#[test]
fn fio_verifies_over_a_unix_socket() -> Result<()> {
    fio_verifies(&Served::new("")?.uris()[0], &[])
}

#[test]
fn fio_verifies_over_tcp() -> Result<()> {
    fio_verifies(&Served::new("")?.uris()[1], &[])
}

#[test]
fn fio_verifies_direct_io_with_odd_sizes() -> Result<()> {
    let served = Served::new("io = \"direct\"")?;
    let [uri, _] = served.uris();
    fio_verifies(&uri, &[])?;
    fio_verifies(&uri, &["--bsrange=512-20480", "--bs_unaligned=0", "--blockalign=512"])
}

#[test]
fn fio_verifies_a_mirror_through_a_cut() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let uri = pair.primary.uri(EXPORT);
    std::thread::scope(|scope| {
        let fio = scope.spawn(|| fio_verifies(&uri, &["--rate_iops=4000"]));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            pair.relay.cut();
            std::thread::sleep(Duration::from_millis(300));
            pair.relay.restore();
        }
        fio.join().map_err(|_| anyhow::anyhow!("fio's thread panicked"))?
    })?;
    pair.assert_converges()
}
