//! Injected failures: [`FaultLayer`].

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use nix::libc;

use crate::ring::{BufferPool, Completion, Driver, EngineReport, Op, OpKind, Payload, Waker};

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is executed.
    Pass,
    /// At most this many bytes (above 0) of a read, write or receive are moved.
    Short(usize),
    /// It does nothing and ends with this error number.
    Error(i32),
    /// As `Error`, but the operation is executed, and its completion comes out of a later wait.
    LateError(i32),
}

impl Fault {
    /// Interrupted by a signal.
    pub const EINTR: Fault = Fault::Error(libc::EINTR);
    /// Not possible just now.
    pub const EAGAIN: Fault = Fault::Error(libc::EAGAIN);
    /// The device failed.
    pub const EIO: Fault = Fault::Error(libc::EIO);
    /// No room.
    pub const ENOSPC: Fault = Fault::Error(libc::ENOSPC);
    /// The file cannot do this.
    pub const EOPNOTSUPP: Fault = Fault::Error(libc::EOPNOTSUPP);
}

/// What is to happen to the next operations, per kind, in order. Clones share one plan: the test keeps one and the
/// layer has the other. Operations of a kind with no plan left pass.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    state: Rc<RefCell<PlanState>>,
}

#[derive(Debug, Default)]
struct PlanState {
    planned: HashMap<OpKind, VecDeque<Fault>>,
    seen: HashMap<OpKind, usize>,
}

/// A driver that fails as planned.
pub struct FaultLayer {
    inner: Box<dyn Driver>,
    plan: FaultPlan,
    /// What the operations under way were before they were shortened or are to fail, by token.
    altered: HashMap<u64, Altered>,
    ended: Vec<Completion>,
}

enum Altered {
    Length(usize),
    Payload(Payload),
    Fails(i32),
}

impl FaultPlan {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to what happens to the next operations of a kind.
    pub fn add(&self, kind: OpKind, faults: impl IntoIterator<Item = Fault>) {
        self.state.borrow_mut().planned.entry(kind).or_default().extend(faults);
    }

    /// Operations of a kind so far.
    pub fn seen(&self, kind: OpKind) -> usize {
        self.state.borrow().seen.get(&kind).copied().unwrap_or(0)
    }

    /// Planned faults that have not happened.
    pub fn left(&self) -> usize {
        self.state.borrow().planned.values().map(VecDeque::len).sum()
    }

    fn next(&self, kind: OpKind) -> Fault {
        let mut state = self.state.borrow_mut();
        *state.seen.entry(kind).or_default() += 1;
        state
            .planned
            .get_mut(&kind)
            .and_then(VecDeque::pop_front)
            .unwrap_or(Fault::Pass)
    }
}

impl FaultLayer {
    /// A layer around `inner` that follows `plan`. Tokens of operations in flight have to be unique.
    pub fn new(inner: Box<dyn Driver>, plan: FaultPlan) -> Self {
        Self {
            inner,
            plan,
            altered: HashMap::new(),
            ended: Vec::new(),
        }
    }

    fn restore(&mut self, mut completion: Completion) -> Completion {
        match (self.altered.remove(&completion.token), &mut completion.op) {
            (Some(Altered::Length(length)), Op::Read { buffer, .. } | Op::Receive { buffer, .. }) => {
                buffer.set_len(length);
            }
            (Some(Altered::Payload(original)), Op::Write { payload, .. }) => *payload = original,
            (Some(Altered::Fails(error)), _) => {
                completion.result = Err(io::Error::from_raw_os_error(error));
            }
            _ => {}
        }
        completion
    }
}

impl Driver for FaultLayer {
    fn submit(&mut self, token: u64, mut op: Op) -> Option<Completion> {
        match self.plan.next(op.kind()) {
            Fault::Pass => {}
            Fault::Error(error) => {
                return Some(Completion {
                    token,
                    result: Err(io::Error::from_raw_os_error(error)),
                    op,
                });
            }
            Fault::LateError(error) => {
                self.altered.insert(token, Altered::Fails(error));
                let completion = self.inner.submit(token, op)?;
                let completion = self.restore(completion);
                self.ended.push(completion);
                return None;
            }
            Fault::Short(count) => {
                if let Some(altered) = shorten(&mut op, count) {
                    self.altered.insert(token, altered);
                }
            }
        }
        let completion = self.inner.submit(token, op)?;
        Some(self.restore(completion))
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let timeout = if self.ended.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        out.append(&mut self.ended);
        let mut completed = Vec::new();
        self.inner.wait(timeout, &mut completed)?;
        out.extend(completed.into_iter().map(|completion| self.restore(completion)));
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn pool(&self) -> &BufferPool {
        self.inner.pool()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.ended.len()
    }

    fn describe(&self) -> EngineReport {
        let inner = self.inner.describe();
        EngineReport {
            name: inner.name,
            detail: format!("{}, with injected faults", inner.detail),
        }
    }
}

/// Cuts an operation to `count` bytes; what it takes to make it whole again.
fn shorten(op: &mut Op, count: usize) -> Option<Altered> {
    match op {
        Op::Read { buffer, filled, .. } | Op::Receive { buffer, filled, .. } => {
            let length = buffer.len();
            buffer.set_len((*filled + count).min(length));
            Some(Altered::Length(length))
        }
        Op::Write { payload, .. } => {
            let short = payload.slice(..count.min(payload.len()));
            Some(Altered::Payload(std::mem::replace(payload, short)))
        }
        Op::Send { .. } | Op::Sync { .. } | Op::Allocate { .. } | Op::Prefetch { .. } => None,
    }
}
