//! Shared ownership of the descriptors operations work on.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockmirror_client::tls::Session;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, FsWord, OFlags, fcntl_getfl, fstat, fstatfs};
use rustix::net::Shutdown;

use super::cached;
use super::guard::WriteGuard;
#[cfg(test)]
use super::kernel_tls::KernelTls;
use super::socket_tls::SocketTls;

/// `f_type` of tmpfs and of memfd, as in linux/magic.h: files in memory, never waiting for a disk.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// A connected stream socket (TCP or Unix). The connection closes when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Socket {
    fd: Arc<OwnedFd>,
    /// What lies on it; its operations go through the TLS layer.
    secure: Option<Arc<SocketTls>>,
}

/// A regular file or block device, with what has been learned about it.
#[derive(Clone)]
pub struct FileHandle {
    state: Arc<FileState>,
}

struct FileState {
    fd: OwnedFd,
    direct: bool,
    memory_backed: bool,
    /// Cleared when the file refuses `RWF_NOWAIT` reads.
    nowait_reads: AtomicBool,
    guard: WriteGuard,
}

impl Socket {
    /// Takes over a connected stream socket and makes it nonblocking, as both engines need it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self {
            fd: Arc::new(fd),
            secure: None,
        })
    }

    /// As [`new`](Self::new), with a TLS connection on it, which goes to the kernel if it is for it and the kernel takes it.
    pub fn secured(fd: OwnedFd, session: Session) -> io::Result<Self> {
        let plain = Self::new(fd)?;
        let tls = SocketTls::new(&plain.fd, session)?;
        Ok(Self {
            secure: Some(Arc::new(tls)),
            ..plain
        })
    }

    pub(crate) fn secure(&self) -> Option<&Arc<SocketTls>> {
        self.secure.as_ref()
    }

    /// Whether TLS lies on it.
    pub fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// The kernel seals what is sent and opens what is received.
    pub(crate) fn has_kernel_tls(&self) -> bool {
        self.secure.as_ref().is_some_and(|tls| tls.is_in_kernel())
    }

    /// The other side is to see an end that was meant.
    fn say_goodbye(&self) {
        if let Some(secure) = &self.secure {
            secure.say_goodbye(self);
        }
    }

    /// Ends both directions: operations in flight finish, the other side sees the end of the stream.
    pub fn shutdown_both(&self) -> io::Result<()> {
        self.say_goodbye();
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Both)?)
    }

    /// Ends the sending direction only.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.say_goodbye();
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Whether the other side has closed its sending direction or the connection is broken, even when bytes received
    /// before are still to be read.
    pub fn has_hung_up(&self) -> bool {
        if self.secure.as_ref().is_some_and(|secure| secure.has_closed()) {
            return true;
        }
        let mut wanted = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut wanted, Some(&now)) {
            Ok(_) => wanted[0]
                .revents()
                .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR),
            Err(_) => false,
        }
    }

    /// Whether a close, also that of a killed process, throws away what has not been sent and resets the connection
    /// (`SO_LINGER` of zero), instead of sending it in the background. Has no effect on Unix sockets.
    pub fn reset_on_close(&self, reset: bool) -> io::Result<()> {
        let linger = reset.then_some(Duration::ZERO);
        Ok(rustix::net::sockopt::set_socket_linger(&self.fd, linger)?)
    }

    /// Asks for a kernel send and receive buffer of `bytes` each; the kernel may grant less.
    pub fn request_buffers(&self, bytes: usize) -> io::Result<()> {
        rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, bytes)?;
        Ok(rustix::net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes)?)
    }
}

#[cfg(test)]
impl Socket {
    /// TLS on it, if it is in the kernel.
    pub(crate) fn kernel_tls(&self) -> Option<&KernelTls> {
        match self.secure.as_deref() {
            Some(SocketTls::Kernel(kernel)) => Some(kernel),
            _ => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl FileHandle {
    /// Takes over an open file: an image, a metadata file. Direct or buffered is read off the descriptor's flags.
    pub fn new(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        let fd = fd.into();
        let direct = fcntl_getfl(&fd)?.contains(OFlags::DIRECT);
        // The nodes of devices lie in memory, what is written to them does not.
        let memory_backed =
            FileType::from_raw_mode(fstat(&fd)?.st_mode).is_file() && fstatfs(&fd)?.f_type == TMPFS_MAGIC;
        Ok(Self {
            state: Arc::new(FileState {
                fd,
                direct,
                memory_backed,
                nowait_reads: AtomicBool::new(true),
                guard: WriteGuard::new(),
            }),
        })
    }

    /// Whether the file was opened with `O_DIRECT`.
    pub fn is_direct(&self) -> bool {
        self.state.direct
    }

    /// Whether the file lives in memory only (tmpfs, memfd): nothing on it waits for a disk.
    pub fn is_memory_backed(&self) -> bool {
        self.state.memory_backed
    }

    /// Whether sending a range of it takes pages that are there, and waits for no disk.
    pub fn sends_at_once(&self, offset: u64, length: u64) -> bool {
        !self.is_direct() && (self.is_memory_backed() || cached::is_cached(self, offset, length))
    }

    /// Whether a read that must not block is worth trying.
    pub(super) fn tries_nowait_reads(&self) -> bool {
        self.state.nowait_reads.load(Ordering::Relaxed)
    }

    /// The file has refused a read that must not block.
    pub(super) fn stop_nowait_reads(&self) {
        self.state.nowait_reads.store(false, Ordering::Relaxed);
    }

    /// Whether the next buffered write may be done inline.
    pub(super) fn allows_inline_write(&self) -> bool {
        self.state.memory_backed || self.state.guard.allows()
    }

    /// An inline write took this long.
    pub(super) fn note_inline_write(&self, took: Duration) {
        self.state.guard.note(took);
    }
}

impl AsFd for FileHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.state.fd.as_fd()
    }
}

impl AsRawFd for FileHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.state.fd.as_raw_fd()
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandle")
            .field("fd", &self.as_raw_fd())
            .field("direct", &self.state.direct)
            .field("memory_backed", &self.state.memory_backed)
            .finish_non_exhaustive()
    }
}
