//! The streams to one peer, one after the other: the present link, and what came on it and the ones before.

use std::io;
use std::time::Duration;

use mirror_core::event::{ConnectionId, Failure};
use mirror_core::stream::intake::{Started, Step};
use mirror_core::stream::{Control, Credit, Intake, Request};

use super::crossing::Standing;
use super::life::Passed;
use super::link::{StreamLink, StreamSetup};
use super::work::{Arrived, Checked, Remains, StreamEvent, StreamLost, StreamReply, StreamWork};
use crate::data::token::Token;
use crate::data::turn::Turn;
use crate::ring::Op;

/// Numbers of requests answered by one frame at most.
const DONE_BATCH: usize = 1024;

/// The streams to one peer of a resource, one at a time.
///
/// ```text
///          attach                    open                          lose
///  empty ─────────▶ held ──────────────────────────▶ open ─────────────────▶ empty
///                    heartbeats only, until nothing of an older connection is in progress (I11)
/// ```
/// The owner calls [`flush`](Self::flush) once per turn, [`check_time`](Self::check_time) when
/// [`next_timeout`](Self::next_timeout) has come, and takes [events](Self::take_events) after anything that may have
/// brought some. A `StreamLost` says that the link is lost: take the events that came before, then
/// [`lose`](Self::lose) it.
pub(crate) struct StreamPort {
    intake: Intake<Arrived>,
    link: Option<StreamLink>,
    /// The link's requests and words are let through.
    open: bool,
    /// Connections that were lost because what came was damaged.
    damaged: u64,
}

impl StreamPort {
    /// For a resource of so many volumes; `window` is what our HELLOs grant.
    pub(crate) fn new(volumes: usize, window: Credit) -> Self {
        Self {
            intake: Intake::new(volumes, window),
            link: None,
            open: false,
            damaged: 0,
        }
    }

    /// A new connection; the one before has been lost. Nothing comes out of it before [`open`](Self::open).
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(crate) fn attach(&mut self, turn: &Turn, setup: StreamSetup, tokens: (Token, Token)) -> io::Result<()> {
        assert!(self.link.is_none(), "I11: one stream at a time");
        self.link = Some(StreamLink::new(turn, setup, tokens)?);
        Ok(())
    }

    /// Nothing that came on an older connection of this peer is in progress.
    pub(crate) fn is_quiet(&self) -> bool {
        self.intake.is_quiet()
    }

    /// Nothing that came from this peer, on whatever connection, is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.intake.in_progress() == 0
    }

    /// A link is there and waits for [`open`](Self::open).
    pub(crate) fn is_held(&self) -> bool {
        self.link.is_some() && !self.open
    }

    /// Take requests of the present link from here on: nothing of an older connection, of this peer or of an older
    /// Primary, is in progress any more.
    pub(crate) fn open(&mut self, turn: &Turn) -> Result<(), StreamLost> {
        let Self { intake, link, open, .. } = self;
        let Some(link) = link.as_mut().filter(|_| !*open) else {
            return Ok(());
        };
        intake.connect(link.connection);
        *open = true;
        // Something may have come with the handshake.
        let outcome = link.take_frames(turn, intake);
        self.start();
        outcome
    }

    /// The present connection.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.link.as_ref().map(|link| link.connection)
    }

    /// For the judgement about a second connection to the same peer, [`supersedes`](super::supersedes).
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.link.as_ref().map(StreamLink::standing)
    }

    /// Ask the peer for something: goes out in this order, once there is credit, and room on the
    /// wire. An `Answered` will come of it, unless
    /// it is a barrier or the link is lost first. `payload`: exactly of Write and CopyWrite, as long as the range.
    /// False: there is no link.
    pub(crate) fn ask(
        &mut self,
        turn: &Turn,
        volume: u16,
        request: Request,
        payload: Option<Checked>,
        work: StreamWork,
    ) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.ask(turn, volume, request, payload, work);
        true
    }

    /// A request of the peer has ended. Not answered when its connection is gone. The `Done` of one turn go out as one
    /// frame.
    pub(crate) fn finished(&mut self, started: Started, reply: StreamReply) {
        let is_done = matches!(reply, StreamReply::Done);
        let is_present = self.intake.finished(started, is_done);
        if let (true, false, Some(link)) = (is_present, is_done, &mut self.link) {
            link.answer(started.sequence, reply);
        }
        self.start();
    }

    /// The volume was flushed for the end of an epoch. What is behind it is never applied when that failed.
    pub(crate) fn flushed(
        &mut self,
        connection: ConnectionId,
        volume: u16,
        outcome: Result<(), Failure>,
    ) -> Result<(), StreamLost> {
        if let Err(failure) = outcome {
            return match self.connection() {
                Some(present) if present == connection => Err(StreamLost::Ended(format!(
                    "what the peer has written cannot be made durable here: {failure:?}"
                ))),
                _ => Ok(()),
            };
        }
        self.intake.flushed(connection, volume);
        self.start();
        Ok(())
    }

    /// Say this to the peer's resource: behind every answer given so far.
    pub(crate) fn control(&mut self, control: &Control) {
        self.gather();
        if let Some(link) = &mut self.link {
            link.control(control);
        }
    }

    /// Events since the last call, in order; the vector given is used for the next ones. None before `open`.
    pub(crate) fn take_events(&mut self, empty: &mut Vec<StreamEvent>) {
        debug_assert!(empty.is_empty());
        if let (true, Some(link)) = (self.open, &mut self.link) {
            std::mem::swap(&mut link.events, empty);
        }
    }

    /// Events that were taken and have to wait: they come first at the next call of [`take_events`](Self::take_events).
    pub(crate) fn put_back(&mut self, events: &mut Vec<StreamEvent>) {
        if let Some(link) = &mut self.link {
            events.append(&mut link.events);
            std::mem::swap(&mut link.events, events);
        }
    }

    /// Send what is queued, and see to it that a receive is in flight.
    pub(crate) fn flush(&mut self, turn: &mut Turn) {
        if self.link.as_ref().is_some_and(StreamLink::is_ready) {
            self.gather();
        }
        if let Some(link) = &mut self.link {
            link.flush(turn);
        }
    }

    /// A send came back; of another connection than the present one it means nothing.
    pub(crate) fn on_sent(
        &mut self,
        turn: &mut Turn,
        connection: ConnectionId,
        result: io::Result<usize>,
        op: Op,
    ) -> Result<(), StreamLost> {
        match self.link_of(connection) {
            Some(link) => link.on_sent(turn, result, op),
            None => Ok(()),
        }
    }

    /// A receive came back; of another connection than the present one it means nothing.
    pub(crate) fn on_received(
        &mut self,
        turn: &Turn,
        connection: ConnectionId,
        result: io::Result<usize>,
        op: Op,
    ) -> Result<(), StreamLost> {
        let Self { intake, link, .. } = self;
        let Some(link) = link.as_mut().filter(|link| link.connection == connection) else {
            return Ok(());
        };
        let outcome = link.on_received(turn, intake, result, op);
        if matches!(outcome, Err(StreamLost::Damaged(_))) {
            self.damaged += 1;
        }
        self.start();
        outcome
    }

    /// Heartbeats, silence, and requests left unanswered.
    pub(crate) fn check_time(&mut self, turn: &Turn) -> Result<(), StreamLost> {
        match &mut self.link {
            Some(link) => link.check_time(turn),
            None => Ok(()),
        }
    }

    /// When `check_time` wants to be called next.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.link.as_ref().map(StreamLink::next_timeout)
    }

    /// Close the link in good order: nothing more is taken, what was answered and said goes out, requests that were
    /// not sent never are. It is lost (`Ended`) when the peer has closed its side, too, or did not in time.
    pub(crate) fn close(&mut self, turn: &Turn, reason: impl Into<String>) {
        self.gather();
        if let Some(link) = &mut self.link {
            link.close(turn, reason.into());
        }
    }

    /// End the link here and now: what the kernel has not sent never is, what came and was not started never will be;
    /// what was started goes on, and is waited for by [`is_quiet`](Self::is_quiet).
    pub(crate) fn lose(&mut self) -> Option<Remains> {
        let mut link = self.link.take()?;
        self.open = false;
        let mut dropped = Passed::default();
        for arrived in self.intake.disconnect() {
            dropped.count(&arrived.request);
        }
        // Started as far as the intake knows, but nobody has been told: it ends here.
        for event in link.events.drain(..) {
            if let StreamEvent::Request { started, request, .. } = event {
                self.intake.finished(started, false);
                dropped.count(&request);
            }
        }
        let remains = Remains {
            connection: link.connection,
            loss: link.loss(dropped),
        };
        link.end();
        Some(remains)
    }

    /// Requests asked and not answered, those that wait to be sent included.
    pub(crate) fn unanswered(&self) -> usize {
        self.link.as_ref().map_or(0, StreamLink::unanswered)
    }

    /// Payload bytes asked that wait to be sent.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.link.as_ref().map_or(0, StreamLink::waiting_bytes)
    }

    /// Age of the oldest request asked and not answered.
    pub(crate) fn lag(&self, now: Duration) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |link| link.lag(now))
    }

    /// The peer has shown of late that it hears us: if the connection ends now, its process has ended, or it said why.
    pub(crate) fn is_heard(&self, now: Duration) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_heard(now))
    }

    /// The last heartbeat's way there and back; `None`: none has come back.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.link.as_ref().and_then(StreamLink::round_trip)
    }

    /// Connections lost because what came was damaged: none while memory and network are sound.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// When the present link was made.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.link.as_ref().map(StreamLink::since)
    }

    fn link_of(&mut self, connection: ConnectionId) -> Option<&mut StreamLink> {
        self.link.as_mut().filter(|link| link.connection == connection)
    }

    /// What may be started now becomes events.
    fn start(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some(step) = self.intake.poll() {
            link.events.push(match step {
                Step::Start { started, volume, item } => StreamEvent::Request {
                    started,
                    volume,
                    request: item.request,
                    payload: item.payload,
                },
                Step::Flush { connection, volume } => StreamEvent::FlushVolume { connection, volume },
            });
        }
    }

    /// Put what was done, and what is granted for it, behind what is queued.
    fn gather(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some(done) = self.intake.take_done(DONE_BATCH) {
            link.done(&done);
        }
        if let Some(Credit { bytes, requests }) = self.intake.take_credit() {
            link.control(&Control::Credit { bytes, requests });
        }
    }
}
