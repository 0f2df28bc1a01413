//! What can be typed.

pub mod device;
pub mod raid;

use std::path::PathBuf;

use blockmirror_client::tls::Identity;
use blockmirror_client::uri::{NbdUri, UriList};
use clap::{Parser, Subcommand};

/// How long `--wait` waits unless told: a day, so that nothing waits for ever.
const DEFAULT_WAIT_SECONDS: u64 = 86_400;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused, failed or (compare) different; 2 wrong usage; \
3 the daemon, or a server to read or write, cannot be reached.\n\n\
The admin socket is the one given by --admin, by --config, by $BLOCKMIRROR_ADMIN, or the only one in /run/blockmirror.";

const PROMOTE_EXAMPLES: &str = "Examples:
  A fresh pair, on the node whose image counts:      blockmirror promote --force db
  A switchover, on the node that is to be Primary:   blockmirror promote db
  The Primary is gone, and nothing can be lost:      blockmirror promote db
  The Primary is gone, with the last it had:         blockmirror promote --force db
                                                     blockmirror promote --force --accept 1a2b3c4d db";
const CONNECT_EXAMPLES: &str =
    "After a split brain (`blockmirror why` tells of it), when the data of bravo is to be given up:
  on bravo:  blockmirror demote db
             blockmirror connect --discard-my-data db alpha
  on alpha:  blockmirror connect db bravo
What bravo alone had is in a branch on bravo: `blockmirror branch list`";

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
    /// For programs: JSON on stdout, refusals too
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show resources, volumes and their peers
    Status {
        /// Again every second, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Show them again every second, until interrupted
    Watch,
    /// Explain the present state: which rule decided the last handshake, what limits, what to do
    Why {
        /// The resource; all of them when not named
        resource: Option<String>,
    },
    /// Become Primary: hosts may write here. A connected Primary hands over in order
    ///
    /// Without contact to the Primary, and when data may be lost by it, nothing is done before --force is given; it
    /// tells what would be lost and the token that has to be quoted back.
    #[command(after_long_help = PROMOTE_EXAMPLES)]
    Promote {
        /// The resource
        resource: String,
        /// Though the Primary cannot be asked, or data would be lost, or no data was ever declared
        #[arg(long)]
        force: bool,
        /// The token that `promote --force` told: I know what is lost
        #[arg(long, value_name = "TOKEN", requires = "force")]
        accept: Option<String>,
        #[command(flatten)]
        wait: CompleteArgs,
    },
    /// Become Secondary: hosts are let go after what is in flight, everything is made durable on every peer
    Demote {
        /// The resource
        resource: String,
    },
    /// Let a peer that is StandAlone connect
    #[command(after_long_help = CONNECT_EXAMPLES)]
    Connect {
        #[command(flatten)]
        peer: PeerArgs,
        /// After a split brain: give up what was written here since; it is saved to a branch before it is overwritten
        #[arg(long)]
        discard_my_data: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Part with a peer: it is StandAlone until `connect`, and writes are marked for a resync
    Disconnect {
        #[command(flatten)]
        peer: PeerArgs,
    },
    /// Copy to a peer what it lacks: what is marked, also by a verify; to a plain peer everything with `--full`
    Resync {
        #[command(flatten)]
        peer: PeerArgs,
        /// Copy everything, whether dirty or not
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// The data of this node is worthless: take all of it from a peer
    Invalidate {
        /// The resource
        resource: String,
        /// From this one; may be left out when there is only one
        peer: Option<String>,
        #[command(flatten)]
        wait: CompleteArgs,
    },
    /// Compare with peers, online; what differs is marked, and copied by `--repair` or `resync`
    Verify(VerifyArgs),
    /// Make a volume larger, here and on every node, while it is used; or smaller, while it is not
    Resize {
        /// The volume, by its export name
        volume: String,
        /// Its new size, such as 20GiB
        #[arg(value_parser = parse_size)]
        size: u64,
        /// The new part is zero on every node: do not copy it
        #[arg(long)]
        assume_clean: bool,
        /// Make it smaller: nobody may be Primary, and every node makes sure that nothing is beyond the new end
        #[arg(long, conflicts_with = "assume_clean")]
        force: bool,
    },
    /// Make a volume, or any NBD export, a device of the kernel; or take the image of a volume again
    Attach(device::AttachArgs),
    /// Let a device of the kernel go; or give the image of a volume up
    Detach(device::DetachArgs),
    /// Arrays of md RAID1: a local device, and an export on another node
    Raid(raid::RaidArgs),
    /// What was saved of a volume before it was overwritten
    #[command(subcommand)]
    Branch(BranchCommand),
    /// Have the daemon read its configuration again: peers and volumes come and go without a restart
    Reload,
    /// Show what a server says about an export, or about all of its exports
    Info {
        /// nbd://host:port/export or nbd+unix:///export?socket=path; without a path all exports of the server
        uri: NbdUri,
        #[command(flatten)]
        tls: TlsArgs,
    },
    /// Show what an export says of its bytes: allocated or not, or any other metadata context
    Map {
        /// nbd://host:port/export or nbd+unix:///export?socket=path
        uri: NbdUri,
        /// The metadata context; `blockmirror info` names those an export has
        #[arg(long, value_name = "NAME", default_value = "base:allocation")]
        context: String,
        #[command(flatten)]
        tls: TlsArgs,
    },
    /// Copy one NBD export over another, holes and zeroes as zeroes
    Copy {
        /// Read from: nbd://host:port/export or nbd+unix:///export?socket=path; several, with commas between them, are
        /// the nodes of one resource, of which the Primary is used
        from: UriList,
        /// Written to: the same. What it holds is lost
        to: UriList,
        #[command(flatten)]
        tls: TlsArgs,
    },
    /// Compare two NBD exports byte by byte; exits with 1 when they differ
    Compare {
        /// nbd://host:port/export or nbd+unix:///export?socket=path; several, with commas between them, are the nodes of
        /// one resource, of which the Primary is used
        left: UriList,
        /// The same
        right: UriList,
        #[command(flatten)]
        tls: TlsArgs,
    },
}

/// Certificates for nbds:// and nbds+unix:// URIs that name none
#[derive(Clone, Debug, clap::Args)]
pub struct TlsArgs {
    /// Who signs the certificates of the servers (PEM)
    #[arg(long = "tls-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What we show to servers that ask who we are (PEM)
    #[arg(long = "tls-certificate", value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long = "tls-key", value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

impl TlsArgs {
    /// The same nodes, with these certificates.
    pub fn applied_to(&self, uris: &UriList) -> UriList {
        let identity = self.certificate.clone().zip(self.key.clone());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        uris.clone().with_certificates(self.ca.as_deref(), identity.as_ref())
    }

    /// The same node, with these certificates.
    pub fn applied_to_one(&self, uri: &NbdUri) -> NbdUri {
        let uris = self.applied_to(&uri.clone().into());
        uris.as_slice().first().unwrap_or(uri).clone()
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// A volume, or a resource with all its volumes
    pub name: String,
    /// With this peer; with all when left out
    pub peer: Option<String>,
    /// Copy what differs to the peer
    #[arg(long)]
    pub repair: bool,
    /// Go on where the last one stopped
    #[arg(long)]
    pub resume: bool,
    /// Stop the one under way
    #[arg(long, conflicts_with_all = ["repair", "resume", "wait"])]
    pub stop: bool,
    /// Wait until it has ended, and show how far it is; exits with 1 when something differs
    #[arg(long)]
    pub wait: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BranchCommand {
    /// Show all branches
    List,
    /// Serve a branch read-only over NBD: the volume as it was, over what the image holds now
    Export {
        /// The branch, as `list` names it
        branch: String,
    },
    /// Serve a branch no longer
    Unexport {
        /// The branch, as `list` names it
        branch: String,
    },
    /// Remove a branch for ever
    Expire {
        /// The branch, as `list` names it
        branch: String,
    },
}

/// A peer of a volume or a resource.
#[derive(Clone, Debug, clap::Args)]
pub struct PeerArgs {
    /// The volume, by its export name, or a resource with all its volumes
    pub volume: String,
    /// The peer, by its name
    pub peer: String,
}

/// Whether to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// Wait until the peer is Established, and show the resync
    #[arg(long)]
    pub wait: bool,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = DEFAULT_WAIT_SECONDS)]
    pub timeout: u64,
}

/// Whether to wait for what is copied after an order.
#[derive(Clone, Debug, clap::Args)]
pub struct CompleteArgs {
    /// Wait until nothing is left to be copied, and show how far it is
    #[arg(long)]
    pub wait: bool,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = DEFAULT_WAIT_SECONDS)]
    pub timeout: u64,
}

fn parse_size(text: &str) -> Result<u64, String> {
    blockmirror_client::size::parse(text)
}

#[cfg(test)]
mod tests;
