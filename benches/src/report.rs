//! Tables and goals.

use crate::Samples;
use crate::figures::{grouped, median, ratio};
use crate::fio::{MIRROR_ROWS, PLAIN_ROWS, Row, Sample};
use crate::systems::{FOREIGN, NBDKIT, NO_PEER, PLAIN, TO_NBDKIT, TO_PARTNER, TO_PLAIN};

/// Plain against nbdkit, at depth 32 and for 1 MiB, and at depth 1.
const PLAIN_GOALS: (f64, f64) = (0.9, 0.7);
/// Mirrored writes against QEMU's.
const MIRROR_GOAL: f64 = 1.5;
/// Writes mirrored to a partner against QEMU's, and against those mirrored to a plain peer.
const PARTNER_GOALS: (f64, f64) = (2.0, 0.95);
/// What the mirror machinery may cost without a peer.
const NO_PEER_GOAL: f64 = 0.97;

/// Print the tables of the plain servers; the goals with their figures, missed ones marked.
pub fn plain(systems: &[&str], samples: &Samples) -> Vec<Goal> {
    println!("## Plain export\n");
    tables(systems, &PLAIN_ROWS, samples);
    let mut goals = Vec::new();
    for (row, of_row) in PLAIN_ROWS.iter().zip(samples) {
        let wanted = if row.depth == 1 { PLAIN_GOALS.1 } else { PLAIN_GOALS.0 };
        let to_nbdkit = ratio(&of_row[PLAIN], &of_row[NBDKIT]);
        goals.push(Goal::new(row, "plain / nbdkit", to_nbdkit, wanted));
        let no_peer = ratio(&of_row[NO_PEER], &of_row[PLAIN]);
        goals.push(Goal::new(row, "mirror on, no peer / plain", no_peer, NO_PEER_GOAL));
    }
    goals
}

/// Print the tables of the mirrors; the goals with their figures.
pub fn mirrors(systems: &[&str], samples: &Samples) -> Vec<Goal> {
    println!("## Synchronous mirror\n");
    tables(systems, &MIRROR_ROWS, samples);
    let mut goals = Vec::new();
    for (row, of_row) in MIRROR_ROWS.iter().zip(samples) {
        let (partner, to_nbdkit) = (&of_row[TO_PARTNER], &of_row[TO_NBDKIT]);
        for (system, theirs) in systems.iter().zip(of_row).skip(FOREIGN) {
            let name = system;
            let what = format!("leg on nbdkit / {name}");
            goals.push(Goal::new(row, &what, ratio(to_nbdkit, theirs), MIRROR_GOAL));
            let what = format!("partner / {name}");
            goals.push(Goal::new(row, &what, ratio(partner, theirs), PARTNER_GOALS.0));
        }
        for plain in [TO_PLAIN, TO_NBDKIT] {
            let what = format!("partner / {}", systems[plain]);
            goals.push(Goal::new(row, &what, ratio(partner, &of_row[plain]), PARTNER_GOALS.1));
        }
    }
    goals
}

/// One promise and its figure.
pub struct Goal {
    row: String,
    what: String,
    ratio: f64,
    wanted: f64,
}

impl Goal {
    /// That `ratio`, which is described by `what`, is at least `wanted`.
    pub fn new(row: &Row, what: &str, ratio: f64, wanted: f64) -> Self {
        Self {
            row: row.name.to_owned(),
            what: what.to_owned(),
            ratio,
            wanted,
        }
    }

    fn is_reached(&self) -> bool {
        self.ratio >= self.wanted
    }
}

/// Print which goals were reached.
pub fn goals(goals: &[Goal]) {
    println!(
        "## Goals\n\nRatios are medians of the ratios of each round.\n\n| row | ratio of | measured | wanted | |\n|---|---|---:|---:|---|"
    );
    for goal in goals {
        let verdict = if goal.is_reached() { "reached" } else { "**missed**" };
        println!(
            "| {} | {} | {:.2} | {:.2} | {verdict} |",
            goal.row, goal.what, goal.ratio, goal.wanted
        );
    }
    let reached = goals.iter().filter(|goal| goal.is_reached()).count();
    println!("\n{reached} of {} goals reached", goals.len());
}

fn tables(systems: &[&str], rows: &[Row], samples: &Samples) {
    table(
        "IOPS (4 KiB) or MB/s (1 MiB), and its ratio to the first column",
        systems,
        rows,
        samples,
        |row, all, first| {
            let figure = throughput(row, all);
            format!("{} ({:.2})", grouped(figure), figure / throughput(row, first))
        },
    );
    table(
        "Time of a request in us, p50 / p99",
        systems,
        rows,
        samples,
        |_, all, _| {
            format!(
                "{:.0} / {:.0}",
                median(all, |sample| sample.p50),
                median(all, |sample| sample.p99)
            )
        },
    );
    table(
        "Server processor time per request in us",
        systems,
        rows,
        samples,
        |_, all, _| format!("{:.1}", median(all, |sample| sample.cpu)),
    );
}

fn table(
    title: &str,
    systems: &[&str],
    rows: &[Row],
    samples: &Samples,
    cell: impl Fn(&Row, &[Sample], &[Sample]) -> String,
) {
    println!("{title}:\n");
    println!("| | {} |\n|---{}|", systems.join(" | "), "|---:".repeat(systems.len()));
    for (row, of_row) in rows.iter().zip(samples) {
        let cells: Vec<String> = of_row.iter().map(|all| cell(row, all, &of_row[0])).collect();
        println!("| {} | {} |", row.name, cells.join(" | "));
    }
    println!();
}

/// Requests per second, or megabytes where those count.
pub fn throughput(row: &Row, samples: &[Sample]) -> f64 {
    median(
        samples,
        |sample| if row.is_large() { sample.megabytes } else { sample.iops },
    )
}
