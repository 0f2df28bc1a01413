//! A host that follows its volume from node to node by a list of URIs. How long that takes is measured by
//! `scripts/bench --failover`; here it only has to work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blockmirror_client::client::{Access, FailoverClient, Patience};
use blockmirror_client::uri::UriList;
use blockmirror_tests::partners::Partners;
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

use super::{VOLUME, content, partners};

#[test]
fn a_host_with_a_list_of_uris_follows_switchovers_and_takeovers_and_loses_no_answered_write() -> Result<()> {
    let mut partners = partners()?;
    let host = Host::start(&partners)?;
    for new in [1, 0, 1] {
        host.wait_progress()?;
        partners.promote(new)?;
        partners.wait_in_step(new, PATIENT)?;
    }
    host.wait_progress()?;
    partners.nodes[1].kill();
    wait::until("the takeover", PROMPT, || partners.promote(0).ok())?;
    host.wait_progress()?;
    let written = host.finish()?;
    let mut raw = partners.open(0, VOLUME)?;
    for block in 0..written.min(BLOCKS) {
        let last = (written - 1 - block) / BLOCKS * BLOCKS + block;
        ensure!(raw.read(block * 4096, 4096)? == content(last, 1), "block {block}");
    }
    partners.nodes[1].restart()?;
    partners.wait_in_step(0, PATIENT)?;
    partners.assert_identical()
}

const BLOCKS: u64 = 256;

/// Writes one block after the other, round and round, each with its number.
struct Host {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Host {
    fn start(partners: &Partners) -> Result<Self> {
        let uris: UriList = partners.uris(VOLUME, 0).join(",").parse()?;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let client = FailoverClient::connect(&uris, Access::ReadWrite, Patience::default()).await?;
                while !ends.load(Ordering::Relaxed) {
                    let number = counts.load(Ordering::Relaxed);
                    client.write(number % BLOCKS * 4096, &content(number, 1), false).await?;
                    counts.store(number + 1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Ok(Self { stop, written, thread })
    }

    fn wait_progress(&self) -> Result<()> {
        let before = self.written.load(Ordering::Relaxed);
        let more = || (self.written.load(Ordering::Relaxed) > before + 50).then_some(());
        wait::until("the host to go on", Duration::from_secs(20), more)
    }

    /// How many were answered.
    fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the host panicked")??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}
