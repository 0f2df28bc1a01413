//! TLS: [`TlsLayer`].

use std::io;
use std::time::Duration;

use crate::ring::{BufferPool, Completion, Driver, EngineReport, Next, Op, Waker};

/// A driver on whose sockets TLS may lie: connections, links and streams above send and receive plaintext, the engine
/// below moves sealed bytes.
pub struct TlsLayer {
    inner: Box<dyn Driver>,
    pool: BufferPool,
    /// Completions of the engine that are still to be looked at.
    ended: Vec<Completion>,
}

impl TlsLayer {
    /// Around `inner`.
    pub fn new(inner: Box<dyn Driver>) -> Self {
        let pool = inner.pool().clone();
        Self {
            inner,
            pool,
            ended: Vec::new(),
        }
    }

    /// Carry an operation on until it waits or has ended.
    fn carry_on(&mut self, token: u64, mut next: Next) -> Option<Completion> {
        loop {
            let below = match next {
                Next::Over(result, op) => return Some(Completion { token, result, op }),
                Next::Below(op) => self.inner.submit(token, op)?,
            };
            next = match below.op.secure() {
                Some(secure) => secure.ended(below.result, below.op, &self.pool),
                None => Next::Over(below.result, below.op),
            };
        }
    }
}

impl Driver for TlsLayer {
    fn submit(&mut self, token: u64, op: Op) -> Option<Completion> {
        match op.secure() {
            None => self.inner.submit(token, op),
            Some(secure) => {
                let next = secure.begin(op, &self.pool);
                self.carry_on(token, next)
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        let waited = self.inner.wait(timeout, out);
        if out[before..].iter().all(|completion| completion.op.secure().is_none()) {
            return waited;
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.extend(out.drain(before..));
        for Completion { token, result, op } in ended.drain(..) {
            let over = match op.secure() {
                None => Some(Completion { token, result, op }),
                Some(secure) => {
                    let next = secure.ended(result, op, &self.pool);
                    self.carry_on(token, next)
                }
            };
            out.extend(over);
        }
        self.ended = ended;
        waited
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn pool(&self) -> &BufferPool {
        self.inner.pool()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn sends_files(&self) -> bool {
        self.inner.sends_files()
    }

    fn describe(&self) -> EngineReport {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests;
