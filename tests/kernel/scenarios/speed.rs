//! DRBD, md over nbd-server and blockmirror (a mirrored volume, and as a leg of md), on the same two guests and disks of memory, in
//! turn; and nbdkit on the same machine, for what a device costs whose server is a program, before anything is mirrored.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Scenario;
use crate::daemon::{self, PATIENT};
use crate::guest::{Guest, Machine};
use crate::stage::Stage;

/// What a mirror costs, of each of them.
pub const SPEED: Scenario = Scenario {
    name: "speed",
    about: "blockmirror beside DRBD 8.4 (protocol C) and md over nbd-server: medians of runs in turn, and their ratios",
    smoke: false,
    play: speed,
};

/// Every one is run so often.
const ROUNDS: usize = 3;
/// Seconds of a run.
const SECONDS: u64 = 4;

/// Name, fio's words, what counts of its report.
const ROWS: [(&str, &str, &str); 4] = [
    (
        "4 KiB random write, depth 1 (IOPS)",
        "--rw=randwrite --bs=4k --iodepth=1",
        ".jobs[0].write.iops",
    ),
    (
        "4 KiB random write, depth 16 (IOPS)",
        "--rw=randwrite --bs=4k --iodepth=16",
        ".jobs[0].write.iops",
    ),
    (
        "1 MiB sequential write, depth 4 (KiB/s)",
        "--rw=write --bs=1m --iodepth=4",
        ".jobs[0].write.bw",
    ),
    (
        "4 KiB random read, depth 16 (IOPS)",
        "--rw=randread --bs=4k --iodepth=16",
        ".jobs[0].read.iops",
    ),
];
const DEVICES: [(&str, &str); 5] = [
    ("DRBD", "/dev/drbd0"),
    ("md", "/dev/md0"),
    ("blockmirror", "/dev/nbd0"),
    ("blockmirror raid", "/dev/md/leg"),
    ("nbdkit without a mirror", "/dev/nbd15"),
];

fn speed(stage: &Stage) -> Result<()> {
    let (alpha, bravo) = stage.boot_pair(Machine::named("alpha").wired(), Machine::named("bravo").wired())?;
    for guest in [&alpha, &bravo] {
        guest.run("modprobe brd rd_nr=6 rd_size=131072 && modprobe nbd && modprobe drbd")?;
    }
    drbd(&alpha, &bravo)?;
    md(&alpha, &bravo)?;
    blockmirror(&alpha, &bravo)?;
    raid(&alpha, &bravo)?;
    unmirrored(&alpha)?;
    for (row, words, value) in ROWS {
        let mut found = vec![Vec::new(); DEVICES.len()];
        for _ in 0..ROUNDS {
            for (found, (_, device)) in found.iter_mut().zip(DEVICES) {
                found.push(fio(&alpha, device, words, value)?);
            }
        }
        let medians: Vec<f64> = found.into_iter().map(median).collect();
        let texts = DEVICES
            .iter()
            .zip(&medians)
            .map(|((name, _), median)| format!("{name} {median:.0}"));
        stage.note(format!(
            "{row:40} {}; of DRBD: blockmirror {:.2}, blockmirror raid {:.2}; of md: {:.2}, {:.2}; \
             blockmirror of a mirror in the kernel and a program one after the other: {:.2}",
            texts.collect::<Vec<_>>().join(", "),
            medians[2] / medians[0],
            medians[3] / medians[0],
            medians[2] / medians[1],
            medians[3] / medians[1],
            medians[2] * (1.0 / medians[0] + 1.0 / medians[4])
        ));
    }
    Ok(())
}

fn drbd(alpha: &Guest, bravo: &Guest) -> Result<()> {
    for guest in [alpha, bravo] {
        guest.run(
            "cat >/etc/drbd.conf <<'END'
global { usage-count no; }
resource r0 {
  net { protocol C; }
  device /dev/drbd0;
  disk /dev/ram0;
  meta-disk internal;
  on alpha { address 10.0.0.1:7789; }
  on bravo { address 10.0.0.2:7789; }
}
END
            mkdir -p /var/lock /var/lib/drbd && drbdadm create-md --force r0 && drbdadm up r0",
        )?;
    }
    alpha.until("DRBD is connected", PATIENT, "drbdadm cstate r0 | grep Connected")?;
    alpha.run("drbdadm new-current-uuid --clear-bitmap r0/0 && drbdadm primary r0")?;
    alpha.until("DRBD is in step", PATIENT, "drbdadm dstate r0 | grep UpToDate/UpToDate")
}

fn md(alpha: &Guest, bravo: &Guest) -> Result<()> {
    bravo.run(
        "mkdir -p /etc/nbd-server; printf '[generic]\\n[leg]\\nexportname = /dev/ram1\\nflush = true\\nfua = true\\n' >/tmp/nbd-server.conf
        nbd-server -C /tmp/nbd-server.conf",
    )?;
    alpha.until("nbd-server answers", PATIENT, "nbdinfo --size nbd://bravo:10809/leg")?;
    alpha.run(
        "nbd-client -N leg bravo /dev/nbd1 -b 512 -t 10
        mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --bitmap=internal --assume-clean /dev/ram1 --write-mostly /dev/nbd1",
    )?;
    Ok(())
}

/// Partners; nbd-server has the usual port.
fn blockmirror(alpha: &Guest, bravo: &Guest) -> Result<()> {
    for (guest, other, address) in [(alpha, "bravo", "10.0.0.2"), (bravo, "alpha", "10.0.0.1")] {
        guest.run(
            "mkdir -p /run/blockmirror /etc/blockmirror /var/lib/blockmirror
            mkfs.ext4 -q /dev/ram3 && mount /dev/ram3 /var/lib/blockmirror",
        )?;
        let name = guest.machine().name;
        daemon::configure(
            guest,
            &format!(
                r#"name   = "{name}"
admin  = "/run/blockmirror/{name}.sock"
listen = ["unix:/run/blockmirror/{name}-nbd.sock"]
[[listener]]
address   = "tcp:0.0.0.0:10810"
plaintext = "the network is trusted"
[[resource]]
name = "db"
[[resource.volume]]
export   = "db"
image    = "/dev/ram2"
io       = "direct"
metadata = "/var/lib/blockmirror/db.blockmirror"
[[resource.peer]]
name     = "{other}"
uri      = "nbd://{address}:10810"
protocol = "blockmirror"
"#
            ),
        )?;
        daemon::start(guest)?;
    }
    alpha.run("blockmirror promote --force db")?;
    daemon::in_step(alpha, "bravo")?;
    alpha.run("blockmirror attach db /dev/nbd0")?;
    Ok(())
}

/// A disk here, and one there served by blockmirror; written in step, as the others do.
fn raid(alpha: &Guest, bravo: &Guest) -> Result<()> {
    bravo.run(
        "setsid blockmirror-server serve /dev/ram4 --export leg --tcp 0.0.0.0:10811 --trusted-network >/tmp/leg.log 2>&1 </dev/null &",
    )?;
    alpha.until("the leg answers", PATIENT, "nbdinfo --size nbd://bravo:10811/leg")?;
    alpha.run(
        "blockmirror raid create leg --local /dev/ram4 nbd://bravo:10811/leg /dev/nbd2 --assume-clean --write-behind 0",
    )?;
    Ok(())
}

/// The least that a device costs whose server is a program: no network, one disk.
fn unmirrored(alpha: &Guest) -> Result<()> {
    alpha.run("nbdkit -U /tmp/nbdkit.sock file /dev/ram5 >/tmp/nbdkit.log 2>&1 && nbd-client -unix /tmp/nbdkit.sock /dev/nbd15 -b 512")?;
    Ok(())
}

fn fio(guest: &Guest, device: &str, words: &str, value: &str) -> Result<f64> {
    let said = guest.run_for(
        &format!(
            "fio --name=row --filename={device} --ioengine=libaio --direct=1 --size=64m --time_based --runtime={SECONDS} \
             --randrepeat=0 --output-format=json {words} | jq '{value}'"
        ),
        Duration::from_secs(60),
    )?;
    said.trim().parse().with_context(|| format!("fio: {said}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
