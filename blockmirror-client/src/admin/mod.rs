//! The admin API: HTTP with JSON over a Unix socket. The types here are what the daemon sends and what the
//! `blockmirror` command reads; [`AdminClient`] asks.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`StatusReport`] |
//! | `GET /v1/resources/{resource}/why` | [`WhyReport`] |
//! | `POST /v1/resources/{resource}/promote?force=true&accept=TOKEN` | `{}` |
//! | `POST /v1/resources/{resource}/demote` | `{}` |
//! | `POST /v1/resources/{resource}/invalidate?peer=NAME` | `{}` |
//! | `POST /v1/volumes/{export}/verify?peer=NAME&repair=true&resume=true` | `{}` |
//! | `POST /v1/volumes/{export}/verify-stop?peer=NAME` | `{}` |
//! | `POST /v1/volumes/{export}/resize?size=BYTES&assume_clean=true&force=true` | `{}` |
//! | `POST /v1/volumes/{export}/attach?replaced=true` | `{}` |
//! | `POST /v1/volumes/{export}/detach` | `{}` |
//! | `POST /v1/volumes/{export}/peers/{peer}/connect?discard_my_data=true` | `{}` |
//! | `POST /v1/volumes/{export}/peers/{peer}/disconnect` | `{}` |
//! | `POST /v1/volumes/{export}/peers/{peer}/resync?full=true` | `{}` |
//! | `GET /v1/branches` | [`BranchReport`] |
//! | `POST /v1/branches/{branch}/export` | [`OrderDone`] with the export's name |
//! | `POST /v1/branches/{branch}/unexport` | `{}` |
//! | `POST /v1/branches/{branch}/expire` | `{}` |
//! | `POST /v1/reload` | [`ReloadReport`] |
//!
//! Where a volume's export name stands, that of a resource can stand too, and means all of its volumes. A partner (a
//! peer that is a blockmirror) is connected to a resource as a whole, whichever of its volumes is named. A refusal is a 4xx or 5xx status with [`ErrorBody`]. Names in paths are percent-encoded.

mod http;
mod order;
mod report;
mod roles;

pub use http::{AdminClient, AdminError, MAX_RESPONSE};
pub use order::{Order, OrderDone};
pub use report::{
    ClientStatus, ConnectionState, DiskState, ErrorBody, Mode, NeedsAccept, OnDisconnect, PeerStatus, ReplicationState,
    ResourceStatus, ResyncStatus, StatusReport, VolumeStatus,
};
pub use roles::{
    BranchReport, BranchStatus, DecisionReport, HandshakeReport, HostAccess, IdentityReport, LinkKind, Loss,
    PartnerStatus, ReloadReport, ResyncLimit, Role, VerifyStatus, WhyReport,
};

/// The path of the status report.
pub const STATUS_PATH: &str = "/v1/status";

/// The path of the list of branches.
pub const BRANCHES_PATH: &str = "/v1/branches";
/// The path that has the configuration read again.
pub const RELOAD_PATH: &str = "/v1/reload";

/// What an operator asks of one peer of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerCommand {
    /// StandAlone to Connecting.
    Connect,
    /// To StandAlone; stays there until `Connect`.
    Disconnect,
    /// Copy what is dirty.
    Resync {
        /// Mark every block dirty first, so that all of the volume is copied.
        full: bool,
    },
}

impl PeerCommand {
    /// The last part of the command's path, with its query.
    pub fn path(self) -> &'static str {
        match self {
            PeerCommand::Connect => "connect",
            PeerCommand::Disconnect => "disconnect",
            PeerCommand::Resync { full: false } => "resync",
            PeerCommand::Resync { full: true } => "resync?full=true",
        }
    }
}
