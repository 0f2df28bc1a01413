//! What can be typed.

use std::path::PathBuf;

use blockmirror_client::uri::NbdUri;
use clap::{Parser, Subcommand};

/// How long `--wait` waits unless told: a day, so that nothing waits for ever.
const DEFAULT_WAIT_SECONDS: u64 = 86_400;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused, failed or (compare) different; 2 wrong usage; \
3 the daemon, or a server to compare, cannot be reached.\n\n\
The admin socket is the one given by --admin, by --config, by $BLOCKMIRROR_ADMIN, or the only one in /run/blockmirror.";

/// Shows and steers blockmirror mirrors.
#[derive(Debug, Parser)]
#[command(name = "blockmirror", version, after_help = EXIT_CODES)]
pub struct Args {
    /// The daemon's admin socket
    #[arg(long, global = true, value_name = "SOCKET", conflicts_with = "config")]
    pub admin: Option<PathBuf>,
    /// The daemon's configuration: its `admin` names the socket
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show volumes and their peers
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Again every second, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Let a peer that is StandAlone connect
    Connect {
        #[command(flatten)]
        peer: PeerArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Part with a peer: it is StandAlone until `connect`, and writes are marked for a resync
    Disconnect {
        #[command(flatten)]
        peer: PeerArgs,
    },
    /// Copy to a peer what it does not have
    Resync {
        #[command(flatten)]
        peer: PeerArgs,
        /// Copy everything, whether dirty or not
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Compare two NBD exports byte by byte; exits with 1 when they differ
    Compare {
        /// nbd://host:port/export or nbd+unix:///export?socket=path
        left: NbdUri,
        /// The same
        right: NbdUri,
    },
}

/// A peer of a volume.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// The volume, by its export name
    pub volume: String,
    /// The peer, by its name
    pub peer: String,
}

/// Whether to wait.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// Wait until the peer is Established, and show the resync
    #[arg(long)]
    pub wait: bool,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = DEFAULT_WAIT_SECONDS)]
    pub timeout: u64,
}
