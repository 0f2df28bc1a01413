//! `blockmirror attach`: an export as a device, in every shape it can have.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Scenario;
use crate::daemon;
use crate::device::{self, DEVICE};
use crate::guest::{Guest, Machine};
use crate::stage::Stage;

/// mkfs, mount, a load that verifies, fstrim and a growth, on ext4 and xfs, by all ways of attaching.
pub const SHAPES: Scenario = Scenario {
    name: "attach-shapes",
    about: "ext4 and xfs over 1 and 4 connections, blocks of 512 and 4096: mkfs, mount, verify, fstrim, resize",
    smoke: false,
    play: shapes,
};
/// The same by the kernel's own tool.
pub const NBD_CLIENT: Scenario = Scenario {
    name: "nbd-client",
    about: "the same by nbd-client",
    smoke: false,
    play: nbd_client,
};
/// The smallest of them.
pub const SMOKE: Scenario = Scenario {
    name: "attach",
    about: "a device by netlink: shape, flush, discard, identity, refusals, detach",
    smoke: true,
    play: smoke,
};

const SIZE: u64 = 384 << 20;

/// `bravo` serves a disk, `alpha` is to use it.
fn nodes(stage: &Stage) -> Result<(std::sync::Arc<Guest>, std::sync::Arc<Guest>)> {
    let (alpha, bravo) = stage.boot_pair(
        Machine::named("alpha").cpus(2),
        Machine::named("bravo").disk("data", SIZE),
    )?;
    device::driver(&alpha)?;
    Ok((alpha, bravo))
}

fn smoke(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    let shape = alpha.run(
        "cd /sys/block/nbd0; echo $(cat size backend queue/logical_block_size queue/write_cache queue/fua ro) $(ls mq | wc -l)
        test $(cat queue/discard_max_bytes) -gt 0
        udevadm settle; readlink -f /dev/disk/by-blockmirror/db; cat queue/scheduler",
    )?;
    stage.note(shape.replace('\n', "; "));
    for expected in [
        &format!("{} nbd://bravo:10809/db 512 write back 1 0 2", SIZE / 512),
        DEVICE,
        "[none]",
    ] {
        ensure!(shape.contains(expected), "{shape}: no {expected}");
    }
    // The same again is no mistake, and something else is told what is there.
    let again = device::attach(&alpha, "nbd://bravo/db", "--connections 4")?;
    ensure!(again.contains("already"), "{again}");
    let other = alpha.refuses(&format!("blockmirror attach nbd://bravo/other {DEVICE}"))?;
    ensure!(other.contains("nbd://bravo:10809/db"), "{other}");
    alpha.run_for(&device::load(5, ""), Duration::from_secs(90))?;
    alpha.run(&format!("mkswap {DEVICE} && swapon {DEVICE}"))?;
    let swapped = alpha.refuses(&format!("blockmirror detach {DEVICE}"))?;
    ensure!(swapped.contains("swapoff"), "{swapped}");
    alpha.run(&format!("swapoff {DEVICE}; mkfs.ext4 -q {DEVICE}; mount {DEVICE} /mnt"))?;
    let mounted = alpha.refuses(&format!("blockmirror detach {DEVICE}"))?;
    ensure!(mounted.contains("mounted on /mnt"), "{mounted}");
    alpha.run("umount /mnt")?;
    device::detach(&alpha)?;
    let gone = alpha.refuses(&format!("blockmirror detach {DEVICE}"))?;
    ensure!(gone.contains("not attached"), "{gone}");
    // At once again, while the process that kept it may not have ended yet.
    device::attach(&alpha, "nbd://bravo/db", "")?;
    device::detach(&alpha)?;
    alpha.no_io_error()
}

fn shapes(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    for (at, (connections, block, filesystem)) in
        [(1, 512, "ext4"), (4, 512, "xfs"), (1, 4096, "xfs"), (4, 4096, "ext4")]
            .into_iter()
            .enumerate()
    {
        // A new image each time, that can grow.
        daemon::plain(&bravo, &format!("/tmp/db{at}.img"), "320MiB")?;
        device::attach(
            &alpha,
            "nbd://bravo/db",
            &format!("--connections {connections} --block-size {block}"),
        )?;
        let own = alpha.run("cat /sys/block/nbd0/queue/logical_block_size; ls /sys/block/nbd0/mq | wc -l")?;
        // The kernel makes no more queues than there are processors: what is more is for when others fail.
        ensure!(own == format!("{block}\n{}", connections.min(2)), "{own}");
        use_filesystem(&alpha, filesystem)?;
        bravo.run("blockmirror resize db 360MiB")?;
        grow(&alpha, filesystem)?;
        alpha.run(&format!("umount /mnt; {}", check(filesystem)))?;
        device::detach(&alpha)?;
        daemon::stop(&bravo, "TERM")?;
        bravo.run(&format!("rm /tmp/db{at}.img*"))?;
        stage.note(format!(
            "{filesystem}, {connections} connections, blocks of {block}: clean, grown"
        ));
    }
    alpha.no_io_error()
}

fn nbd_client(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = nodes(stage)?;
    daemon::serve(&bravo, "/dev/disk/by-id/virtio-data", "db", "")?;
    for (connections, block, filesystem) in [(1, 512, "ext4"), (4, 512, "xfs"), (1, 4096, "xfs"), (4, 4096, "ext4")] {
        alpha.run(&format!(
            "nbd-client -N db bravo {DEVICE} -connections {connections} -block-size {block} -timeout 10"
        ))?;
        use_filesystem(&alpha, filesystem)?;
        alpha.run(&format!(
            "umount /mnt; {}; sync; udevadm settle; nbd-client -d {DEVICE}",
            check(filesystem)
        ))?;
        alpha.until(
            "the device is gone",
            daemon::PATIENT,
            "test $(cat /sys/block/nbd0/size) = 0",
        )?;
        stage.note(format!(
            "{filesystem}, {connections} connections, blocks of {block}: clean"
        ));
    }
    alpha.no_io_error()
}

/// A filesystem that is made, filled, verified and trimmed; it stays mounted.
fn use_filesystem(alpha: &Guest, filesystem: &str) -> Result<()> {
    let force = if filesystem == "xfs" { "-f" } else { "-F" };
    let script = format!(
        "mkfs.{filesystem} -q {force} {DEVICE}; mount {DEVICE} /mnt
        fio --name=files --directory=/mnt --rw=randwrite --bsrange=4k-64k --serialize_overlap=1 --size=8m --nrfiles=4 --numjobs=2 \
            --ioengine=libaio --direct=1 --iodepth=8 --end_fsync=1 --verify=crc32c --do_verify=1 --verify_fatal=1 >/tmp/fio.log
        dd if=/dev/urandom of=/mnt/data bs=1M count=16 conv=fsync 2>/dev/null; sha256sum /mnt/data >/mnt/sum
        rm /mnt/files*; sync; fstrim -v /mnt
        umount /mnt; mount {DEVICE} /mnt; sha256sum -c --quiet /mnt/sum"
    );
    alpha.run_for(&script, Duration::from_secs(180))?;
    Ok(())
}

/// The device has grown by itself; now what is on it does.
fn grow(alpha: &Guest, filesystem: &str) -> Result<()> {
    let sectors = (360 << 20) / 512;
    alpha.until(
        "the device has grown",
        daemon::PATIENT,
        &format!("test $(cat /sys/block/nbd0/size) = {sectors}"),
    )?;
    let grow = if filesystem == "xfs" {
        "xfs_growfs /mnt"
    } else {
        "resize2fs /dev/nbd0"
    };
    alpha.run(&format!(
        "before=$(stat -f -c %b /mnt); {grow} 2>&1; test $(stat -f -c %b /mnt) -gt $before; sha256sum -c --quiet /mnt/sum"
    ))?;
    Ok(())
}

fn check(filesystem: &str) -> String {
    match filesystem {
        "xfs" => format!("xfs_repair -n {DEVICE} >/dev/null 2>&1"),
        _ => format!("e2fsck -fn {DEVICE} >/dev/null"),
    }
}
