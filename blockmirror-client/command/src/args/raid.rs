//! What `raid` takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use raid1_glue::md::record;
use raid1_glue::nbd::sysfs::NbdIndex;

use super::TlsArgs;

/// How long `--wait` and `heal` wait unless told: a first copy over a slow line takes days.
const DEFAULT_WAIT_SECONDS: u64 = 7 * 86_400;

const CREATE_EXAMPLES: &str = "Examples:
  What would be done, and why:       blockmirror raid create data --local /dev/vdb nbd://bravo/data /dev/nbd0 --dry-run
  An array /dev/md/data of both:     blockmirror raid create data --local /dev/vdb nbd://bravo/data /dev/nbd0 --wait
  A leg that no network can fail:    blockmirror raid create data --local /dev/vdb leg /dev/nbd0
In the last one \"leg\" is a volume of the daemon here, which mirrors it to another node by itself.";

/// Arguments of `raid`.
#[derive(Clone, Debug, Args)]
pub struct RaidArgs {
    /// Where it is noted which arrays are ours
    #[arg(long, global = true, value_name = "DIR", default_value = record::FOLDER)]
    pub records: PathBuf,
    #[command(subcommand)]
    pub command: RaidCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum RaidCommand {
    /// Make an array of a local device and an export: attach it, measure it, choose options, run mdadm
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Take an array of mdadm's under care, with an export as its leg
    Adopt(AdoptArgs),
    /// Bring the leg into the array again after `remove`, or another one in its place
    Add(AddArgs),
    /// Take the leg out of the array, and let its device go; it is not brought back before `add`
    Remove {
        /// The array, by its name
        name: String,
        /// Give the array up as well: it stays as it is, and is none of ours any more
        #[arg(long)]
        forget: bool,
    },
    /// Show arrays: their legs, what is copied, what would be
    Status {
        /// The array, by its name; all when left out
        name: Option<String>,
    },
    /// Start arrays with their local leg alone, as after a boot; the other one comes by `heal` or `watch`
    Start {
        /// The array, by its name; all when left out
        name: Option<String>,
        /// Though the local leg has old data: what only the other one has is lost
        #[arg(long, requires = "name")]
        force: bool,
    },
    /// Do what is needed until the leg is in sync: remove, attach, re-add; what has changed is copied
    Heal(HealArgs),
    /// Stay, say what happens, and heal
    Watch {
        /// The array, by its name; all when left out, those to come, too
        name: Option<String>,
        /// Serve metrics for Prometheus, at /metrics
        #[arg(long, value_name = "tcp:ADDRESS:PORT", value_parser = metrics_address)]
        metrics: Option<SocketAddr>,
    },
}

/// Arguments of `raid create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// What the array is called from now on
    pub name: String,
    /// The local device, by a name that no boot changes: /dev/disk/by-id/... What it holds is lost
    #[arg(long, value_name = "DEVICE")]
    pub local: PathBuf,
    #[command(flatten)]
    pub leg: LegArgs,
    /// The device of the array; /dev/md/NAME when left out
    #[arg(long, value_name = "DEVICE")]
    pub array: Option<String>,
    /// Writes that may be on their way to the leg while they are answered; 0: none. Without it chosen from its latency
    #[arg(long, value_name = "COUNT")]
    pub write_behind: Option<u64>,
    /// What one bit of the bitmap stands for, such as 4MiB. Without it chosen from the leg's latency
    #[arg(long, value_name = "SIZE", value_parser = super::parse_size)]
    pub bitmap_chunk: Option<u64>,
    /// Both devices hold the same, zeroes for instance: do not copy one to the other
    #[arg(long)]
    pub assume_clean: bool,
    /// Though they hold data, or the leg is smaller
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and why; nothing is written, and nothing attached
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the leg has everything
    #[arg(long)]
    pub wait: bool,
}

/// An export that is a leg.
#[derive(Clone, Debug, Args)]
pub struct LegArgs {
    /// A volume of the daemon here, or NBD URIs: with commas between them they are the nodes of one resource
    #[arg(value_name = "VOLUME|URI")]
    pub export: String,
    /// The device of the kernel it becomes, such as /dev/nbd0
    pub device: NbdIndex,
    #[command(flatten)]
    pub times: TimeArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// How long a leg may take.
#[derive(Clone, Copy, Debug, Args)]
pub struct TimeArgs {
    /// Connections, where the server says that they see each other's writes; one else
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = super::device::connections)]
    pub connections: usize,
    /// A request that is not answered within so many seconds is given up; writes of the array wait so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub answer_timeout: u64,
    /// So many seconds more they wait for another connection, before the leg fails: a restart of a daemon is no failure
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub dead_timeout: u64,
}

/// Arguments of `raid adopt`.
#[derive(Clone, Debug, Args)]
pub struct AdoptArgs {
    /// What the array is called from now on
    pub name: String,
    /// The array, such as /dev/md0
    pub array: String,
    #[command(flatten)]
    pub leg: LegArgs,
}

/// Arguments of `raid add`.
#[derive(Clone, Debug, Args)]
pub struct AddArgs {
    /// The array, by its name
    pub name: String,
    /// Another export than before: a volume of the daemon here, or NBD URIs
    #[arg(value_name = "VOLUME|URI", requires = "device")]
    pub export: Option<String>,
    /// The device of the kernel it becomes
    pub device: Option<NbdIndex>,
    /// Copy everything to it, whatever it holds and md knows of it; a leg of another array is left alone
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Wait until the leg has everything
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `raid heal`.
#[derive(Clone, Debug, Args)]
pub struct HealArgs {
    /// The array, by its name
    pub name: String,
    /// Copy everything, whatever md knows of a leg that is out
    #[arg(long)]
    pub full: bool,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_WAIT_SECONDS)]
    pub timeout: u64,
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("tcp:").and_then(|address| address.parse().ok());
    address.ok_or_else(|| "write tcp:127.0.0.1:9188".to_owned())
}
