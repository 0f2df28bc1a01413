//! The engine for where io_uring is missing or forbidden: [`ThreadsDriver`], `epoll` for sockets and a few worker
//! threads for file operations that may block.

mod workers;

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use self::workers::Workers;
use super::driver::IN_FLIGHT_MAX;
use super::inline::{self, Attempt, InlineTurn};
use super::{BufferPool, Completion, Driver, EngineReport, InlinePolicy, Op, Socket, Waker};

/// Event data of the waker; sockets have their descriptor's number.
const WAKER: u64 = u64::MAX;
/// Events taken per wait.
const EVENTS_MAX: usize = 256;

/// A [`Driver`] without io_uring.
pub(super) struct ThreadsDriver {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Sockets with operations waiting for readiness. An operation keeps its socket open, so a number here is not
    /// another socket's.
    waiting: HashMap<RawFd, Waiting>,
    waiting_count: usize,
    workers: Workers,
    turn: InlineTurn,
    pool: BufferPool,
    waker: Waker,
    detail: String,
}

#[derive(Default)]
struct Waiting {
    receives: VecDeque<Entry>,
    sends: VecDeque<Entry>,
}

struct Entry {
    token: u64,
    op: Op,
    /// Bytes of a send done so far.
    progress: usize,
}

impl ThreadsDriver {
    /// An engine for the calling thread; `reason` says why it is this one.
    pub(super) fn open(policy: InlinePolicy, reason: &str) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(
            &epoll,
            waker.event(),
            epoll::EventData::new_u64(WAKER),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            waiting: HashMap::new(),
            waiting_count: 0,
            workers: Workers::start(waker.clone())?,
            turn: InlineTurn::new(policy),
            pool: BufferPool::new(),
            waker,
            detail: format!("{} workers; {reason}", workers::WORKERS),
        })
    }

    /// Keeps a socket operation until its socket is ready.
    fn park(&mut self, entry: Entry) -> Option<Completion> {
        let (socket, is_send) = match &entry.op {
            Op::Receive { socket, .. } => (socket.clone(), false),
            Op::Send { socket, .. } => (socket.clone(), true),
            _ => return Some(entry.finish(Err(io::ErrorKind::Unsupported.into()))),
        };
        let waiting = self.waiting.entry(socket.as_raw_fd()).or_default();
        let queue = if is_send {
            &mut waiting.sends
        } else {
            &mut waiting.receives
        };
        queue.push_back(entry);
        self.waiting_count += 1;
        let flags = waiting.flags();
        let Err(error) = arm(&self.epoll, &socket, flags) else {
            return None;
        };
        let waiting = self.waiting.get_mut(&socket.as_raw_fd())?;
        let queue = if is_send {
            &mut waiting.sends
        } else {
            &mut waiting.receives
        };
        let entry = queue.pop_back()?;
        self.waiting_count -= 1;
        Some(entry.finish(Err(error)))
    }

    /// Continues the operations of a socket that is ready.
    fn advance(&mut self, fd: RawFd, flags: epoll::EventFlags, out: &mut Vec<Completion>) -> io::Result<()> {
        use epoll::EventFlags;
        let Some(mut waiting) = self.waiting.remove(&fd) else {
            return Ok(());
        };
        let before = out.len();
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            run(&mut waiting.receives, out);
        }
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            run(&mut waiting.sends, out);
        }
        self.waiting_count -= out.len() - before;
        let Some(socket) = waiting.socket() else { return Ok(()) };
        arm(&self.epoll, &socket, waiting.flags())?;
        self.waiting.insert(fd, waiting);
        Ok(())
    }
}

impl Driver for ThreadsDriver {
    fn submit(&mut self, token: u64, mut op: Op) -> Option<Completion> {
        let progress = match self.turn.attempt(&mut op) {
            Attempt::Done(result) => return Some(Completion { token, result, op }),
            Attempt::Blocked(progress) => progress,
        };
        let entry = Entry { token, op, progress };
        if self.in_flight() >= IN_FLIGHT_MAX {
            return Some(entry.finish(Err(io::ErrorKind::WouldBlock.into())));
        }
        match entry.op {
            Op::Receive { .. } | Op::Send { .. } => self.park(entry),
            _ => {
                self.workers.give(token, entry.op);
                None
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.turn.reset();
        let before = out.len();
        self.workers.take_ended(out);
        let timeout = if out.len() > before {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        let limit = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for index in 0..self.events.len() {
            let event = self.events[index];
            match event.data.u64() {
                WAKER => self.waker.clear(),
                fd => self.advance(fd as RawFd, event.flags, out)?,
            }
        }
        self.workers.take_ended(out);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn pool(&self) -> &BufferPool {
        &self.pool
    }

    fn in_flight(&self) -> usize {
        self.waiting_count + self.workers.in_flight()
    }

    fn sends_files(&self) -> bool {
        self.turn.sends_files()
    }

    fn describe(&self) -> EngineReport {
        EngineReport {
            name: "threads",
            detail: self.detail.clone(),
        }
    }
}

impl Waiting {
    fn flags(&self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::ONESHOT;
        if !self.receives.is_empty() {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if !self.sends.is_empty() {
            flags |= epoll::EventFlags::OUT;
        }
        flags
    }

    fn socket(&self) -> Option<Socket> {
        let entry = self.receives.front().or(self.sends.front())?;
        match &entry.op {
            Op::Receive { socket, .. } | Op::Send { socket, .. } => Some(socket.clone()),
            _ => None,
        }
    }
}

impl Entry {
    fn finish(self, result: io::Result<usize>) -> Completion {
        let result = match result {
            Ok(count) => Ok(self.progress + count),
            Err(_) if self.progress > 0 => Ok(self.progress),
            Err(error) => Err(error),
        };
        Completion {
            token: self.token,
            result,
            op: self.op,
        }
    }
}

/// Continues operations in order until one has to wait.
fn run(queue: &mut VecDeque<Entry>, out: &mut Vec<Completion>) {
    while let Some(mut entry) = queue.pop_front() {
        let attempt = match &mut entry.op {
            Op::Receive { socket, buffer, filled } => inline::receive(socket, &mut buffer.as_mut_slice()[*filled..]),
            Op::Send { socket, segments, skip } => inline::send(socket, segments, *skip + entry.progress),
            _ => Attempt::Done(Err(io::ErrorKind::Unsupported.into())),
        };
        match attempt {
            Attempt::Done(result) => out.push(entry.finish(result)),
            Attempt::Blocked(more) => {
                entry.progress += more;
                queue.push_front(entry);
                return;
            }
        }
    }
}

/// Asks for one event. A registration is left behind, disarmed, when it has fired; closing the socket removes it.
fn arm(epoll: &OwnedFd, socket: &Socket, flags: epoll::EventFlags) -> io::Result<()> {
    let data = epoll::EventData::new_u64(socket.as_raw_fd() as u64);
    match epoll::modify(epoll, socket, data, flags) {
        Err(Errno::NOENT) => Ok(epoll::add(epoll, socket, data, flags)?),
        result => Ok(result?),
    }
}
