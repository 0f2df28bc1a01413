//! A line that is slower than what is written: an array with our leg, and the one that is made by hand of nbd-client and nbd-server.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Scenario;
use crate::guest::{Guest, Machine};
use crate::raid::{self, COPY, FAR, LOCAL, STALL};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;
/// 10 Mbit/s.
const LINE: u64 = 10_000_000 / 8;

/// The link is cut for so long.
const CUT: Duration = Duration::from_secs(30);

/// Ours.
pub const OURS: Scenario = Scenario {
    name: "raid-slow-line",
    about: "24 MiB at once into an array whose line has 10 Mbit/s: it stays whole",
    smoke: false,
    play: ours,
};
/// By hand, with a timeout.
pub const BY_HAND: Scenario = Scenario {
    name: "raid-nbd-server",
    about: "mdadm over nbd-client and nbd-server: whole on a slow line; cut, it stands still, or stays broken (-t 10)",
    smoke: false,
    play: by_hand,
};

fn ours(stage: &Stage) -> Result<()> {
    let (alpha, _bravo) = raid::pair(stage, 64 * MIB)?;
    stage.link.slow(Duration::from_millis(5), LINE);
    let said = raid::create(&alpha, "--assume-clean")?;
    stage.note(said.lines().nth(3).unwrap_or_default().trim().to_owned());
    let standing = fill(&alpha, stage, "/dev/md/data")?;
    ensure!(standing.contains("[UU]"), "{standing}");
    raid::settle(&alpha, LOCAL)?;
    stage.link.restore();
    raid::compare(&alpha, "/dev/md/data")
}

fn by_hand(stage: &Stage) -> Result<()> {
    let alpha = Machine::named("alpha").disk("local", 64 * MIB);
    let (alpha, bravo) = stage.boot_pair(alpha, Machine::named("bravo").disk("far", 64 * MIB))?;
    alpha.run("modprobe nbd nbds_max=2; modprobe raid1; udevadm settle")?;
    bravo.run(&format!(
        "mkdir -p /etc/nbd-server; printf '[generic]\\nuser=root\\ngroup=root\\n[leg]\\nexportname={FAR}\\nflush=true\\nfua=true\\n' >/etc/nbd-server/config
        setsid nbd-server -C /etc/nbd-server/config >/tmp/nbd-server.log 2>&1 </dev/null"
    ))?;
    for timeout in ["", "-t 10"] {
        alpha.run_for(
            &format!(
                "nbd-client -N leg {timeout} bravo /dev/nbd0 2>&1
                mdadm --create /dev/md0 --run --assume-clean --level=1 --raid-devices=2 --bitmap=internal {LOCAL} \
                --write-mostly /dev/nbd0 2>&1"
            ),
            COPY,
        )?;
        stage.link.slow(Duration::from_millis(5), LINE);
        let standing = fill(&alpha, stage, "/dev/md0")?;
        stage.note(format!("nbd-client {timeout}: {standing}"));
        ensure!(standing.contains("[UU]"), "{standing}");
        stage.link.restore();
        cut_by_hand(&alpha, stage, timeout)?;
        alpha.run_for("mdadm --stop /dev/md0 2>&1; nbd-client -d /dev/nbd0 2>&1; sleep 2; mdadm --zero-superblock /dev/disk/by-id/virtio-local", COPY)?;
    }
    Ok(())
}

/// Without a timeout writes wait as long as the link is cut; with one the leg fails, and nobody brings it back.
fn cut_by_hand(alpha: &Arc<Guest>, stage: &Stage, timeout: &str) -> Result<()> {
    stage.link.cut();
    let write = alpha.start(
        "begin=$(date +%s%3N); dd if=/dev/urandom of=/dev/md0 bs=64k count=16 oflag=direct 2>/dev/null; echo $(($(date +%s%3N) - begin))",
        STALL,
    );
    sleep(CUT);
    stage.link.restore();
    let took = Duration::from_millis(write.join()?.parse()?);
    sleep(Duration::from_secs(10));
    let standing = alpha.run("grep -A1 ^md /proc/mdstat | tr '\\n' ' '")?;
    stage.note(format!(
        "nbd-client {timeout}, link cut for {} s: 1 MiB took {:.1} s, 10 s later {standing}",
        CUT.as_secs(),
        took.as_secs_f64()
    ));
    let is_whole = standing.contains("[UU]");
    if timeout.is_empty() {
        ensure!(is_whole && took >= CUT, "{standing}");
    } else {
        ensure!(!is_whole && took < CUT, "{standing}");
    }
    Ok(())
}

/// A filesystem, and 24 MiB in it at once; how the array is afterwards.
fn fill(alpha: &Guest, stage: &Stage, array: &str) -> Result<String> {
    alpha.run_for(
        &format!("mkfs.ext4 -q {array}; mkdir -p /mnt/a; mount -o async {array} /mnt/a"),
        COPY,
    )?;
    let begin = Instant::now();
    alpha.run_for(
        "dd if=/dev/urandom of=/mnt/a/file bs=1M count=24 2>&1; sync /mnt/a/file",
        COPY,
    )?;
    stage.note(format!("24 MiB and a sync: {:.1} s", begin.elapsed().as_secs_f64()));
    let standing = alpha.run("grep -A1 ^md /proc/mdstat | tr '\\n' ' '; dmesg | grep -E 'nbd0.*(timed out|Connection)|raid1.*Disk failure' | tail -n 3 || true")?;
    alpha.run_for("umount /mnt/a", COPY)?;
    Ok(standing)
}
