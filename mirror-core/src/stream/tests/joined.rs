//! An outflow and an intake with a link between them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::credit::Credit;
use super::super::frame::{Need, Sequence};
use super::super::intake::{Intake, Started, Step};
use super::super::outflow::{Outflow, Sent};
use super::{BARRIER, need};
use crate::event::ConnectionId;

const VOLUMES: u16 = 3;

#[derive(Clone, Copy, Debug)]
struct Wish {
    volume: u16,
    need: Need,
}

/// What happens next; a number chooses among what there is.
#[derive(Clone, Debug)]
enum Turn {
    Offer(Wish),
    Send,
    Arrive,
    Start,
    Finish(usize),
    Flushed(usize),
    Answer,
    Cut,
}

/// What was seen at the receiver, in order. All of one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Arrived(Sequence, Short),
    Started(Sequence),
    Finished(Sequence),
    FlushBegun(u16),
    Flushed(u16),
}

/// Volume, whether it mutates, whether it is a barrier.
type Short = (u16, bool, bool);

struct World {
    outflow: Outflow<Wish>,
    intake: Intake<Wish>,
    connection: ConnectionId,
    link: VecDeque<(Sequence, Wish)>,
    back: VecDeque<(Vec<Sequence>, Option<Credit>)>,
    running: Vec<Started>,
    flushing: Vec<(ConnectionId, u16)>,
    seen: Vec<Seen>,
    window: Credit,
    offered: usize,
    done: usize,
    is_cut: bool,
}

impl World {
    fn new(window: Credit) -> Self {
        let mut intake = Intake::new(usize::from(VOLUMES), window);
        intake.connect(ConnectionId(1));
        Self {
            outflow: Outflow::new(window),
            intake,
            connection: ConnectionId(1),
            link: VecDeque::new(),
            back: VecDeque::new(),
            running: Vec::new(),
            flushing: Vec::new(),
            seen: Vec::new(),
            window,
            offered: 0,
            done: 0,
            is_cut: false,
        }
    }

    fn turn(&mut self, turn: &Turn) -> bool {
        match turn {
            Turn::Offer(wish) => {
                self.outflow.offer(Duration::ZERO, wish.need, *wish);
                self.offered += 1;
                true
            }
            Turn::Send => self.send(),
            Turn::Arrive => self.arrive(),
            Turn::Start => self.start(),
            Turn::Finish(choice) => self.finish(*choice),
            Turn::Flushed(choice) => self.flushed(*choice),
            Turn::Answer => self.answer(),
            Turn::Cut => {
                self.cut();
                true
            }
        }
    }

    fn send(&mut self) -> bool {
        let Some(sent) = self.outflow.poll() else { return false };
        match sent {
            Sent::Request { sequence, item } => self.link.push_back((sequence, *item)),
            Sent::Barrier { sequence, item } => {
                self.link.push_back((sequence, item));
                self.done += 1;
            }
        }
        true
    }

    /// The sender's count of credits never breaks the receiver's rules.
    fn arrive(&mut self) -> bool {
        let Some((sequence, wish)) = self.link.pop_front() else {
            return false;
        };
        self.intake.arrive(sequence, wish.volume, wish.need, wish).unwrap();
        let short = (wish.volume, wish.need.mutates, wish.need.barrier);
        self.seen.push(Seen::Arrived(sequence, short));
        true
    }

    fn start(&mut self) -> bool {
        let Some(step) = self.intake.poll() else { return false };
        match step {
            Step::Start { started, .. } => {
                assert!(
                    self.running.iter().all(|other| other.connection == started.connection),
                    "I11: the old connection's requests have ended"
                );
                self.running.push(started);
                self.seen.push(Seen::Started(started.sequence));
            }
            Step::Flush { connection, volume } => {
                self.flushing.push((connection, volume));
                self.seen.push(Seen::FlushBegun(volume));
            }
        }
        true
    }

    fn finish(&mut self, choice: usize) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let started = self.running.swap_remove(choice % self.running.len());
        let current = started.connection == self.connection;
        assert_eq!(self.intake.finished(started, true), current);
        if current {
            self.seen.push(Seen::Finished(started.sequence));
        }
        self.reconnect();
        true
    }

    fn flushed(&mut self, choice: usize) -> bool {
        if self.flushing.is_empty() {
            return false;
        }
        let (connection, volume) = self.flushing.swap_remove(choice % self.flushing.len());
        self.intake.flushed(connection, volume);
        if connection == self.connection {
            self.seen.push(Seen::Flushed(volume));
        }
        true
    }

    fn answer(&mut self) -> bool {
        let done = self.intake.take_done(2).unwrap_or_default();
        let credit = self.intake.take_credit();
        if !done.is_empty() || credit.is_some() {
            self.back.push_back((done, credit));
        }
        let Some((done, credit)) = self.back.pop_front() else {
            return false;
        };
        for sequence in done {
            self.outflow.answered(sequence).unwrap();
            self.done += 1;
        }
        if let Some(credit) = credit {
            self.outflow.credit(credit);
        }
        true
    }

    fn cut(&mut self) {
        check(&core::mem::take(&mut self.seen));
        self.link.clear();
        self.back.clear();
        if !self.is_cut {
            let _ = self.intake.disconnect();
        }
        // What was not answered is another connection's business.
        self.done += self.outflow.drain().count();
        self.outflow = Outflow::new(Credit::default());
        self.connection = ConnectionId(self.connection.0 + 1);
        self.is_cut = true;
        self.reconnect();
    }

    /// As the shell does: once nothing of the old connection is in progress.
    fn reconnect(&mut self) {
        if self.is_cut && self.intake.is_quiet() {
            self.intake.connect(self.connection);
            self.outflow.credit(self.window);
            self.is_cut = false;
        }
    }

    /// Everything goes on until nothing can: then everything must be done.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for turn in [Turn::Send, Turn::Arrive, Turn::Start, Turn::Answer] {
                moved |= self.turn(&turn);
            }
            moved |= self.finish(0) | self.flushed(0);
            if !moved {
                break;
            }
        }
        assert!(self.outflow.is_empty(), "something waits for ever");
        assert_eq!(self.done, self.offered);
        check(&self.seen);
    }
}

/// Of one connection: started in order; nothing behind a barrier starts before all in front has finished and is
/// durable.
fn check(seen: &[Seen]) {
    let place = |what: Seen| seen.iter().position(|other| *other == what);
    let mut arrived = Vec::new();
    let mut last = 0;
    for (now, event) in seen.iter().enumerate() {
        match *event {
            Seen::Arrived(sequence, wish) => {
                assert_eq!(sequence, arrived.len() as u64 + 1);
                arrived.push(wish);
            }
            Seen::Started(sequence) => {
                assert!(sequence > last, "in the order of their numbers");
                last = sequence;
                let front = &arrived[..sequence as usize - 1];
                let barrier = front.iter().rposition(|(_, _, barrier)| *barrier);
                for (index, (volume, mutates, _)) in front[..barrier.unwrap_or(0)].iter().enumerate() {
                    let sequence = index as u64 + 1;
                    if front[index].2 {
                        continue;
                    }
                    let finished = place(Seen::Finished(sequence)).unwrap();
                    assert!(finished < now, "finished in front of the barrier");
                    if *mutates {
                        let after = &seen[finished..now];
                        let begun = after
                            .iter()
                            .position(|seen| *seen == Seen::FlushBegun(*volume))
                            .unwrap();
                        assert!(
                            after[begun..].contains(&Seen::Flushed(*volume)),
                            "durable in front of the barrier"
                        );
                    }
                }
            }
            _ => {}
        }
    }
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let wish = (0..VOLUMES, 0..60_u64, any::<bool>()).prop_map(|(volume, cost, mutates)| Wish {
        volume,
        need: Need { mutates, ..need(cost) },
    });
    let barrier = Wish {
        volume: 0,
        need: BARRIER,
    };
    prop_oneof![
        6 => wish.prop_map(Turn::Offer),
        2 => Just(Turn::Offer(barrier)),
        8 => Just(Turn::Send),
        8 => Just(Turn::Arrive),
        8 => Just(Turn::Start),
        6 => any::<usize>().prop_map(Turn::Finish),
        3 => any::<usize>().prop_map(Turn::Flushed),
        4 => Just(Turn::Answer),
        1 => Just(Turn::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn order_epochs_and_credits_hold_in_any_order_of_events(
        bytes in 1..100_u64, requests in 1..8_u32, turns in vec(any_turn(), 1..300)
    ) {
        let mut world = World::new(Credit { bytes, requests });
        for turn in &turns {
            world.turn(turn);
        }
        world.settle();
    }
}

/// The check sees each of the rules broken: it is not empty.
#[test]
fn the_check_is_sharp() {
    let write = Seen::Arrived(1, (0, true, false));
    let barrier = Seen::Arrived(2, (0, false, true));
    let next = Seen::Arrived(3, (0, true, false));
    let good = [
        write,
        barrier,
        next,
        Seen::Started(1),
        Seen::Finished(1),
        Seen::FlushBegun(0),
        Seen::Flushed(0),
        Seen::Started(3),
    ];
    check(&good);
    for (left_out, moved_to) in [(4, None), (5, None), (6, None), (7, Some(4)), (7, Some(6))] {
        let mut bad = good.to_vec();
        let event = bad.remove(left_out);
        if let Some(place) = moved_to {
            bad.insert(place, event);
        }
        assert!(super::std::panic::catch_unwind(|| check(&bad)).is_err(), "{bad:?}");
    }
}
