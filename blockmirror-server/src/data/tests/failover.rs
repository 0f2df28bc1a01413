//! Hosts that follow the Primary: what they were answered is there in the end, whoever was Primary meanwhile.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirror_core::AckMode;
use mirror_core::resource::event::HostAccess;

use super::cluster::{Cluster, VOLUMES};
use super::host::{Ending, Host, write_request};
use super::rig::MIB;
use crate::ring::EngineChoice;

const SIZE: u64 = 24 * MIB;
const BLOCK: usize = 4096;
/// Blocks of one writer.
const BLOCKS: u64 = 512;

/// One WRITE and its answer. False: the connection has ended, or the write was refused.
fn write(host: &mut Host, cookie: u64, offset: u64, data: &[u8]) -> bool {
    let mut reply = [0; 16];
    let asked = host.stream.write_all(&write_request(cookie, offset, data));
    asked.is_ok() && host.stream.read_exact(&mut reply).is_ok() && reply[4..8] == [0; 4]
}

/// A host at whichever node takes writes now.
fn connect(cluster: &Cluster, volume: usize) -> Option<Host> {
    let primary = (0..cluster.nodes.len()).find(|&at| cluster.access(at) == Some(HostAccess::ReadWrite))?;
    Some(cluster.connect(primary, volume))
}

/// Write round after round of the blocks of `writer`, a number in each; returns the last number answered, by block.
fn follow(cluster: &Cluster, writer: u64, over: &AtomicBool) -> Vec<u32> {
    let mut answered = vec![0; BLOCKS as usize];
    let (mut host, mut number) = (None, 0_u32);
    // On a slow machine the end is told before anything was served.
    while number == 0 || !over.load(Ordering::Relaxed) {
        let Some(present) = &mut host else {
            std::thread::sleep(Duration::from_millis(2));
            host = connect(cluster, writer as usize % 2);
            continue;
        };
        let block = u64::from(number) % BLOCKS;
        let data: Vec<u8> = (number + 1).to_le_bytes().repeat(BLOCK / 4);
        let offset = (writer * BLOCKS + block) * BLOCK as u64;
        // A write that was not answered is asked again: it may have been carried out.
        if write(present, u64::from(number), offset, &data) {
            number += 1;
            answered[block as usize] = number;
        } else {
            host = None;
        }
    }
    answered
}

fn check(cluster: &Cluster, at: usize, writer: u64, answered: &[u32]) {
    let image = std::fs::read(cluster.image(at, VOLUMES[writer as usize % 2])).unwrap();
    for (block, &number) in answered.iter().enumerate().filter(|(_, number)| **number > 0) {
        let from = (writer as usize * BLOCKS as usize + block) * BLOCK;
        let found = u32::from_le_bytes(image[from..from + 4].try_into().unwrap());
        // The last write may have been carried out without an answer.
        let next = number + BLOCKS as u32;
        assert!(
            found == number || found == next,
            "writer {writer}, block {block}: {found} is there, {number} was answered"
        );
    }
}

#[test]
fn what_was_answered_survives_switchovers_under_load() {
    let mut cluster = Cluster::start(EngineChoice::Auto, 2, AckMode::Sync, SIZE);
    cluster.wait_connected(0);
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    let over = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let ending = Ending(&over);
        let (cluster, over) = (&cluster, &over);
        let writers = [0, 1, 2, 3].map(|writer| scope.spawn(move || follow(cluster, writer, over)));
        for round in 0..8 {
            std::thread::sleep(Duration::from_millis(60));
            cluster.promote(if round % 2 == 0 { 1 } else { 0 }, false);
        }
        std::thread::sleep(Duration::from_millis(60));
        drop(ending);
        writers.map(|writer| writer.join().unwrap())
    });
    cluster.wait_in_step(0, 1);
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
    for (writer, answered) in answered.iter().enumerate() {
        check(&cluster, 0, writer as u64, answered);
    }
}

#[test]
fn what_was_answered_survives_the_death_of_primaries() {
    let mut cluster = Cluster::start(EngineChoice::Auto, 2, AckMode::Sync, SIZE);
    cluster.wait_connected(0);
    cluster.promote(0, true);
    cluster.wait_in_step(0, 1);
    for round in 0..4 {
        let (primary, secondary) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let over = AtomicBool::new(false);
        let answered = std::thread::scope(|scope| {
            let ending = Ending(&over);
            let writers = [0, 1].map(|writer| {
                let (cluster, over) = (&cluster, &over);
                scope.spawn(move || follow(cluster, writer, over))
            });
            std::thread::sleep(Duration::from_millis(80));
            drop(ending);
            writers.map(|writer| writer.join().unwrap())
        });
        cluster.kill(primary);
        cluster.wait("the end is seen", |cluster| {
            !cluster.resource(secondary).streams[0].connected
        });
        cluster.promote(secondary, true);
        for (writer, answered) in answered.iter().enumerate() {
            check(&cluster, secondary, writer as u64, answered);
        }
        cluster.boot(primary);
        cluster.wait_in_step(secondary, 1);
    }
    assert!(cluster.stop(0) && cluster.stop(1));
    cluster.assert_same(0, 1);
}
