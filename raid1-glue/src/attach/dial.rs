//! Connections for the kernel: simple replies, nothing read beyond the handshake.

use std::os::fd::OwnedFd;
use std::time::Duration;

use blockmirror_client::connect::{self, Server, Wishes};
use blockmirror_client::uri::NbdUri;
use nbd_proto::{ReplyStyle, TransmissionFlags};
use rustix::net::{AddressFamily, getsockname, sockopt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{AttachError, Wanted, relay};

/// For one connection, from the dialling to the end of the handshake.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time a node has before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(150);
/// Nodes that have not answered when others have refused are waited for so long at first,
pub(super) const STRAGGLERS_FIRST: Duration = Duration::from_millis(250);
/// and at last, for they may be merely slow: every attempt has come to its own end by then.
pub(super) const STRAGGLERS_LONGEST: Duration = DEADLINE.saturating_mul(2);
/// TCP gives a connection up when what was sent is not acknowledged for so long, where requests have no time limit.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Bytes on the way to a server on this machine, as asked for: the kernel counts its own needs, too, and takes twice as much.
const UNIX_BUFFER: usize = 2 << 20;
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

/// To the first node that grants what is wanted and `fits`. The one at `first` in the list begins; who is slow to answer
/// does not hold up the next. When all others have refused, those that have not answered are waited for as long as
/// `stragglers`: who refused may grant it any moment now.
///
/// # Errors
/// What the nodes said; one that serves something else is told before one that refuses, and that before one that is away.
pub(super) async fn any(
    wanted: &Wanted,
    first: usize,
    stragglers: Duration,
    fits: impl Fn(&Dialled) -> Result<(), AttachError>,
) -> Result<Dialled, AttachError> {
    let uris = wanted.uris.as_slice();
    let mut order = (0..uris.len()).map(|step| (first + step) % uris.len());
    let mut attempts = JoinSet::new();
    let mut problems = Vec::new();
    loop {
        let next = order.next();
        if let Some(at) = next {
            let (uri, wanted) = (uris[at].clone(), wanted.clone());
            attempts.spawn(async move { all(&uri, &wanted).await });
        }
        let patience = match next {
            Some(_) => HEAD_START,
            None if problems.is_empty() => STRAGGLERS_LONGEST,
            None => stragglers,
        };
        match timeout_at(Instant::now() + patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(dialled)))) => match fits(&dialled) {
                Ok(()) => return Ok(dialled),
                Err(problem) => problems.push(problem),
            },
            Ok(Some(Ok(Err(problem)))) => problems.push(problem),
            // An attempt that was cut short says nothing.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) if next.is_some() => {}
            Ok(None) | Err(_) => break,
        }
    }
    problems.sort_by_key(rank);
    let worst = problems.into_iter().next();
    Err(worst.unwrap_or_else(|| AttachError::NoPrimary(wanted.uris.to_string())))
}

/// What tells most comes first.
fn rank(problem: &AttachError) -> u8 {
    match problem {
        AttachError::Different { .. } => 0,
        AttachError::NoPrimary(_) => 1,
        AttachError::Connect(connect::ConnectError::Handshake { .. }) => 2,
        _ => 3,
    }
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
    let socket = relay::for_kernel(connected.socket)?;
    make_room(&socket);
    Ok(Dialled {
        sockets: vec![socket],
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

/// Several long writes fit the way to a server on this machine, or to what seals for it, not one: the kernel else waits until the
/// first is taken. The buffers of TCP tune themselves. Who may not ask for it does without.
fn make_room(socket: &OwnedFd) {
    if getsockname(socket).is_ok_and(|address| address.address_family() == AddressFamily::UNIX) {
        let _ = sockopt::set_socket_send_buffer_size_force(socket, UNIX_BUFFER);
    }
}

/// Bytes of the export now; `None`: the node does not say.
pub(super) async fn size_of(uri: &NbdUri) -> Option<u64> {
    let export = uri.export.as_deref().unwrap_or_default();
    let server = Server::of(uri).ok()?;
    let told = connect::info(&server, export, DEADLINE).await.ok()?;
    Some(told.size)
}

#[cfg(test)]
mod tests;
