//! TLS for a kernel that knows nothing of it: it is given one end of a pair of sockets, and what goes through the other one
//! is sealed and opened by this process. The device lives as long as that.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use blockmirror_client::stream::{Stream, Wire};
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;

/// The socket itself, or what stands for it.
pub(super) fn for_kernel(wire: Wire) -> io::Result<OwnedFd> {
    if wire.tls.is_none() {
        return Ok(wire.socket);
    }
    let (theirs, ours) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut ours = UnixStream::from_std(ours)?;
    let mut sealed = Stream::from_wire(wire)?;
    tokio::spawn(async move {
        // Whoever of the two ends it, the other one sees the end: the kernel then asks for another connection.
        let _ = copy_bidirectional(&mut ours, &mut sealed).await;
    });
    Ok(theirs.into())
}
