//! Pipelined mixed requests against a model.

use std::collections::BTreeMap;

use nbd_proto::Command;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::host::{Host, write_request};
use super::rig::Build;
use super::transmission::on_both_engines;
use nbd_proto::Request;

const SIZE: u64 = 1 << 20;
/// Slots a batch's requests are in: requests of one batch never overlap, so their order does not matter.
const SLOTS: u64 = 16;
const SLOT_BYTES: u64 = SIZE / SLOTS;

#[derive(Clone, Debug)]
enum Kind {
    Read,
    Write(u8),
    Trim,
    Zero { no_hole: bool },
    Flush,
    Cache,
}

/// A request within a slot.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    start: u64,
    length: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(Kind::Read),
        4 => any::<u8>().prop_map(Kind::Write),
        1 => Just(Kind::Trim),
        1 => any::<bool>().prop_map(|no_hole| Kind::Zero { no_hole }),
        1 => Just(Kind::Flush),
        1 => Just(Kind::Cache),
    ];
    let edges = prop_oneof![Just(0u64), Just(512), Just(4096), 0..SLOT_BYTES - 1];
    (
        kind,
        edges,
        prop_oneof![Just(4096u32), Just(16384), Just(16385), 1..SLOT_BYTES as u32],
    )
        .prop_map(|(kind, start, length)| {
            let length = length.min((SLOT_BYTES - start) as u32);
            Step { kind, start, length }
        })
}

/// One pipelined batch, at most one request per slot; then all of its answers.
fn run_batch(host: &mut Host, batch: &[Option<Step>], model: &mut [u8]) {
    let mut wire = Vec::new();
    let mut reads = BTreeMap::new();
    let mut expected = 0;
    for (slot, step) in batch.iter().enumerate() {
        let Some(step) = step else { continue };
        expected += 1;
        let (cookie, offset) = (slot as u64, slot as u64 * SLOT_BYTES + step.start);
        let range = offset as usize..offset as usize + step.length as usize;
        let mut ask = |command, length| {
            let offset = if length == 0 { 0 } else { offset };
            wire.extend(Request::new(command, cookie, offset, u64::from(length)).encode());
        };
        match step.kind {
            Kind::Read => {
                reads.insert(cookie, (step.length, model[range].to_vec()));
                ask(Command::Read { df: false }, step.length);
            }
            Kind::Write(byte) => {
                let data: Vec<u8> = (0..step.length).map(|at| byte.wrapping_add((at % 97) as u8)).collect();
                model[range].copy_from_slice(&data);
                wire.extend(write_request(cookie, offset, &data));
            }
            Kind::Trim => {
                model[range].fill(0);
                ask(Command::Trim { fua: false }, step.length);
            }
            Kind::Zero { no_hole } => {
                model[range].fill(0);
                let zero = Command::WriteZeroes {
                    fua: true,
                    no_hole,
                    fast: false,
                };
                ask(zero, step.length);
            }
            Kind::Flush => ask(Command::Flush, 0),
            Kind::Cache => ask(Command::Cache, step.length),
        }
    }
    host.send(&wire);
    for _ in 0..expected {
        let (cookie, outcome) = host.answer(|cookie| reads.get(&cookie).map_or(0, |(length, _)| *length));
        let data = outcome.unwrap();
        match reads.remove(&cookie) {
            Some((_, expected)) => assert!(data == expected, "READ {cookie} differs from the model"),
            None => assert!(data.is_empty()),
        }
    }
    assert!(reads.is_empty());
}

fn agrees_with_the_model(build: impl Fn() -> Build) {
    let batches = proptest::collection::vec(
        proptest::collection::vec(proptest::option::of(step()), SLOTS as usize),
        1..8,
    );
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&(batches, any::<bool>()), |(batches, structured)| {
        let rig = build().start();
        let mut hosts = [rig.connect(structured), rig.connect(!structured)];
        let mut model = vec![0; SIZE as usize];
        for (at, batch) in batches.iter().enumerate() {
            run_batch(&mut hosts[at % 2], batch, &mut model);
        }
        assert!(
            hosts[0].read(0, SIZE as u32) == model,
            "the volume differs from the model"
        );
        drop(hosts);
        assert!(rig.stop(), "stopped clean");
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn an_image_in_memory_agrees_with_the_model() {
    on_both_engines(|engine| agrees_with_the_model(|| Build::memory(engine, SIZE)));
}

#[test]
fn an_image_file_agrees_with_the_model() {
    on_both_engines(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        agrees_with_the_model(|| {
            let _ = std::fs::remove_file(&path);
            Build::file(engine, &path, SIZE)
        });
    });
}
