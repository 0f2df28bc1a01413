//! The tables of `scripts/bench --resync`.

use std::time::Duration;

use blockmirror_client::admin::ResyncStatus;

use super::Pass;
use super::crash::Crash;
use super::hosts::Felt;

/// Of the slower of link and disk.
const SPEED_GOAL: f64 = 0.9;
/// Of what hosts had before.
const HOSTS_GOAL: f64 = 2.0;
const MILLION: f64 = 1e6;

/// How fast: a row per link.
pub(super) fn speed(rows: &[(String, Vec<Pass>)]) {
    println!("## Speed\n");
    println!("| link | link MB/s | disk MB/s | sent MB | seconds | sent MB/s | of the slower | wanted | |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
    for (name, passes) in rows {
        let of = |figure: &dyn Fn(&Pass) -> f64| median(passes.iter().map(figure));
        let rate = |pass: &Pass| pass.resync.copied_bytes as f64 / pass.resync.elapsed_seconds;
        let ratio = of(&|pass| rate(pass) / pass.link.min(pass.disk));
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} | {ratio:.2} | {SPEED_GOAL} | {} |",
            of(&|pass| pass.link) / MILLION,
            of(&|pass| pass.disk) / MILLION,
            of(&|pass| pass.resync.copied_bytes as f64) / MILLION,
            of(&|pass| pass.resync.elapsed_seconds),
            of(&rate) / MILLION,
            verdict(ratio >= SPEED_GOAL),
        );
    }
    println!();
}

/// What hosts felt.
pub(super) fn hosts(felt: &[Felt]) {
    println!("## Hosts, 200 writes per second over 200 Mbit/s\n");
    println!("| | writes | p50 ms | p99 ms | resync MB/s |\n|---|---:|---:|---:|---:|");
    let ms = |times: &dyn Fn(&Felt) -> Duration| median(felt.iter().map(|it| times(it).as_secs_f64() * 1e3));
    let rate = |resync: &ResyncStatus| resync.done_bytes as f64 / resync.elapsed_seconds / MILLION;
    println!(
        "| before | {:.0} | {:.2} | {:.2} | |",
        median(felt.iter().map(|it| it.writes.0 as f64)),
        ms(&|it| it.before.1),
        ms(&|it| it.before.0)
    );
    println!(
        "| during a resync | {:.0} | {:.2} | {:.2} | {:.1} |",
        median(felt.iter().map(|it| it.writes.1 as f64)),
        ms(&|it| it.during.1),
        ms(&|it| it.during.0),
        median(felt.iter().map(|it| rate(&it.resync)))
    );
    let ratio = median(
        felt.iter()
            .map(|it| it.during.0.as_secs_f64() / it.before.0.as_secs_f64()),
    );
    println!(
        "\np99 during / before: {ratio:.2}, wanted at most {HOSTS_GOAL}: {}\n",
        verdict(ratio <= HOSTS_GOAL)
    );
}

/// What a crash cost. Holes are zeroed, which sends no data.
pub(super) fn crashes(crashes: &[Crash]) {
    println!("## Resync after kill -9 of the Primary under load\n");
    println!("| differing KiB | compared KiB | zeroed KiB | sent KiB | seconds | |");
    println!("|---:|---:|---:|---:|---:|---|");
    for Crash { differing, resync } in crashes {
        println!(
            "| {} | {} | {} | {} | {:.2} | {} |",
            differing >> 10,
            resync.dirty_at_start_bytes >> 10,
            resync.zeroed_bytes >> 10,
            resync.copied_bytes >> 10,
            resync.elapsed_seconds,
            verdict(resync.copied_bytes <= *differing),
        );
    }
    println!();
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "**missed**" }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
