//! The `blockmirror` command: asks and steers a running daemon, copies and compares exports.
//!
//! Exit codes: 0 done; 1 refused, failed, or (`compare`) different; 2 wrong usage; 3 the daemon (or, for `copy` and
//! `compare`, a server) cannot be reached.

mod agent;
mod args;
mod branches;
mod commands;
mod compare;
mod copy;
mod device;
mod failure;
mod human;
mod info;
mod map;
mod orders;
mod progress;
mod raid;
mod render;
mod side;
mod socket;
mod stretches;
mod terminal;
mod verify;
mod wait;
mod why;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    match commands::start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
