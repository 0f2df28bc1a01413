//! Sockets that whoever started us has made for us: systemd's socket activation (sd_listen_fds(3)), which libnbd and
//! nbdkit speak as well.

use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// What was handed over.
#[derive(Debug)]
pub enum Passed {
    /// Nothing.
    Nothing,
    /// Sockets that listen; at least one.
    Listening(Vec<OwnedFd>),
    /// One connected client (a unit with `Accept=yes`).
    Client(OwnedFd),
}

/// Why what was handed over is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// Another kind of descriptor.
    #[error("descriptor {number} of LISTEN_FDS is neither a TCP nor a Unix stream socket: {error}")]
    NotAStream {
        /// Counted from the first one.
        number: usize,
        /// What it is not.
        error: io::Error,
    },
    /// Connected sockets, and more than one.
    #[error(
        "descriptor {number} of LISTEN_FDS does not listen; one connected client can be served alone, not beside others"
    )]
    NotListening {
        /// Counted from the first one.
        number: usize,
    },
}

/// Take what was handed over. Call it once, before there is a second thread: it takes `LISTEN_PID` and `LISTEN_FDS` out
/// of the environment, so that no process of ours takes them for its own.
///
/// # Errors
/// A descriptor is not what NBD clients can come in by.
pub fn take() -> Result<Passed, PassedError> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..passed.len() {
        sockets.push(stream_socket(&mut passed, number)?);
    }
    let waits = |socket: &OwnedFd| socket_acceptconn(socket).unwrap_or(false);
    match sockets.iter().position(|socket| !waits(socket)) {
        None if sockets.is_empty() => Ok(Passed::Nothing),
        None => Ok(Passed::Listening(sockets)),
        Some(0) if sockets.len() == 1 => Ok(sockets.pop().map_or(Passed::Nothing, Passed::Client)),
        Some(number) => Err(PassedError::NotListening { number }),
    }
}

fn stream_socket(passed: &mut ListenFd, number: usize) -> Result<OwnedFd, PassedError> {
    let gone = || io::Error::other("it is gone");
    let wrong = |error| PassedError::NotAStream { number, error };
    match passed.take_unix_listener(number) {
        Ok(socket) => socket.map(OwnedFd::from).ok_or_else(|| wrong(gone())),
        Err(_) => {
            let socket = passed.take_tcp_listener(number).map_err(wrong)?;
            socket.map(OwnedFd::from).ok_or_else(|| wrong(gone()))
        }
    }
}
