//! The io_uring engine: [`UringDriver`].
//!
//! **Keys.** The `user_data` of an operation is its slab key (32 bits, with a generation), so an operation and all it
//! owns stay in the slab from submission to the terminal completion. Two values above the keys are the driver's own:
//! [`WAKER`] and [`CANCEL`]. [`UringDriver::reap`] is the only decoder.
//!
//! **Drop.** What is in flight is cancelled and waited for, for at most [`DRAIN_MAX`]; an operation the kernel still
//! holds then is leaked with its buffers, for its memory must not be used again.

mod message;
mod setup;
mod wait;

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::{self, Fd};
use io_uring::{IoUring, opcode, squeue};
use nix::libc;

use self::message::Message;
use self::wait::LookOut;
use super::driver::IN_FLIGHT_MAX;
use super::inline::{self, Attempt, InlineTurn};
use super::slab::Slab;
use super::{BufferPool, Completion, Driver, EngineReport, InlinePolicy, Op, Socket, Waker};

/// `user_data` of the poll on the waker's event.
const WAKER: u64 = u64::MAX;
/// `user_data` of cancellations.
const CANCEL: u64 = u64::MAX - 1;

/// How long a dropped driver waits for operations to end, in all and per round.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const DRAIN_STEP: Duration = Duration::from_millis(100);

/// Times a submission is tried again after errors that pass, when the queue is full.
const SUBMIT_ATTEMPTS_MAX: u32 = 1000;

/// A [`Driver`] over one io_uring. Not `Send`: the ring accepts submissions of the thread that made it only.
pub(super) struct UringDriver {
    ring: IoUring,
    entries: Slab<Entry>,
    /// Message headers of finished sends, to be used again.
    messages: Messages,
    turn: InlineTurn,
    pool: BufferPool,
    waker: Waker,
    waker_armed: bool,
    /// The waker's poll has ended; its event is still to be cleared.
    woken: bool,
    /// Completions taken to make room in the queues, for the next wait.
    early: Vec<Completion>,
    detail: String,
    look_out: LookOut,
    _on_this_thread: std::marker::PhantomData<*const ()>,
}

/// An operation the kernel has (or will have at the next enter).
struct Entry {
    token: u64,
    op: Op,
    /// Bytes of a send done inline before the rest came here.
    progress: usize,
    message: Option<Box<Message>>,
    /// A send whose next bytes are in a file: the kernel only says when the socket takes more, and whoever sends tries
    /// again.
    waits: bool,
}

/// Boxed even here: moving a box in and out costs nothing, making one does.
type Messages = Vec<Box<Message>>;

impl UringDriver {
    /// A ring for the calling thread, or why there is none.
    pub(super) fn open(policy: InlinePolicy) -> io::Result<Self> {
        let (ring, detail) = setup::build()?;
        let mut driver = Self {
            ring,
            entries: Slab::new(),
            messages: Vec::new(),
            turn: InlineTurn::new(policy),
            pool: BufferPool::new(),
            waker: Waker::new()?,
            waker_armed: false,
            woken: false,
            early: Vec::new(),
            detail,
            look_out: LookOut::new(),
            _on_this_thread: std::marker::PhantomData,
        };
        driver.arm_waker()?;
        Ok(driver)
    }

    fn arm_waker(&mut self) -> io::Result<()> {
        let fd = Fd(self.waker.event().as_raw_fd());
        let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build().user_data(WAKER);
        self.push(&poll)?;
        self.waker_armed = true;
        Ok(())
    }

    /// Puts an entry into the submission queue, making room when it is full.
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            // SAFETY: what the entry points to is owned by the slab (or is nothing) until its terminal completion.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) && attempts < SUBMIT_ATTEMPTS_MAX => {
                    // The kernel may want its completions taken before it accepts more.
                    let mut early = mem::take(&mut self.early);
                    self.woken |= self.reap(&mut early);
                    self.early = early;
                }
                Err(error) => return Err(error),
            }
            attempts += 1;
        }
    }

    /// Gives an operation to the kernel; `progress` bytes of a send are done.
    fn queue(&mut self, token: u64, op: Op, progress: usize) -> Option<Completion> {
        if self.entries.len() >= IN_FLIGHT_MAX {
            let result = if progress > 0 {
                Ok(progress)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
            return Some(Completion { token, result, op });
        }
        let message = matches!(op, Op::Send { .. }).then(|| self.messages.pop().unwrap_or_default());
        let key = self.entries.insert(Entry {
            token,
            op,
            progress,
            message,
            waits: false,
        });
        let entry = self
            .entries
            .get_mut(key)
            .map(|entry| entry.encode().user_data(u64::from(key)))?;
        match self.push(&entry) {
            Ok(()) => None,
            Err(error) => {
                let entry = self.entries.remove(key)?;
                Some(Completion {
                    token,
                    result: Err(error),
                    op: entry.op,
                })
            }
        }
    }

    /// Appends what has completed to `out`; whether the waker was among it.
    fn reap(&mut self, out: &mut Vec<Completion>) -> bool {
        let mut woken = false;
        for completed in self.ring.completion() {
            match completed.user_data() {
                WAKER => woken = true,
                CANCEL => {}
                key => {
                    let Some(entry) = self.entries.remove(key as u32) else {
                        continue;
                    };
                    out.push(entry.complete(completed.result(), &mut self.messages));
                }
            }
        }
        woken
    }

    /// Cancels what is in flight and waits for it, within bounds.
    fn drain(&mut self) {
        for key in self.entries.keys() {
            let cancel = opcode::AsyncCancel::new(u64::from(key)).build().user_data(CANCEL);
            if self.push(&cancel).is_err() {
                return;
            }
        }
        let deadline = Instant::now() + DRAIN_MAX;
        let mut ended = Vec::new();
        while self.entries.len() > 0 && Instant::now() < deadline {
            if self.enter(Some(DRAIN_STEP)).is_err() {
                return;
            }
            self.reap(&mut ended);
            ended.clear();
        }
    }
}

impl Driver for UringDriver {
    fn submit(&mut self, token: u64, mut op: Op) -> Option<Completion> {
        match self.turn.attempt(&mut op) {
            Attempt::Done(result) => Some(Completion { token, result, op }),
            Attempt::Blocked(progress) => self.queue(token, op, progress),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.turn.reset();
        if !self.waker_armed {
            self.arm_waker()?;
        }
        let ready = self.woken || !self.early.is_empty() || !self.ring.completion().is_empty();
        out.append(&mut self.early);
        self.submit_and_wait(if ready { Some(Duration::ZERO) } else { timeout })?;
        if self.reap(out) || self.woken {
            self.waker.clear();
            self.woken = false;
            self.waker_armed = false;
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn pool(&self) -> &BufferPool {
        &self.pool
    }

    fn in_flight(&self) -> usize {
        self.entries.len() + self.early.len()
    }

    fn sends_files(&self) -> bool {
        self.turn.sends_files()
    }

    fn describe(&self) -> EngineReport {
        EngineReport {
            name: "io_uring",
            detail: self.detail.clone(),
        }
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        self.drain();
        self.entries.take_all().for_each(mem::forget);
    }
}

impl Entry {
    /// The submission entry. It points into this entry's buffers and message, which do not move: buffers are heap
    /// memory, the message is boxed, inline segments lie in the segment vector's heap memory.
    fn encode(&mut self) -> squeue::Entry {
        match &mut self.op {
            Op::Receive { socket, buffer, filled } => {
                let room = buffer.len() - *filled;
                opcode::Recv::new(Fd(socket.as_raw_fd()), buffer.pointer_at(*filled), length(room)).build()
            }
            Op::Send { socket, segments, skip } if inline::is_in_file(segments, *skip + self.progress) => {
                self.waits = true;
                opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLOUT as u32).build()
            }
            Op::Send { socket, segments, skip } => {
                let message = self.message.get_or_insert_default();
                message.point_at(segments, *skip + self.progress);
                opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const message.header)
                    .flags(send_flags(socket) as u32)
                    .build()
            }
            Op::Read {
                file,
                buffer,
                filled,
                offset,
            } => {
                let room = buffer.len() - *filled;
                opcode::Read::new(Fd(file.as_raw_fd()), buffer.pointer_at(*filled), length(room))
                    .offset(*offset)
                    .build()
            }
            Op::Write {
                file,
                payload,
                offset,
                durable,
            } => {
                let bytes = payload.as_slice();
                opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), length(bytes.len()))
                    .offset(*offset)
                    .rw_flags(if *durable { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            Op::Sync { file } => opcode::Fsync::new(Fd(file.as_raw_fd()))
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Op::Allocate {
                file,
                mode,
                offset,
                length,
            } => opcode::Fallocate::new(Fd(file.as_raw_fd()), *length)
                .offset(*offset)
                .mode(mode.flags().bits() as i32)
                .build(),
            Op::Prefetch { file, offset, length } => {
                let length = i32::try_from(*length).unwrap_or(i32::MAX);
                opcode::Fadvise::new(
                    Fd(file.as_raw_fd()),
                    libc::off_t::from(length),
                    libc::POSIX_FADV_WILLNEED,
                )
                .offset(*offset)
                .build()
            }
        }
    }

    fn complete(self, result: i32, messages: &mut Messages) -> Completion {
        let Entry {
            token,
            op,
            progress,
            message,
            waits,
        } = self;
        if let Some(message) = message {
            messages.push(message);
        }
        let result = match usize::try_from(result) {
            Ok(_) if waits => Ok(progress),
            Ok(count) => Ok(progress + count),
            Err(_) if progress > 0 => Ok(progress),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        Completion { token, result, op }
    }
}

/// All at once, if it can be asked for: the kernel's TLS does not know it.
fn send_flags(socket: &Socket) -> i32 {
    if socket.has_kernel_tls() {
        libc::MSG_NOSIGNAL
    } else {
        libc::MSG_NOSIGNAL | libc::MSG_WAITALL
    }
}

/// The kernel takes 32-bit lengths; what is beyond comes out as a short count.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(1 << 30)
}

/// Errors of entering the ring that pass by themselves: a signal, a full completion queue, no memory just now.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
