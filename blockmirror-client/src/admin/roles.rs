//! Roles, partners, branches and comparisons in the status report.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::report::{ConnectionState, DiskState, display};

/// Who may serve host writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Serves hosts; its writes go to every peer.
    Primary,
    /// Takes writes from a Primary only.
    #[default]
    Secondary,
}

/// What hosts may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAccess {
    /// Nothing.
    Shut,
    /// Read.
    ReadOnly,
    /// Everything.
    #[default]
    ReadWrite,
}

/// What is spoken with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// It has never been reached.
    Unknown,
    /// Plain NBD.
    #[default]
    Nbd,
    /// A replication stream: it is another blockmirror.
    Stream,
}

/// What keeps a resync from being faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResyncLimit {
    /// It is still finding out.
    #[default]
    Probing,
    /// The link, or a disk.
    Transport,
    /// The application's latency, which is protected.
    Application,
    /// `resync_max`.
    Cap,
}

display! {
    ResyncLimit {
        Probing => "still finding its rate",
        Transport => "limited by link or disk",
        Application => "held back for the application",
        Cap => "limited by resync_max",
    }
    Role { Primary => "Primary", Secondary => "Secondary" }
    HostAccess { Shut => "shut", ReadOnly => "read-only", ReadWrite => "read-write" }
    LinkKind { Unknown => "unknown", Nbd => "nbd", Stream => "stream" }
}

/// Another node that shares the resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartnerStatus {
    /// Its name.
    pub name: String,
    /// What is spoken with it.
    pub link: LinkKind,
    /// The stream to it.
    pub connection_state: ConnectionState,
    /// Its role, while it is connected.
    pub role: Option<Role>,
    /// Requests sent to it and not answered.
    pub in_flight: u64,
    /// Their payload.
    pub bytes_in_flight: u64,
    /// Attempts to connect since the last success.
    pub attempts: u64,
    /// Why the latest connection ended or could not be made.
    pub last_error: Option<String>,
    /// The histories of the two nodes have diverged: what, and what to do.
    pub split_brain: Option<String>,
}

/// What a takeover without the old Primary would lose, as far as can be known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Age of the oldest write that is missing, when it was last heard of.
    pub age_seconds: f64,
    /// Payload of host writes.
    pub bytes: u64,
    /// Host flushes.
    pub flushes: u64,
    /// The data here is not complete: a resync to it was interrupted with this much missing.
    pub inconsistent_bytes: u64,
    /// More may be missing than the numbers say: the old Primary may still be running, or was not heard of.
    #[serde(default)]
    pub unknown: bool,
}

/// How far a comparison is, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// Bytes to compare.
    pub total_bytes: u64,
    /// Of these, done.
    pub done_bytes: u64,
    /// In blocks that differ.
    pub differing_bytes: u64,
    /// Not readable on one of the two.
    pub unread_bytes: u64,
    /// What differs is copied to the peer.
    pub repair: bool,
    /// Everything was compared.
    pub finished: bool,
    /// Since it began.
    pub elapsed_seconds: f64,
    /// Of late.
    pub bytes_per_second: f64,
    /// Until it ends at this rate; `None` when there is no rate yet.
    pub eta_seconds: Option<f64>,
}

/// What was saved of a volume before it was overwritten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BranchStatus {
    /// Its name, for `blockmirror branch`.
    pub name: String,
    /// The volume.
    pub volume: String,
    /// The generation that was given up, hexadecimal.
    pub generation: String,
    /// Seconds since 1970 when it was begun.
    pub created: u64,
    /// Bytes of blocks saved.
    pub saved_bytes: u64,
    /// The file.
    pub file: String,
    /// The export under which it is served read-only now.
    pub exported_as: Option<String>,
    /// Seconds until it is removed; `None`: it is kept until somebody removes it.
    pub expires_in_seconds: Option<u64>,
}

/// The body of the answer about all branches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BranchReport {
    /// By resource, then volume, the latest first.
    pub branches: Vec<BranchStatus>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Carried out.
    pub applied: Vec<String>,
    /// Changed in the file, and takes effect with a restart only.
    pub needs_restart: Vec<String>,
    /// Could not be carried out, and why.
    pub failed: Vec<String>,
}

/// The reasons behind the present state of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhyReport {
    /// The node that explains.
    pub node: String,
    /// The resource.
    pub resource: String,
    /// Its role here.
    pub role: Role,
    /// Why it has this role.
    pub role_because: String,
    /// What else is worth knowing, one fact each.
    pub facts: Vec<String>,
    /// What an operator may want to do, one step each.
    pub advice: Vec<String>,
    /// The last handshake with every partner.
    pub handshakes: Vec<HandshakeReport>,
}

/// The last handshake with a partner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HandshakeReport {
    /// The partner.
    pub peer: String,
    /// How long ago it ended; `None`: it is not known.
    pub seconds_ago: Option<f64>,
    /// How the connection is now.
    pub state: String,
    /// What became of it, in words.
    pub outcome: String,
    /// Volume by volume.
    pub volumes: Vec<DecisionReport>,
}

/// What was decided about one volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// The volume.
    pub volume: String,
    /// The name of the rule (docs/IDENTITY.md).
    pub rule: String,
    /// What it concluded.
    pub verdict: String,
    /// In plain words.
    pub because: String,
    /// What both sides said, one line each.
    pub inputs: Vec<String>,
    /// Rules that were tried before it and did not apply.
    pub tried: Vec<String>,
    /// What an operator could do instead.
    pub alternatives: Vec<String>,
    /// What this node said.
    pub mine: Option<IdentityReport>,
    /// What the partner said.
    pub theirs: Option<IdentityReport>,
}

/// Whose data a leg holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// The current generation, hexadecimal.
    pub current: String,
    /// The generation the other node is known to hold; `None`: it is in step.
    pub for_peer: Option<String>,
    /// Earlier generations, the latest first.
    pub history: Vec<String>,
    /// No data was ever declared.
    pub fresh: bool,
    /// It was Primary and did not stop in order.
    pub crashed_primary: bool,
    /// The image.
    pub disk_state: DiskState,
    /// In blocks marked as different on the other node.
    pub dirty_bytes: u64,
    /// Size of the volume.
    pub size_bytes: u64,
}
