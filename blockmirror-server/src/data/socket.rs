//! Sockets as the control side hands them over.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use blockmirror_client::stream::Wire;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::net::{AddressFamily, getsockname};

use crate::ring::Socket;

/// Kernel buffer asked for on a Unix socket, bytes: its default takes a fifth of a 1 MiB reply.
const UNIX_BUFFER: usize = 1 << 20;

/// Both ends are on this machine: nothing lies between them that could delay, reorder or reset.
pub(crate) fn is_unix(fd: impl AsFd) -> io::Result<bool> {
    Ok(getsockname(fd)?.address_family() == AddressFamily::UNIX)
}

/// Take over a connected stream socket. The buffers of TCP tune themselves unless they are set; those of Unix sockets
/// do not.
pub(crate) fn stream_socket(wire: Wire) -> io::Result<Socket> {
    let Wire { socket, tls } = wire;
    let is_unix = is_unix(&socket)?;
    let socket = match tls {
        None => Socket::new(socket)?,
        Some(session) => Socket::secured(socket, *session)?,
    };
    if is_unix {
        socket.request_buffers(UNIX_BUFFER)?;
    }
    Ok(socket)
}

/// Have the kernel break the connection when what was sent stays unacknowledged for this long. Nothing to do on a Unix
/// socket.
pub(crate) fn give_up_after(socket: &Socket, patience: Duration) -> io::Result<()> {
    if getsockname(socket)?.address_family() == AddressFamily::UNIX {
        return Ok(());
    }
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    Ok(set_tcp_user_timeout(socket, patience)?)
}
