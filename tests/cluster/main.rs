//! The cluster simulator: whole clusters of real cores between simulated images, metadata files, links, clocks, hosts
//! and operators, one seed at a time.
//!
//! `cargo test -p blockmirror-tests --bin cluster` runs seeds, named scenarios and a short mutation run;
//! `scripts/sim --cluster --help` runs millions, or one with a trace. docs/ARCHITECTURE.md says what is simulated.

mod annals;
mod answers;
mod arguments;
mod ask;
mod bases;
mod copies;
mod decree;
mod disk;
mod faults;
mod fence;
mod heal;
mod host;
mod judge;
mod layout;
mod life;
mod mutants;
mod net;
mod node;
mod obey;
mod operation;
mod operator;
mod outcome;
mod plan;
mod probe;
mod promises;
mod props;
mod reign;
mod requests;
#[path = "../sim/rng.rs"]
mod rng;
mod scenarios;
mod serve;
mod shrink;
mod simulate;
mod stage;
mod store;
mod strike;
#[cfg(test)]
mod tests;
mod truth;
mod view;
mod watch;
mod wire;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A failing assertion is reported with its seed; the default message would only repeat it.
    std::panic::set_hook(Box::new(|_| {}));
    arguments::main(std::env::args().skip(1))
}
