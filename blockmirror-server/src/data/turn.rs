//! What every part of the data thread needs during one turn of its loop.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::message::FromData;
use super::plan::Limits;
use super::token::Token;
use crate::ring::{Completion, Driver, Op};

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
    /// Connections that have more requests to take once what they have taken was looked after.
    pub(crate) resume: Vec<u32>,
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
            control,
            thread,
        }
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
