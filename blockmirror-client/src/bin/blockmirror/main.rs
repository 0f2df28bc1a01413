//! The `blockmirror` command: asks a running daemon, and compares exports.
//!
//! Exit codes: 0 done; 1 refused, failed, or (`compare`) different; 2 wrong usage; 3 the daemon (or, for `compare`,
//! a server) cannot be reached.

mod args;
mod commands;
mod compare;
mod failure;
mod human;
mod progress;
mod render;
mod socket;
mod terminal;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    match commands::start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
