//! Connections for the kernel: simple replies, nothing read beyond the handshake.

use std::os::fd::OwnedFd;
use std::time::Duration;

use blockmirror_client::connect::{self, Server, Wishes};
use blockmirror_client::uri::NbdUri;
use nbd_proto::{ReplyStyle, TransmissionFlags};
use rustix::net::sockopt;

use super::{AttachError, Wanted, relay};

/// For one connection, from the dialling to the end of the handshake.
const DEADLINE: Duration = Duration::from_secs(5);
/// TCP gives a connection up when what was sent is not acknowledged for so long, where requests have no time limit.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// The kernel counts in whole seconds.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Connections to one node.
#[derive(Debug)]
pub(super) struct Dialled {
    /// What the kernel is given.
    pub(super) sockets: Vec<OwnedFd>,
    /// Bytes of the export.
    pub(super) size: u64,
    /// What it can do.
    pub(super) flags: TransmissionFlags,
    /// The smallest block it takes.
    pub(super) minimum_block: u32,
    /// Where they go.
    pub(super) uri: NbdUri,
}

/// To the first node that grants what is wanted.
///
/// # Errors
/// What the last one said.
pub(super) async fn any(wanted: &Wanted) -> Result<Dialled, AttachError> {
    let mut last = None;
    for uri in wanted.uris.as_slice() {
        match all(uri, wanted).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| AttachError::NoPrimary(wanted.uris.to_string())))
}

/// As many as are wanted, to one node.
async fn all(uri: &NbdUri, wanted: &Wanted) -> Result<Dialled, AttachError> {
    let mut dialled = one(uri, wanted).await?;
    let several = dialled.flags.contains(TransmissionFlags::CAN_MULTI_CONN);
    let count = if several { wanted.connections } else { 1 };
    while dialled.sockets.len() < count {
        let next = one(uri, wanted).await?;
        dialled.sockets.extend(next.sockets);
    }
    Ok(dialled)
}

async fn one(uri: &NbdUri, wanted: &Wanted) -> Result<Dialled, AttachError> {
    let export = uri.export.as_deref().unwrap_or_default();
    let wishes = Wishes {
        replies: ReplyStyle::Simple,
        ..Wishes::default()
    };
    let connected = connect::connect(&Server::of(uri)?, export, &wishes, DEADLINE).await?;
    let negotiated = connected.negotiated;
    if !wanted.read_only && negotiated.flags.contains(TransmissionFlags::READ_ONLY) {
        return Err(AttachError::NoPrimary(uri.to_string()));
    }
    if !connected.unread.is_empty() {
        return Err(AttachError::Different {
            uri: uri.to_string(),
            what: "the server speaks before it was asked".to_owned(),
        });
    }
    let patience = wanted.timeout.unwrap_or(UNACKNOWLEDGED_MAX);
    notice_silence(&connected.socket.socket, patience);
    Ok(Dialled {
        sockets: vec![relay::for_kernel(connected.socket)?],
        size: negotiated.size,
        flags: negotiated.flags,
        minimum_block: negotiated.block_sizes.map_or(1, |sizes| sizes.minimum),
        uri: uri.clone(),
    })
}

/// A link that is cut without a word is noticed within this time on every connection, used or not: a request that was moved from
/// a dead connection to the next one must not find that dead, too. Unix sockets have none of this, and need none.
fn notice_silence(socket: &OwnedFd, patience: Duration) {
    let _ = sockopt::set_tcp_user_timeout(socket, patience.as_millis() as u32);
    let _ = sockopt::set_tcp_keepidle(socket, (patience / 2).max(KEEPALIVE_MIN));
    let _ = sockopt::set_tcp_keepintvl(socket, (patience / 4).max(KEEPALIVE_MIN));
    let _ = sockopt::set_socket_keepalive(socket, true);
}

/// Bytes of the export now; `None`: the node does not say.
pub(super) async fn size_of(uri: &NbdUri) -> Option<u64> {
    let export = uri.export.as_deref().unwrap_or_default();
    let server = Server::of(uri).ok()?;
    let told = connect::info(&server, export, DEADLINE).await.ok()?;
    Some(told.size)
}
