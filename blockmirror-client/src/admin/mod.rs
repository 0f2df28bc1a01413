//! The admin API: HTTP with JSON over a Unix socket. The types here are what the daemon sends and what the
//! `blockmirror` command reads; [`AdminClient`] asks.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`StatusReport`] |
//! | `POST /v1/volumes/{export}/peers/{peer}/connect` | `{}` |
//! | `POST /v1/volumes/{export}/peers/{peer}/disconnect` | `{}` |
//! | `POST /v1/volumes/{export}/peers/{peer}/resync?full=true` | `{}` |
//!
//! A refusal is a 4xx or 5xx status with [`ErrorBody`]. Names in paths are percent-encoded.

mod http;
mod report;

pub use http::{AdminClient, AdminError, MAX_RESPONSE};
pub use report::{
    ConnectionState, DiskState, ErrorBody, Mode, OnDisconnect, PeerStatus, ReplicationState, ResourceStatus,
    ResyncStatus, StatusReport, VolumeStatus,
};

/// The path of the status report.
pub const STATUS_PATH: &str = "/v1/status";

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
