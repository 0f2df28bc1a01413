//! One NBD client on descriptors 0 and 1: what inetd, ssh and libnbd's `connect_command` start a server with.
//!
//! ```text
//!  one socket on both:       0 = 1 ─────────────────────────► data thread
//!  two descriptors (pipes):  0 ──copy──► pair of sockets ───► data thread
//!                            1 ◄──copy── the same pair
//! ```

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::socket_acceptconn;
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};

/// Copies of the standard descriptors are above them.
const FIRST_FREE: i32 = 3;
/// Bytes of a relay's copy: more than a pipe holds.
const COPIED_AT_ONCE: usize = 256 << 10;

/// The client on the standard descriptors.
#[derive(Debug)]
pub struct StdioClient {
    /// Its connection.
    pub socket: OwnedFd,
    /// What delivers the last replies; `None`: the socket does so itself.
    pub relay: Option<Relay>,
}

/// Copies between the descriptors and the socket that stands for them.
#[derive(Debug)]
pub struct Relay {
    /// Ends when everything has been written to descriptor 1.
    delivered: Receiver<()>,
}

/// Take the client over. Descriptors 0 and 1 are `/dev/null` from now on: nothing else can come between its bytes.
///
/// # Errors
/// There is no client, or the system refuses.
pub fn take() -> io::Result<StdioClient> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        let text = "standard input and output are a terminal: --stdio is for the program that starts this one";
        return Err(io::Error::other(text));
    }
    let whole = one_socket(stdin(), stdout())?;
    let input = fcntl_dupfd_cloexec(stdin(), FIRST_FREE)?;
    let output = fcntl_dupfd_cloexec(stdout(), FIRST_FREE)?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    if whole {
        return Ok(StdioClient {
            socket: input,
            relay: None,
        });
    }
    let (ours, theirs) = UnixStream::pair()?;
    Ok(StdioClient {
        socket: theirs.into(),
        relay: Some(Relay::start(input, output, &ours)?),
    })
}

/// Whether both are one connected socket.
fn one_socket(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<bool> {
    let (first, second) = (fstat(input)?, fstat(output)?);
    let is_socket = FileType::from_raw_mode(first.st_mode) == FileType::Socket;
    if is_socket && socket_acceptconn(input)? {
        let text = "standard input is a socket that listens: --stdio needs a connected one (inetd: \"nowait\")";
        return Err(io::Error::other(text));
    }
    Ok(is_socket && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino))
}

impl Relay {
    fn start(input: OwnedFd, output: OwnedFd, socket: &UnixStream) -> io::Result<Self> {
        for end in [&input, &output] {
            block(end.as_fd())?;
        }
        let (mut to_us, mut to_client) = (socket.try_clone()?, socket.try_clone()?);
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // However it ends: the client says no more, and what it has said is there to be read.
            let _ = pass_on(&mut File::from(input), &mut to_us);
            let _ = to_us.shutdown(Shutdown::Write);
        })?;
        let (done, delivered) = channel();
        std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            // A client that takes no more replies is gone.
            let _ = pass_on(&mut to_client, &mut File::from(output));
            let _ = to_client.shutdown(Shutdown::Both);
            drop(done);
        })?;
        Ok(Self { delivered })
    }

    /// Wait until the client has its last replies, at most this long. Call it when the connection is closed.
    pub fn finish(self, patience: Duration) {
        // It ends by being dropped, or not in time; either way it is over.
        let _ = self.delivered.recv_timeout(patience);
    }
}

/// Copy until the end. By hand: `io::copy` splices between pipes and sockets, and may keep what it has until there is
/// more of it.
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; COPIED_AT_ONCE];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&bytes[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whoever made the descriptor may have made it nonblocking.
fn block(end: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(end)?;
    Ok(fcntl_setfl(end, flags - OFlags::NONBLOCK)?)
}
