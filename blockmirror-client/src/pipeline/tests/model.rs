//! Against the toy server: every request is answered once, with what the server meant, however its bytes are cut and
//! its replies mixed; and whatever bytes come, nothing breaks and nothing is taken that was not asked for.

use std::collections::HashMap;

use proptest::prelude::*;

use super::toy::{Answer, Chance, answer};
use super::*;

pub(super) const SIZE: u64 = 4096;
/// More than any run needs: a request has some hundreds of frames at most.
const MAX_STEPS: u32 = 100_000;

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        any::<bool>().prop_map(|df| Command::Read { df }),
        any::<bool>().prop_map(|fua| Command::Write { fua }),
        Just(Command::Flush),
        any::<bool>().prop_map(|fua| Command::Trim { fua }),
        any::<(bool, bool, bool)>().prop_map(|(fua, no_hole, fast)| Command::WriteZeroes { fua, no_hole, fast }),
        any::<bool>().prop_map(|one| Command::BlockStatus { one }),
        Just(Command::Cache),
    ]
}

fn styles() -> impl Strategy<Value = ReplyStyle> {
    prop_oneof![
        Just(ReplyStyle::Simple),
        Just(ReplyStyle::Structured),
        Just(ReplyStyle::Extended)
    ]
}

fn requests() -> impl Strategy<Value = Vec<(Command, u64, u64)>> {
    let range = (0..SIZE).prop_flat_map(|offset| (Just(offset), 1..=(SIZE - offset).min(600)));
    proptest::collection::vec(
        (commands(), range).prop_map(|(command, (at, length))| (command, at, length)),
        1..40,
    )
}

/// A host, a pipeline and the toy.
struct World {
    pipeline: Pipeline<usize>,
    style: ReplyStyle,
    chance: Chance,
    /// Frames of replies not sent yet, by tag.
    unsent: Vec<(usize, std::vec::IntoIter<Vec<u8>>)>,
    /// What must be reported.
    expected: HashMap<usize, Answer>,
    /// Sent by the toy, not received.
    wire: Vec<u8>,
}

impl World {
    fn new(window: usize, style: ReplyStyle, seed: u64) -> Self {
        let mut server = negotiated(SIZE, style);
        server.flags.set(TransmissionFlags::SEND_DF, style.has_chunks());
        let pipeline = Pipeline::new(&server, window);
        let (chance, expected) = (Chance(seed), HashMap::new());
        Self {
            pipeline,
            style,
            chance,
            unsent: Vec::new(),
            expected,
            wire: Vec::new(),
        }
    }

    fn ask(&mut self, tag: usize, (command, offset, length): (Command, u64, u64)) {
        let command = match command {
            Command::Read { .. } | Command::BlockStatus { .. } if !self.style.has_chunks() => READ,
            command => command,
        };
        let request = start(&mut self.pipeline, command, offset, length, tag);
        let mut answer = answer(&request, self.style, &mut self.chance);
        self.unsent.push((tag, std::mem::take(&mut answer.frames).into_iter()));
        self.expected.insert(tag, answer);
    }

    /// The toy sends one frame of one of its replies.
    fn send_frame(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let which = self.chance.below(self.unsent.len() as u64) as usize;
        match self.unsent[which].1.next() {
            Some(frame) => self.wire.extend(frame),
            None => drop(self.unsent.swap_remove(which)),
        }
    }

    /// Some of what is on the wire arrives.
    fn arrive(&mut self) -> Result<Vec<Event<usize>>, PeerMisbehaved> {
        let length = self.chance.below(self.wire.len() as u64 + 1) as usize;
        let part: Vec<u8> = self.wire.drain(..length).collect();
        receive(&mut self.pipeline, &part)
    }

    fn check(&mut self, events: Vec<Event<usize>>) -> Result<usize, TestCaseError> {
        let count = events.len();
        for Event::Done {
            tag,
            outcome,
            message,
            data,
            statuses,
        } in events
        {
            let expected = self.expected.remove(&tag);
            prop_assert!(expected.is_some(), "{} was answered twice", tag);
            let expected = expected.unwrap();
            prop_assert_eq!(
                (outcome, message, data, statuses),
                (expected.outcome, expected.message, expected.data, expected.statuses)
            );
        }
        Ok(count)
    }
}

proptest! {
    #[test]
    fn every_request_is_answered_once_and_right(
        requests in requests(), window in 1usize..12, style in styles(), seed: u64,
    ) {
        let mut world = World::new(window, style, seed);
        let mut waiting = requests.iter().copied().enumerate();
        let mut next = waiting.next();
        let mut answered = 0;
        let mut steps = 0;
        while answered < requests.len() {
            steps += 1;
            prop_assert!(steps < MAX_STEPS, "{} requests are never answered", requests.len() - answered);
            if world.pipeline.has_room() && let Some((tag, request)) = next {
                world.ask(tag, request);
                next = waiting.next();
            }
            world.send_frame();
            let events = world.arrive().map_err(|fault| TestCaseError::fail(fault.to_string()))?;
            answered += world.check(events)?;
            prop_assert_eq!(world.pipeline.in_flight(), world.expected.len());
        }
        prop_assert!(world.expected.is_empty());
        prop_assert_eq!(world.pipeline.oldest(), None);
    }

    /// Bytes changed, lost or doubled on the way: the server is found out or its word is taken, but each request is
    /// answered at most once, a READ brings exactly the bytes that were asked for, and a lost connection gives back
    /// the rest.
    #[test]
    fn damaged_replies_do_no_harm(
        requests in requests(), style in styles(), seed: u64, damage in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut world = World::new(requests.len(), style, seed);
        for (tag, request) in requests.iter().copied().enumerate() {
            world.ask(tag, request);
        }
        while !world.unsent.is_empty() {
            world.send_frame();
        }
        for (place, value, how) in damage {
            let place = usize::from(place) % world.wire.len();
            match how {
                0 => world.wire[place] ^= value,
                1 => drop(world.wire.remove(place)),
                _ => world.wire.insert(place, value),
            }
        }
        let mut answered = vec![false; requests.len()];
        while !world.wire.is_empty() {
            let Ok(events) = world.arrive() else { break };
            for Event::Done { tag, data, .. } in events {
                prop_assert!(!std::mem::replace(&mut answered[tag], true));
                if let Some(data) = data {
                    prop_assert_eq!(data.len(), requests[tag].2 as usize);
                }
            }
        }
        for tag in world.pipeline.drain() {
            // Events of the call that found the fault are not seen here, so a tag may be missing, but never doubled.
            prop_assert!(!std::mem::replace(&mut answered[tag], true));
        }
    }
}
