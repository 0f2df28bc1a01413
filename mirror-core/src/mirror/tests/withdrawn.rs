//! Names that were withdrawn, and partners that hold one: told just before they were lost, they could not say so.

use alloc::vec;
use alloc::vec::Vec;

use super::cluster::Cluster;
use crate::config::{AckMode, OnIoError};
use crate::event::{Failure, Order, RequestId, SyncPlan};
use crate::identity::{
    Decision, Generation, HISTORY_MAX, NodeIdentity, Rule, Side, SplitBrainPolicy, Verdict, WITHDRAWN_MAX,
    decide_together,
};
use crate::state::LocalDisk;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// What the data are called before the image of A fails.
const CALLED: Generation = 100;

/// So many in step, all connected, A Primary and about to give its image up.
fn nodes(count: usize) -> Cluster {
    let mut cluster = Cluster::new(count, AckMode::Sync);
    for one in 0..count {
        for other in one + 1..count {
            cluster.connect(one, SyncPlan::InStep, other, SyncPlan::InStep);
        }
    }
    cluster.promote(A, CALLED);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    cluster.nodes[A].broken = Some(Failure::Io);
    cluster
}

/// The image of A fails at a write. B makes the new name durable, and dies before A hears of it.
fn lost_with_a_name(cluster: &mut Cluster) -> (RequestId, Generation) {
    cluster.stalled.push((B, A));
    let write = cluster.write(A, 7, 3);
    let name = cluster.generation(B);
    assert_eq!(cluster.generation(A), name);
    cluster.cut(A, B);
    cluster.stalled.clear();
    (write, name)
}

fn pair_that_lost_one() -> (Cluster, RequestId, Generation) {
    let mut cluster = nodes(2);
    let (write, name) = lost_with_a_name(&mut cluster);
    assert_eq!(
        cluster.generation(A),
        CALLED,
        "withdrawn: nothing was answered under it"
    );
    assert_ne!(name, CALLED);
    assert!(!cluster.answered(A, write));
    (cluster, write, name)
}

fn says(cluster: &Cluster, node: usize, to: usize) -> NodeIdentity {
    let mirror = &cluster.nodes[node].mirror;
    NodeIdentity {
        node: NAMES[node].into(),
        incarnation: node as u64,
        revision: 1,
        role: mirror.role(),
        discard_my_data: false,
        primary_since: 0,
        bits_tell: true,
        was_primary: false,
        answers_lost: false,
        volumes: vec![mirror.identity(Cluster::index(node, to))],
    }
}

/// What two nodes conclude, as the first of them sees it.
fn decided(cluster: &Cluster, one: usize, other: usize) -> Decision {
    let (mine, theirs) = (says(cluster, one, other), says(cluster, other, one));
    let sides = [(
        Side::new(&mine, &mine.volumes[0]),
        Side::new(&theirs, &theirs.volumes[0]),
    )];
    decide_together(SplitBrainPolicy::Manual, &sides)[0]
}

#[track_caller]
fn expect(cluster: &Cluster, one: usize, other: usize, verdict: Verdict, rule: Rule) {
    let found = decided(cluster, one, other);
    assert_eq!((found.verdict, found.rule), (verdict, rule));
}

fn history(cluster: &Cluster, node: usize) -> Vec<Generation> {
    cluster.nodes[node].mirror.history().to_vec()
}

/// Nobody was Primary but A, and it has answered nothing: B is no newer than it.
#[test]
fn who_comes_back_with_a_withdrawn_name_has_the_data() {
    let (mut cluster, write, name) = pair_that_lost_one();
    expect(&cluster, A, B, Verdict::Target { full: false }, Rule::WithdrawnName);
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert!(cluster.answered(A, write));
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_ne!(cluster.generation(A), name, "somebody else may hold it");
    assert_eq!(history(&cluster, A)[..2], [name, CALLED]);
    assert_eq!(
        history(&cluster, B)[..2],
        [name, CALLED],
        "never called as before in between"
    );
    assert_eq!(
        says(&cluster, A, B).volumes[0].withdrawn,
        [],
        "they are earlier names now"
    );
    cluster.nodes[A].broken = None;
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
}

/// B has served hosts meanwhile: A's are refused, as ever.
#[test]
fn who_was_promoted_with_a_withdrawn_name_has_newer_data() {
    let (mut cluster, ..) = pair_that_lost_one();
    cluster.promote(B, 400);
    let write = cluster.write(B, 1, 9);
    assert!(cluster.answered(B, write));
    expect(&cluster, A, B, Verdict::TwoPrimaries, Rule::TwoPrimaries);
    cluster.ordered(B, Order::Demote);
    expect(&cluster, A, B, Verdict::OlderPrimary { mine: true }, Rule::OlderPrimary);
}

/// B holds the withdrawn name, C does not, and comes first.
#[test]
fn who_comes_back_later_with_a_withdrawn_name_is_behind() {
    let mut cluster = nodes(3);
    for wire in [(A, C), (C, A)] {
        cluster.stalled.push(wire);
    }
    let (write, name) = lost_with_a_name(&mut cluster);
    cluster.cut(A, C);
    assert_eq!((cluster.generation(A), cluster.generation(C)), (CALLED, CALLED));
    expect(&cluster, A, B, Verdict::Target { full: false }, Rule::WithdrawnName);
    expect(&cluster, A, C, Verdict::Target { full: false }, Rule::DiskState);
    cluster.connect(A, SyncPlan::Target, C, SyncPlan::Fetched);
    assert!(cluster.answered(A, write));
    cluster.nodes[A].broken = None;
    cluster.ordered(A, Order::Attach { replaced: false });
    assert_eq!(cluster.generation(B), name);
    expect(&cluster, A, B, Verdict::Source { full: false }, Rule::History);
    expect(&cluster, C, B, Verdict::Source { full: false }, Rule::History);
    assert_eq!(cluster.dirty(C, B), 2048, "where they differ C does not know");
    cluster.connect(A, SyncPlan::Source, B, SyncPlan::Target);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
    assert_eq!(cluster.generation(A), cluster.generation(B));
}

/// B is back by the name of before, hears another one, and is lost with that.
#[test]
fn a_second_name_is_withdrawn_with_the_first() {
    let mut cluster = nodes(2);
    cluster.stalled.push((A, B));
    let write = cluster.write(A, 7, 3);
    let first = cluster.generation(A);
    cluster.cut(A, B);
    cluster.stalled = vec![(B, A)];
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    let second = cluster.generation(B);
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert_eq!((cluster.generation(A), cluster.generation(B)), (CALLED, second));
    assert_eq!(says(&cluster, A, B).volumes[0].withdrawn, [second, first]);
    expect(&cluster, A, B, Verdict::Target { full: false }, Rule::WithdrawnName);
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert!(cluster.answered(A, write));
    assert_eq!(history(&cluster, A)[..3], [second, first, CALLED]);
}

/// However often: what the data are called does not fall out of the history for it.
#[test]
fn withdrawn_names_are_bounded() {
    let (mut cluster, write, _) = pair_that_lost_one();
    for _ in 0..HISTORY_MAX * 2 {
        cluster.stalled = vec![(B, A)];
        cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
        cluster.cut(A, B);
        assert_eq!(cluster.generation(A), CALLED);
        assert!(says(&cluster, A, B).volumes[0].withdrawn.len() <= WITHDRAWN_MAX);
        expect(&cluster, A, B, Verdict::Target { full: false }, Rule::WithdrawnName);
    }
    cluster.stalled.clear();
    cluster.connect(A, SyncPlan::Target, B, SyncPlan::Fetched);
    assert!(cluster.answered(A, write));
}

/// The operator takes the image that was given up for the data: all that was answered is in it.
#[test]
fn what_goes_on_from_the_image_alone_comes_after_a_withdrawn_name() {
    let (mut cluster, _, name) = pair_that_lost_one();
    cluster.nodes[A].broken = None;
    cluster.run_for(super::super::local::NO_DATA_WAIT);
    cluster.ordered(A, Order::Demote);
    assert_eq!(says(&cluster, A, B).volumes[0].withdrawn, []);
    expect(&cluster, A, B, Verdict::Target { full: false }, Rule::BitmapForPeer);
    cluster.ordered(A, Order::Attach { replaced: false });
    cluster.promote(A, 300);
    assert_eq!(history(&cluster, A)[..2], [name, CALLED]);
    expect(&cluster, A, B, Verdict::Source { full: false }, Rule::History);
}

/// Under the first name hosts were answered without the image, which is of before: a later one that was withdrawn is nothing
/// that it has.
#[test]
fn a_name_withdrawn_for_what_the_image_lacks_is_none_of_its_own() {
    let mut cluster = nodes(3);
    let write = cluster.write(A, 7, 3);
    assert!(cluster.answered(A, write), "without the image");
    let answered_under = cluster.generation(A);
    cluster.flush(A);
    cluster.stalled.push((B, A));
    cluster.cut(A, C);
    cluster.write(A, 8, 4);
    let withdrawn = cluster.generation(B);
    cluster.cut(A, B);
    cluster.stalled.clear();
    assert_eq!(cluster.generation(A), answered_under);
    assert_eq!(says(&cluster, A, B).volumes[0].withdrawn, [withdrawn]);
    cluster.run_for(super::super::local::NO_DATA_WAIT);
    cluster.ordered(A, Order::Demote);
    assert_eq!(cluster.generation(A), CALLED);
    cluster.nodes[A].broken = None;
    cluster.ordered(A, Order::Attach { replaced: true });
    cluster.promote(A, 300);
    assert!(
        ![answered_under, withdrawn]
            .iter()
            .any(|name| history(&cluster, A).contains(name))
    );
    assert!(!decided(&cluster, A, B).verdict.connects());
}
