//! Tables of one scene, and what was wanted.

use super::rows::{WORK, Work};
use super::scene::Scene;
use super::servers::{NBDKIT, NULL, OURS, PEERS};
use crate::figures::{grouped, median, ratio, spread};
use crate::fio::Sample;
use crate::report::{Goal, throughput};

/// Wanted of nbdkit's throughput, where the client is not the limit and where it is.
const NBDKIT_GOALS: (f64, f64) = (1.2, 1.0);
/// Where a server that does nothing gets less than this of nbdkit's throughput, or ours gets as much of the throughput of
/// such a server as the second figure, the client is the limit.
const CLIENT_LIMIT: (f64, f64) = (1.3, 0.8);
/// Depth from which on processor time is compared: below, all of it is waking up.
const DEPTH_OF_CPU: u32 = 8;

/// What was measured in one scene: by row, by server, by round.
pub struct Measured {
    /// The scene.
    pub scene: Scene,
    /// The servers' names.
    pub names: Vec<&'static str>,
    /// By row, by server, by round.
    pub samples: Vec<Vec<Vec<Sample>>>,
    /// On the image itself, by row, by round; empty where nothing compares.
    pub image: Vec<Vec<Sample>>,
}

impl Measured {
    /// Print the tables; the goals with their figures.
    pub fn print(&self) -> Vec<Goal> {
        println!("## {}\n", self.scene.title);
        self.throughputs();
        self.table("Time of a request in us, p50 / p99", |_, all| {
            let (p50, p99) = (median(all, |sample| sample.p50), median(all, |sample| sample.p99));
            (p99 > 0.0).then(|| format!("{p50:.0} / {p99:.0}"))
        });
        self.table("Server processor time per request in us", |_, all| {
            let cpu = median(all, |sample| sample.cpu);
            (cpu > 0.0).then(|| format!("{cpu:.1}"))
        });
        self.goals()
    }

    fn throughputs(&self) {
        println!(
            "Requests per second (4 and 64 KiB) or MB/s (1 MiB): median, lowest and highest round in parts of it. The image: fio \
             on it by io_uring.\n"
        );
        let columns = self.names.join(" | ");
        println!(
            "| | {columns} | the image |\n|---{}|",
            "|---:".repeat(self.names.len() + 1)
        );
        for ((work, of_row), image) in WORK.iter().zip(&self.samples).zip(&self.image) {
            let cell = |samples: &Vec<Sample>| {
                if samples.is_empty() {
                    return "-".to_owned();
                }
                let (low, high) = spread(samples, |sample| sample.iops);
                format!("{} ({low:.2}-{high:.2})", grouped(throughput(work.row(), samples)))
            };
            let cells: Vec<String> = of_row.iter().chain([image]).map(cell).collect();
            println!("| {} | {} |", work.row().name, cells.join(" | "));
        }
        println!();
    }

    fn table(&self, title: &str, cell: impl Fn(&Work, &[Sample]) -> Option<String>) {
        println!("{title}:\n");
        println!(
            "| | {} |\n|---{}|",
            self.names.join(" | "),
            "|---:".repeat(self.names.len())
        );
        for (work, of_row) in WORK.iter().zip(&self.samples) {
            let cells: Vec<String> = of_row
                .iter()
                .map(|all| cell(work, all).unwrap_or_else(|| "-".to_owned()))
                .collect();
            println!("| {} | {} |", work.row().name, cells.join(" | "));
        }
        println!();
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for (work, of_row) in WORK.iter().zip(&self.samples) {
            if of_row[OURS].is_empty() {
                continue;
            }
            let row = work.row();
            let mut goal = |what: &str, ratio, wanted| {
                let what = format!("{}: {what}", self.scene.name);
                goals.push(Goal::new(row, &what, ratio, wanted));
            };
            let ours = &of_row[OURS];
            for peer in PEERS {
                let (name, theirs) = (self.names[peer], &of_row[peer]);
                if theirs.is_empty() {
                    continue;
                }
                let wanted = if peer == NBDKIT { wanted_of_nbdkit(of_row) } else { 1.0 };
                goal(&format!("blockmirror / {name}"), ratio(ours, theirs), wanted);
            }
            if row.depth >= DEPTH_OF_CPU {
                let (mine, theirs) = (cpu(ours), cpu(&of_row[NBDKIT]));
                goal("processor time, nbdkit / blockmirror", theirs / mine, 1.0);
            }
            let p99 = |samples: &[Sample]| median(samples, |sample| sample.p99);
            let best = PEERS
                .filter(|peer| !of_row[*peer].is_empty())
                .map(|peer| p99(&of_row[peer]))
                .fold(f64::INFINITY, f64::min);
            if best > 0.0 && best.is_finite() {
                goal("p99, best peer / blockmirror", best / p99(ours), 1.0);
            }
        }
        goals
    }
}

fn cpu(samples: &[Sample]) -> f64 {
    median(samples, |sample| sample.cpu)
}

fn wanted_of_nbdkit(of_row: &[Vec<Sample>]) -> f64 {
    let (usual, client_bound) = NBDKIT_GOALS;
    let (of_nbdkit, of_null) = CLIENT_LIMIT;
    let (ours, nbdkit, null) = (&of_row[OURS], &of_row[NBDKIT], &of_row[NULL]);
    if ratio(null, nbdkit) < of_nbdkit || ratio(ours, null) > of_null {
        client_bound
    } else {
        usual
    }
}
