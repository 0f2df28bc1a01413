#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::branch;
use crate::data::plan::{BranchPlan, Limits};
use crate::data::token::Kind;
use crate::layers::{Fault, FaultLayer, FaultPlan};
use crate::ring::{EngineChoice, OpKind, open_driver};

const SIZE: u64 = 1 << 20;

/// A branch in a directory of its own, and a driver that fails as `faults` say.
struct Bench {
    directory: tempfile::TempDir,
    branch: Branch,
    turn: Turn,
    writes: u32,
}

impl Bench {
    fn new(faults: Vec<(OpKind, Vec<Fault>)>) -> Self {
        let plan = FaultPlan::new();
        for (kind, faults) in faults {
            plan.add(kind, faults);
        }
        let driver = FaultLayer::new(open_driver(EngineChoice::Auto).unwrap(), plan);
        let (control, _messages) = tokio::sync::mpsc::unbounded_channel();
        let directory = tempfile::tempdir().unwrap();
        let place = BranchPlace {
            directory: directory.path().to_owned(),
            node: "alpha".to_owned(),
        };
        let plan = BranchPlan {
            place,
            unfinished: None,
        };
        Self {
            branch: Branch::new(Some(plan), false),
            turn: Turn::new(Box::new(driver), Limits::default(), control, 0),
            directory,
            writes: 0,
        }
    }

    fn change(&mut self, offset: u64) -> ImageRequest {
        ImageRequest::Write {
            payload: self.turn.driver.pool().payload_of(&[9; 100]),
            offset,
            durable: false,
        }
    }

    fn hold(&mut self, offset: u64) {
        let request = self.change(offset);
        assert!(self.branch.must_save(&request), "at {offset}");
        self.branch.hold(ImageWork::Host(offset as u32), request);
    }

    /// Go on until there is nothing to do: the changes that may go to the image. What an image holds is `old`; `None`: it
    /// cannot be read.
    fn settle(&mut self, old: Option<u8>) -> Vec<u64> {
        let token = Token::new(Kind::Branch, 0);
        let mut released = Vec::new();
        loop {
            for completion in std::mem::take(&mut self.turn.inline) {
                let (result, op) = (completion.result, completion.op);
                self.branch.on_done(&mut self.turn, token, result, op);
            }
            match self.branch.next() {
                Next::Nothing => {}
                Next::Release(held) => {
                    released.extend(held.iter().map(|held| held.request.range().0));
                    continue;
                }
                Next::Read => {
                    self.read(old);
                    continue;
                }
                Next::Write => {
                    self.writes += 1;
                    self.branch.write(&mut self.turn, token);
                    continue;
                }
            }
            let busy = self.branch.round.as_ref().is_some_and(|round| round.in_flight > 0);
            if !busy {
                return released;
            }
            let mut completions = std::mem::take(&mut self.turn.inline);
            if completions.is_empty() {
                let patience = Some(Duration::from_secs(20));
                self.turn.driver.wait(patience, &mut completions).unwrap();
                assert!(!completions.is_empty(), "nothing comes any more");
            }
            self.turn.inline = completions;
        }
    }

    fn read(&mut self, old: Option<u8>) {
        while let Some(part) = self.branch.next_part() {
            let (piece, id) = self.branch.take_part(part, false);
            let length = (piece.end - piece.start) as usize;
            let mut buffer = self.turn.driver.pool().take(length);
            buffer.as_mut_slice().fill(old.unwrap_or_default());
            let result = old.map(|_| ()).ok_or(ImageError::Truncated { offset: piece.start });
            self.branch.was_read(id.unwrap(), result, Some(buffer));
        }
    }

    /// After the pause.
    fn again(&mut self, old: Option<u8>) -> Vec<u64> {
        assert!(!self.branch.is_due(self.turn.now));
        self.turn.now += PAUSE;
        assert!(self.branch.is_due(self.turn.now));
        self.branch.write(&mut self.turn, Token::new(Kind::Branch, 0));
        self.settle(old)
    }

    /// The branch as it is in its file, once it is complete.
    fn complete(mut self) -> branch::Replayed {
        self.branch.finish();
        assert!(self.settle(Some(1)).is_empty());
        let infos = branch::list(&[self.directory.path().to_owned()]);
        let (_, replayed) = branch::load(&infos[0].path).unwrap();
        assert!(replayed.finished);
        replayed
    }
}

#[test]
fn nothing_is_overwritten_while_there_is_no_room() {
    for kind in [OpKind::Write, OpKind::Sync] {
        let mut bench = Bench::new(vec![(kind, vec![Fault::ENOSPC, Fault::ENOSPC, Fault::EIO])]);
        assert!(bench.branch.open("db", 1, SIZE));
        bench.hold(5000);
        for _ in 0..3 {
            let released = if bench.writes == 0 {
                bench.settle(Some(7))
            } else {
                bench.writes += 1;
                bench.again(Some(7))
            };
            assert!(released.is_empty(), "{kind:?}");
            let trouble = bench.branch.snapshot().unwrap().trouble.unwrap();
            assert!(trouble.contains("make room"), "{trouble}");
            // What comes meanwhile waits as well, of the same block too.
            let request = bench.change(6000);
            assert!(bench.branch.must_save(&request));
        }
        assert_eq!(bench.again(Some(7)), [5000], "{kind:?}");
        let snapshot = bench.branch.snapshot().unwrap();
        assert_eq!((snapshot.trouble, snapshot.saved_bytes), (None, 4096));
        let request = bench.change(6000);
        assert!(!bench.branch.must_save(&request), "its block is saved");
        let replayed = bench.complete();
        assert_eq!(replayed.index.missing(0..SIZE), [0..4096, 8192..SIZE]);
    }
}

#[test]
fn one_round_serves_all_that_waits_and_saves_a_block_once() {
    let mut bench = Bench::new(vec![]);
    assert!(bench.branch.open("db", 1, SIZE));
    for offset in [0, 200, 4000, 40_960, 41_060] {
        bench.hold(offset);
    }
    assert_eq!(bench.settle(Some(3)), [0, 200, 4000, 40_960, 41_060]);
    assert_eq!(bench.writes, 1);
    let path = bench.branch.snapshot().unwrap().file.unwrap();
    let length = fs::metadata(path).unwrap().len();
    let replayed = bench.complete();
    assert_eq!(replayed.index.bytes(), 3 * 4096);
    // Records of three blocks, and the last one.
    assert!(length < 4096 + 3 * 4096 + 5 * 64, "{length}");
    assert_eq!(replayed.sequence, 4);
}

#[test]
fn a_block_that_cannot_be_read_is_lost_and_keeps_nobody_waiting() {
    let mut bench = Bench::new(vec![]);
    assert!(bench.branch.open("db", 1, SIZE));
    let request = ImageRequest::Trim {
        offset: 0,
        length: 16_384,
        durable: false,
    };
    bench.branch.hold(ImageWork::Host(0), request);
    assert_eq!(bench.settle(None), [0]);
    let pieces = bench.complete().index.look(0..16_384);
    assert_eq!(pieces.len(), 4, "block by block");
    assert!(pieces.iter().all(|piece| piece.source == Source::Lost));
}

#[test]
fn what_waits_comes_back_when_the_image_goes() {
    let mut bench = Bench::new(vec![]);
    assert!(bench.branch.open("db", 1, SIZE));
    bench.hold(0);
    let held = bench.branch.set_image_gone(true);
    assert_eq!(held.len(), 1);
    let request = bench.change(0);
    assert!(!bench.branch.must_save(&request));
    bench.branch.set_image_gone(false);
    assert!(bench.branch.must_save(&request));
    assert!(
        !bench.branch.open("db", 2, SIZE),
        "another generation: this one is closed first"
    );
    assert!(bench.branch.take_refused());
    assert!(!bench.branch.take_refused(), "told once");
    assert!(bench.settle(Some(1)).is_empty());
    assert!(bench.branch.open("db", 2, SIZE));
    assert!(!bench.branch.take_refused());
}
