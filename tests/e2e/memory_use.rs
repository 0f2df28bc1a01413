//! Resident memory is bounded, whatever the size of the image and the depth of the queue.

use anyhow::{Result, ensure};
use blockmirror_tests::pair::{EXPORT, Pair, Setup};
use blockmirror_tests::raw::command::READ;
use blockmirror_tests::wait::PATIENT;

const MIB: u64 = 1 << 20;
const IDLE_BOUND: u64 = 96 * MIB;
const BUSY_BOUND: u64 = 256 * MIB;
const DEPTH: u64 = 128;
/// 256 MiB of replies that nobody reads, and the daemon itself.
const UNREAD_BOUND: u64 = 352 * MIB;

#[test]
fn a_tebibyte_with_a_peer_stays_within_its_memory() -> Result<()> {
    let mut pair = Pair::new(&Setup {
        size: 1 << 40,
        direct: true,
        ..Setup::default()
    })?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let (idle, _) = pair.primary.running()?.resident_bytes()?;
    let mut raw = pair.primary.open(EXPORT)?;
    let data = vec![3; MIB as usize];
    for _ in 0..4 {
        let cookies = (0..DEPTH)
            .map(|n| raw.send_write(0, n * 64 * MIB, &data))
            .collect::<Result<Vec<_>>>()?;
        for _ in cookies {
            ensure!(raw.reply()?.1 == 0);
        }
    }
    let (_, busy) = pair.primary.running()?.resident_bytes()?;
    println!(
        "resident: {} MiB idle, {} MiB at most with {DEPTH} writes of 1 MiB in flight",
        idle / MIB,
        busy / MIB
    );
    ensure!(
        idle < IDLE_BOUND,
        "{} MiB resident when idle, the promise is {}",
        idle / MIB,
        IDLE_BOUND / MIB
    );
    ensure!(
        busy < BUSY_BOUND,
        "{} MiB resident under load, the promise is {}",
        busy / MIB,
        BUSY_BOUND / MIB
    );
    Ok(())
}

#[test]
fn replies_that_nobody_reads_cost_bounded_memory() -> Result<()> {
    let mut pair = Pair::new(&Setup {
        size: 1 << 30,
        ..Setup::default()
    })?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let mut readers = Vec::new();
    for n in 0..24 {
        let mut raw = pair.primary.open(EXPORT)?;
        raw.request(0, READ, n * 32 * MIB, 32 << 20)?;
        readers.push(raw);
    }
    // Time to read it all, if it were read.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut other = pair.primary.open(EXPORT)?;
    ensure!(
        other.read(0, 4096)?.len() == 4096,
        "a small read is served all the same"
    );
    ensure!(other.write(0, 4096, &[7; 4096])? == 0, "and a write");
    let (_, most) = pair.primary.running()?.resident_bytes()?;
    println!(
        "resident: {} MiB at most with 768 MiB of replies asked for and not read",
        most / MIB
    );
    ensure!(most < UNREAD_BOUND, "{} MiB resident", most / MIB);
    Ok(())
}
