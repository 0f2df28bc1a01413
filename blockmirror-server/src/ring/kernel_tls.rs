//! TLS in the kernel: [`KernelTls`], what is left to do on a socket whose records the kernel seals and opens.
//!
//! Data is sent and received as without TLS. Whatever else the other side says (an end, a change of keys, a ticket, an
//! alert) lets a receive for data fail with EIO where it comes in the order of records; it is fetched then. Our keys are changed
//! when the other side asks for it, and long before they are worn.

mod option;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blockmirror_client::tls::kernel::{self, Aside, Handover, KernelSession};
use blockmirror_client::tls::{FRAGMENT_MAX, Session, TlsFault};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::inline::{self, Attempt};
use super::secure::Next;
use super::{Op, Socket};

pub use option::probe as kernel_tls;

/// Records sealed with one key, as they are counted here: a quarter of what AES-GCM allows (2^24, as rustls has it), for
/// one that is sent in many pieces counts as less than it is.
const RECORDS_MAX: u64 = 1 << 22;

/// The TLS connection on a socket, in the kernel.
pub(crate) struct KernelTls {
    state: Mutex<State>,
}

struct State {
    session: KernelSession,
    /// The other side has said that nothing more comes.
    closed: bool,
    /// The other side wants us to change our keys.
    owes_keys: bool,
    /// Records sealed since our keys have changed.
    records: u64,
    /// The alert at the end; `None`: it has been sent.
    farewell: Option<[u8; 2]>,
}

impl KernelTls {
    /// Give the connection to the kernel. The session comes back when it stays in user space: the socket is none of TCP,
    /// the kernel has no TLS, or the connection is none for it.
    ///
    /// # Errors
    /// The connection is lost on the way.
    pub(super) fn take(socket: &OwnedFd, session: Session) -> io::Result<Result<Self, Session>> {
        if !session.is_for_kernel() || option::attach(socket).is_err() {
            return Ok(Err(session));
        }
        let Handover {
            session,
            early,
            send: sealing,
            receive: opening,
        } = session.into_kernel()?;
        let refused =
            |error: io::Error| io::Error::new(error.kind(), format!("the kernel does not take its TLS: {error}"));
        if !early.is_empty() && send(socket, &early, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? < early.len() {
            return Err(refused(io::ErrorKind::WriteZero.into()));
        }
        option::seal_with(socket, &sealing).map_err(refused)?;
        option::open_with(socket, &opening).map_err(refused)?;
        let state = State {
            session,
            closed: false,
            owes_keys: false,
            records: sealing.sequence,
            farewell: Some(kernel::farewell(None)),
        };
        Ok(Ok(Self {
            state: Mutex::new(state),
        }))
    }

    /// A receive or a send is asked for.
    pub(super) fn begin(&self, op: Op) -> Next {
        let mut state = self.lock();
        match &op {
            Op::Receive { .. } if state.closed => Next::Over(Ok(0), op),
            Op::Send { socket, .. } => match state.change_keys(socket) {
                Ok(()) => Next::Below(op),
                Err(fault) => Next::Over(Err(fault.into()), op),
            },
            _ => Next::Below(op),
        }
    }

    /// It has ended below.
    pub(super) fn ended(&self, result: io::Result<usize>, op: Op) -> Next {
        let mut state = self.lock();
        match &op {
            Op::Receive { socket, .. } => match state.heard(socket, result) {
                Some(result) => Next::Over(result, op),
                None => Next::Below(op),
            },
            Op::Send { .. } => {
                state.count(&result);
                Next::Over(result, op)
            }
            _ => Next::Over(result, op),
        }
    }

    /// Receive what is there, with no receive in flight. `None`: nothing is.
    pub(super) fn receive_now(&self, socket: &Socket, into: &mut [u8]) -> Option<io::Result<usize>> {
        let mut state = self.lock();
        while !state.closed {
            let Attempt::Done(result) = inline::receive(socket, into) else {
                return None;
            };
            let over = state.heard(socket, result);
            if over.is_some() {
                return over;
            }
        }
        Some(Ok(0))
    }

    /// The other side has said that nothing more comes.
    pub(super) fn has_closed(&self) -> bool {
        self.lock().closed
    }

    /// Say that nothing more comes. Nothing depends on its arrival.
    pub(super) fn say_goodbye(&self, socket: &Socket) {
        if let Some(alert) = self.lock().farewell.take() {
            let _ = option::send_aside(socket, kernel::ALERT, &alert);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing in it halfway that could give something away.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a receive has come to. `None`: there may be data behind what was heard.
    fn heard(&mut self, socket: &Socket, result: io::Result<usize>) -> Option<io::Result<usize>> {
        let fault = match result {
            Ok(0) if !self.closed => TlsFault::Cut,
            Ok(count) => {
                self.session.heard_data();
                return Some(Ok(count));
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::IO) => match self.take_aside(socket) {
                    Ok(()) => return self.closed.then_some(Ok(0)),
                    Err(fault) => fault,
                },
                Some(Errno::BADMSG) => TlsFault::damaged(),
                Some(Errno::MSGSIZE | Errno::INVAL) => TlsFault::NotTls,
                _ => return Some(Err(error)),
            },
        };
        self.farewell = self.farewell.and(Some(kernel::farewell(Some(&fault))));
        Some(Err(fault.into()))
    }

    /// Fetch a record without data and do what it says.
    fn take_aside(&mut self, socket: &Socket) -> Result<(), TlsFault> {
        let mut content = vec![0; FRAGMENT_MAX];
        let (record_type, length) = option::receive_aside(socket, &mut content)?;
        match self.session.hear(record_type, &content[..length])? {
            Aside::Nothing => {}
            Aside::Closed => self.closed = true,
            Aside::NewKeys { answer } => {
                option::open_with(socket, &self.session.next_receive_keys()?)?;
                self.owes_keys |= answer;
            }
        }
        Ok(())
    }

    /// Change our keys if it is time. No send is under way.
    fn change_keys(&mut self, socket: &Socket) -> Result<(), TlsFault> {
        if !self.owes_keys && self.records < RECORDS_MAX {
            return Ok(());
        }
        match self.renew_keys(socket, &kernel::KEY_UPDATE) {
            // Before a later send.
            Err(TlsFault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            renewed => renewed,
        }
    }

    fn renew_keys(&mut self, socket: &Socket, message: &[u8]) -> Result<(), TlsFault> {
        option::send_aside(socket, kernel::HANDSHAKE, message)?;
        option::seal_with(socket, &self.session.next_send_keys()?)?;
        (self.owes_keys, self.records) = (false, 0);
        Ok(())
    }

    /// Every system call ends a record, and a send is two of them at most.
    fn count(&mut self, sent: &io::Result<usize>) {
        if let Ok(sent) = sent {
            self.records += (sent / FRAGMENT_MAX) as u64 + 2;
        }
    }
}

impl fmt::Debug for KernelTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelTls").finish_non_exhaustive()
    }
}

#[cfg(test)]
impl KernelTls {
    /// Our keys are worn.
    pub(crate) fn wear_keys(&self) {
        self.lock().records = RECORDS_MAX;
    }

    /// Change our keys and have the other side change theirs.
    pub(crate) fn ask_for_keys(&self, socket: &Socket) {
        let mut message = kernel::KEY_UPDATE;
        message[4] = 1;
        let renewed = self.lock().renew_keys(socket, &message);
        assert!(renewed.is_ok(), "{renewed:?}");
    }

    /// Many records were sealed, but not too many.
    pub(crate) fn count_up(&self) {
        self.lock().records = RECORDS_MAX / 2;
    }

    /// Records sealed with our keys.
    pub(crate) fn records(&self) -> u64 {
        self.lock().records
    }
}
