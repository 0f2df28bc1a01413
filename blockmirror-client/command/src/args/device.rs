//! What `attach` and `detach` take when a device of the kernel is named.

use clap::Args;
use raid1_glue::nbd::sysfs::NbdIndex;

use super::{CompleteArgs, TlsArgs};

const EXAMPLES: &str = "Examples:
  A volume of the daemon here, as a device:         blockmirror attach db /dev/nbd0
  An export of another server, 4 connections:       blockmirror attach --connections 4 nbd://bravo/db /dev/nbd0
  Of two nodes the one that is Primary, for ever:   blockmirror attach nbd://alpha/db,nbd://bravo/db /dev/nbd0
  The image of a volume, after an I/O error:        blockmirror attach db";

/// Arguments of `attach`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct AttachArgs {
    /// The volume, by its export name. With a device also NBD URIs: with commas between them they are the nodes of one
    /// resource, of which the Primary is used, whichever that is
    #[arg(value_name = "VOLUME|URI")]
    pub what: String,
    /// The device of the kernel, such as /dev/nbd0. Without it the image of the volume is taken again after `detach` or
    /// an I/O error
    pub device: Option<NbdIndex>,
    /// It is a new, empty image: copy everything to it
    #[arg(long, conflicts_with = "device")]
    pub replaced: bool,
    #[command(flatten)]
    pub kernel: DeviceArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub wait: CompleteArgs,
}

/// How the kernel uses the export.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// Connections, where the server says that they see each other's writes; one else
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "device", value_parser = connections)]
    pub connections: usize,
    /// Logical block size: 512 to 4096. Without it what the export needs
    #[arg(long, value_name = "BYTES", requires = "device")]
    pub block_size: Option<u32>,
    /// A request that is not answered within so many seconds is sent again on another connection; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "device")]
    pub answer_timeout: u64,
    /// Requests wait so many seconds for a connection when none is left, before they fail
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "device")]
    pub dead_timeout: u64,
    /// Refuse writes; any node will do
    #[arg(long, requires = "device")]
    pub read_only: bool,
    /// Also where this machine is its own server, and may come to wait for itself when memory runs short
    #[arg(long, requires = "device")]
    pub allow_loop: bool,
    /// Stay, and say what happens, as a service does
    #[arg(long, requires = "device", conflicts_with = "once")]
    pub foreground: bool,
    /// Attach it, and leave nobody who would connect it again
    #[arg(long, requires = "device")]
    pub once: bool,
    /// As the process in the background
    #[arg(long, hide = true)]
    pub agent: bool,
}

/// Arguments of `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The volume, by its export name: its image is given up, and a peer that has everything serves in its place. Or a
    /// device of the kernel, such as /dev/nbd0
    #[arg(value_name = "VOLUME|DEVICE")]
    pub what: String,
    /// Let a device go although it is used, or cannot be written out
    #[arg(long)]
    pub force: bool,
}

/// A number of connections.
pub fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=16) => Ok(count),
        _ => Err("a number from 1 to 16".to_owned()),
    }
}
