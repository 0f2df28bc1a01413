//! TLS on a socket, wherever its records are sealed and opened: [`SocketTls`].

use std::io;
use std::os::fd::OwnedFd;

use blockmirror_client::tls::Session;

use super::kernel_tls::KernelTls;
use super::secure::{Next, Secure};
use super::{BufferPool, Op, Socket};

/// The TLS connection on a socket.
#[derive(Debug)]
pub(crate) enum SocketTls {
    /// Here.
    UserSpace(Box<Secure>),
    /// In the kernel: operations on the socket are about data.
    Kernel(Box<KernelTls>),
}

impl SocketTls {
    /// In the kernel if the session is for it and the kernel takes it.
    ///
    /// # Errors
    /// The connection is lost on the way.
    pub(super) fn new(socket: &OwnedFd, session: Session) -> io::Result<Self> {
        Ok(match KernelTls::take(socket, session)? {
            Ok(kernel) => Self::Kernel(Box::new(kernel)),
            Err(session) => Self::UserSpace(Box::new(Secure::new(session))),
        })
    }

    pub(super) fn is_in_kernel(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// A receive or a send is asked for.
    pub(crate) fn begin(&self, op: Op, pool: &BufferPool) -> Next {
        match self {
            Self::UserSpace(secure) => secure.begin(op, pool),
            Self::Kernel(kernel) => kernel.begin(op),
        }
    }

    /// What was to be done below has ended.
    pub(crate) fn ended(&self, result: io::Result<usize>, op: Op, pool: &BufferPool) -> Next {
        match self {
            Self::UserSpace(secure) => secure.ended(result, op, pool),
            Self::Kernel(kernel) => kernel.ended(result, op),
        }
    }

    /// Receive what is there, with no receive in flight. `None`: nothing is.
    pub(super) fn receive_now(&self, socket: &Socket, into: &mut [u8]) -> Option<io::Result<usize>> {
        match self {
            Self::UserSpace(secure) => secure.receive_now(socket, into),
            Self::Kernel(kernel) => kernel.receive_now(socket, into),
        }
    }

    /// The other side has said that nothing more comes.
    pub(super) fn has_closed(&self) -> bool {
        match self {
            Self::UserSpace(secure) => secure.has_closed(),
            Self::Kernel(kernel) => kernel.has_closed(),
        }
    }

    /// Say that nothing more comes. Nothing depends on its arrival.
    pub(super) fn say_goodbye(&self, socket: &Socket) {
        match self {
            Self::UserSpace(secure) => secure.say_goodbye(socket),
            Self::Kernel(kernel) => kernel.say_goodbye(socket),
        }
    }
}
