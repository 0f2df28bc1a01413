//! What a link does with the frames that come.

use std::io;

use mirror_core::stream::frame::{Need, Sequence};
use mirror_core::stream::intake::IntakeError;
use mirror_core::stream::{Answer, Control, Credit, Frame, Intake, Request};

use super::ledger::{Expects, judge_answer, protocol, unfit};
use super::link::StreamLink;
use super::work::{Arrived, StreamEvent, StreamLost, StreamOutcome};
use crate::data::arriving::NOW_BYTES;
use crate::data::outbox::is_transient;
use crate::data::turn::Turn;
use crate::ring::{Op, Payload};

impl StreamLink {
    /// A receive came back. Requests go to the `intake`, the rest to the events.
    pub(super) fn on_received(
        &mut self,
        turn: &Turn,
        intake: &mut Intake<Arrived>,
        result: io::Result<usize>,
        op: Op,
    ) -> Result<(), StreamLost> {
        self.receiving = false;
        let Op::Receive { buffer, .. } = op else { return Ok(()) };
        let count = self.heard(turn, result)?;
        self.inbound.restore(buffer, count);
        if self.closing.is_some() {
            self.inbound.discard();
            return Ok(());
        }
        self.take_frames(turn, intake)
    }

    /// How many bytes a receive has brought.
    fn heard(&mut self, turn: &Turn, result: io::Result<usize>) -> Result<usize, StreamLost> {
        let count = match (result, &self.closing) {
            (Ok(0), Some(closing)) => return Err(StreamLost::Ended(closing.reason.clone())),
            (Ok(0), None) => return Err(StreamLost::Closed("the peer closed the connection".to_owned())),
            (Ok(count), _) => count,
            (Err(error), _) if is_transient(&error) => 0,
            (Err(error), None) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(StreamLost::Closed("the peer broke the connection off".to_owned()));
            }
            (Err(error), _) => return Err(StreamLost::Network(format!("cannot receive from the peer: {error}"))),
        };
        if count > 0 {
            self.life.hear(turn.now);
        }
        Ok(count)
    }

    /// Receive what is there of a long payload, at most `budget` bytes and a piece. True: that was the rest of it.
    fn receive_now(&mut self, turn: &Turn, budget: &mut usize) -> Result<bool, StreamLost> {
        while *budget > 0 && !self.receiving {
            let Some(result) = self.inbound.receive_now(&self.socket) else {
                break;
            };
            let count = self.heard(turn, result)?;
            *budget = budget.saturating_sub(count.max(1));
        }
        Ok(self.inbound.is_whole())
    }

    /// Take every whole frame that is there.
    pub(super) fn take_frames(&mut self, turn: &Turn, intake: &mut Intake<Arrived>) -> Result<(), StreamLost> {
        let pool = turn.driver.pool();
        let mut budget = NOW_BYTES;
        loop {
            let outflow = &self.outflow;
            let next = self.inbound.next(pool, |frame| match frame {
                Frame::Request {
                    sequence,
                    volume,
                    request,
                } => intake.admit(*sequence, *volume, request.need()).map_err(broken),
                Frame::Answer(answer) => judge_answer(answer, outflow),
                Frame::Control(_) => Ok(()),
            })?;
            let Some((frame, payload)) = next else {
                if self.receive_now(turn, &mut budget)? {
                    continue;
                }
                // Answers and credits may let more go.
                self.pump(turn);
                return Ok(());
            };
            match frame {
                Frame::Request {
                    sequence,
                    volume,
                    request,
                } => self.take_request(intake, sequence, volume, request, payload)?,
                Frame::Answer(answer) => self.take_answer(turn, answer, payload)?,
                Frame::Control(control) => self.take_control(turn, control),
            }
        }
    }

    fn take_request(
        &mut self,
        intake: &mut Intake<Arrived>,
        sequence: Sequence,
        volume: u16,
        request: Request,
        payload: Option<Payload>,
    ) -> Result<(), StreamLost> {
        self.received.count(&request);
        let need: Need = request.need();
        self.runs_ahead |= need.barrier;
        let arrived = Arrived { request, payload };
        intake.arrive(sequence, volume, need, arrived).map_err(broken)
    }

    fn take_answer(&mut self, turn: &Turn, answer: Answer, payload: Option<Payload>) -> Result<(), StreamLost> {
        self.life.arrives(turn.now);
        let (sequence, outcome) = match answer {
            Answer::Done(sequences) => {
                for sequence in sequences {
                    self.answered(turn, sequence, StreamOutcome::Done)?;
                }
                return Ok(());
            }
            Answer::Failed { sequence, failure } => (sequence, StreamOutcome::Failed(failure)),
            Answer::Differs { sequence, ranges } => (sequence, StreamOutcome::Differs(ranges)),
            Answer::Contents {
                sequence,
                ranges,
                holes,
            } => (sequence, StreamOutcome::Contents { ranges, holes, payload }),
        };
        self.answered(turn, sequence, outcome)
    }

    fn answered(&mut self, turn: &Turn, sequence: Sequence, outcome: StreamOutcome) -> Result<(), StreamLost> {
        let asked = self
            .outflow
            .answered(sequence)
            .map_err(|error| protocol(error.to_string()))?;
        self.in_flight -= 1;
        self.patience.answered(turn.now, sequence, &self.outflow);
        if matches!(outcome, StreamOutcome::Done) && asked.expects != Expects::Done {
            return Err(unfit(sequence));
        }
        self.events.push(StreamEvent::Answered {
            volume: asked.volume,
            work: asked.work,
            outcome,
        });
        Ok(())
    }

    fn take_control(&mut self, turn: &Turn, control: Control) {
        if self.life.on_control(turn.now, &control) {
            return;
        }
        match control {
            Control::Credit { bytes, requests } => {
                self.life.arrives(turn.now);
                self.outflow.credit(Credit { bytes, requests });
            }
            control => self.events.push(StreamEvent::Control(control)),
        }
    }
}

fn broken(error: IntakeError) -> StreamLost {
    protocol(error.to_string())
}
