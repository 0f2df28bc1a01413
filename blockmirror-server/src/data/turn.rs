//! What every part of the data thread needs during one turn of its loop.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::message::FromData;
use super::plan::Limits;
use super::token::Token;
use crate::ring::{Completion, Driver, Op};

/// Bytes of READs taken in one turn of the loop, by all connections together: what whoever asks next waits for at most.
const TURN_READ_BYTES: u64 = 1 << 20;
/// READs up to this many bytes are taken all the same: they hold nobody up.
const SMALL_READ_BYTES: u64 = 64 << 10;

/// One turn: the driver, the time, and what finished at once.
pub(crate) struct Turn {
    /// The I/O engine.
    pub(crate) driver: Box<dyn Driver>,
    /// Time since the thread started, read once per turn.
    pub(crate) now: Duration,
    /// Bounds of this thread.
    pub(crate) limits: Limits,
    /// Operations that finished inside `submit`; dispatched by the loop, never from within, so nothing recurses.
    pub(crate) inline: Vec<Completion>,
    /// Connections that have more requests to take once what they have taken was looked after. Whoever has waited longest
    /// is first.
    pub(crate) resume: Vec<u32>,
    /// Bytes of READs taken in this turn.
    pub(crate) read_bytes: u64,
    control: UnboundedSender<(usize, FromData)>,
    thread: usize,
}

impl Turn {
    pub(crate) fn new(
        driver: Box<dyn Driver>,
        limits: Limits,
        control: UnboundedSender<(usize, FromData)>,
        thread: usize,
    ) -> Self {
        Self {
            driver,
            now: Duration::ZERO,
            limits,
            inline: Vec::new(),
            resume: Vec::new(),
            read_bytes: 0,
            control,
            thread,
        }
    }

    /// A READ of so many bytes may be taken in this turn.
    pub(crate) fn may_read(&self, bytes: u64) -> bool {
        bytes <= SMALL_READ_BYTES || !self.has_read_enough()
    }

    /// What waits for this turn to end should not wait longer.
    pub(crate) fn has_read_enough(&self) -> bool {
        self.read_bytes >= TURN_READ_BYTES
    }

    /// Hand an operation to the driver.
    pub(crate) fn submit(&mut self, token: Token, op: Op) {
        if let Some(completion) = self.driver.submit(token.encode(), op) {
            self.inline.push(completion);
        }
    }

    /// Tell the control side. It may be gone at the very end; then nobody is left to tell.
    pub(crate) fn tell(&self, message: FromData) {
        let _ = self.control.send((self.thread, message));
    }
}
