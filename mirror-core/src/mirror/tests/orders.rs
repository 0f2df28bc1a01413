//! The other orders of the resource.

use alloc::vec;
use core::time::Duration;

use super::cluster::{Cluster, pair};
use super::node::{Packet, peer_config};
use crate::config::AckMode;
use crate::event::{LinkKind, Order, OrderRefusal, PeerIndex, SyncPlan};
use crate::identity::Meeting;
use crate::metadata::ImageIdentity;
use crate::state::{LocalDisk, PeerState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

#[test]
fn orders_change_what_they_name_durably() {
    let mut cluster = Cluster::new(2, AckMode::Sync);
    let peer = PeerIndex(0);
    cluster.ordered(
        A,
        Order::Merge {
            peer,
            blocks: vec![3..5, 9..10, 4000..9000],
        },
    );
    assert_eq!(cluster.nodes[A].mirror.dirty_runs(peer, 0, 9), [3..5, 9..10]);
    assert_eq!(cluster.nodes[A].mirror.dirty_runs(peer, 4, 1).first(), Some(&(4..5)));
    cluster.ordered(
        A,
        Order::Adopt {
            peer,
            current: 5,
            history: vec![4, 3],
        },
    );
    let identity = cluster.nodes[A].mirror.identity(peer);
    assert_eq!(
        (identity.current, identity.history, identity.fresh),
        (5, vec![4, 3], false)
    );
    assert_eq!(identity.dirty_bytes, 3 * 4096, "I9");
    cluster.ordered(A, Order::Fill { peer });
    assert_eq!(cluster.dirty(A, B), 2048);
    let (met, before) = (Meeting { count: 2, token: 8 }, Meeting { count: 1, token: 7 });
    cluster.nodes[A].holds_metadata = true;
    let ticket = cluster.order(
        A,
        Order::Met {
            peer,
            met,
            before,
            answers_lost: false,
        },
    );
    assert_eq!(
        cluster.nodes[A].mirror.identity(peer).met,
        Meeting::NEVER,
        "not durable"
    );
    cluster.save(A);
    assert_eq!(cluster.nodes[A].outcome(ticket), Some(Ok(())));
    let identity = cluster.nodes[A].mirror.identity(peer);
    assert_eq!((identity.met, identity.met_before), (met, before));
}

#[test]
fn peers_come_and_go_while_it_runs() {
    let mut cluster = pair(AckMode::Sync);
    cluster.ordered(A, Order::AddPeer(peer_config("delta", AckMode::Sync)));
    let mirror = &cluster.nodes[A].mirror;
    assert_eq!(
        (mirror.record(PeerIndex(1)), mirror.identity(PeerIndex(1)).dirty_bytes),
        (100, 2048 * 4096)
    );
    let id = cluster.write(A, 1, 1);
    assert!(cluster.answered(A, id));
    let ticket = cluster.order(A, Order::RemovePeer(PeerIndex(0)));
    assert_eq!(
        cluster.nodes[A].outcome(ticket),
        Some(Err(OrderRefusal::WrongState)),
        "connected"
    );
    cluster.cut(A, B);
    cluster.ordered(A, Order::RemovePeer(PeerIndex(0)));
    assert_ne!(
        cluster.generation(A),
        100,
        "what it misses from here on has another name"
    );
    let id = cluster.write(A, 2, 2);
    assert!(cluster.answered(A, id));
    let ticket = cluster.order(A, Order::Fill { peer: PeerIndex(0) });
    assert_eq!(
        cluster.nodes[A].outcome(ticket),
        Some(Err(OrderRefusal::WrongState)),
        "unknown"
    );
}

#[test]
fn a_partner_found_to_be_a_plain_server_is_connected_to_by_the_primary() {
    let mut cluster = pair(AckMode::Sync);
    cluster.cut(A, B);
    let peer = PeerIndex(0);
    cluster.ordered(
        A,
        Order::SetKind {
            peer,
            kind: LinkKind::Nbd,
        },
    );
    assert_eq!(cluster.state(A, B), PeerState::Connecting);
    assert_eq!(cluster.nodes[A].connects, [peer]);
    cluster.ordered(A, Order::Demote);
    assert_eq!(
        cluster.state(A, B),
        PeerState::StandAlone,
        "a Secondary has no plain peers"
    );
}

#[test]
fn a_comparison_under_way_does_not_keep_a_partner_behind() {
    let mut cluster = pair(AckMode::Async);
    cluster.stalled.push((A, B));
    let verify = Order::Verify {
        peer: PeerIndex(0),
        repair: false,
        resume: false,
    };
    cluster.order(A, verify);
    for block in 0..9 {
        cluster.write(A, block, 1);
    }
    assert_eq!(cluster.state(A, B), PeerState::Behind);
    cluster.stalled = vec![(B, A)];
    cluster.settle();
    let answers = cluster.wires.get_mut(&(B, A)).unwrap();
    // What is compared is answered last.
    let is_contents = |packet: &Packet| matches!(packet, Packet::Contents(..));
    answers.make_contiguous().sort_by_key(is_contents);
    cluster.stalled.clear();
    cluster.settle();
    cluster.run_for(Duration::from_secs(5));
    assert_eq!((cluster.state(A, B), cluster.dirty(A, B)), (PeerState::Established, 0));
}

/// Out of sight it may have given its data, and their name, to the one that is away.
#[test]
fn a_partner_that_comes_back_while_another_is_away_hears_another_name() {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    for other in [B, C] {
        cluster.connect(A, SyncPlan::InStep, other, SyncPlan::InStep);
    }
    cluster.promote(A, 100);
    cluster.cut(A, C);
    cluster.write(A, 1, 1);
    cluster.flush(A);
    let before = cluster.generation(A);
    cluster.cut(A, B);
    assert_eq!(cluster.generation(A), before, "nothing is missing there");
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    assert_ne!(cluster.generation(A), before);
    assert_eq!(
        (cluster.generation(B), cluster.record(A, B), cluster.record(A, C)),
        (cluster.generation(A), 0, 100)
    );
}

#[test]
fn data_that_were_given_up_are_no_ancestor_of_those_that_replaced_them() {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(B, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(B, 100);
    cluster.cut(B, C);
    cluster.write(B, 1, 1);
    assert_eq!(cluster.record(B, C), 100);
    cluster.ordered(B, Order::Demote);
    cluster.ordered(
        B,
        Order::BeginTarget {
            source: Cluster::index(B, A),
        },
    );
    cluster.promote(A, 300);
    cluster.connect(B, SyncPlan::Target, A, SyncPlan::Source);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(
        (cluster.generation(B), cluster.state(A, B)),
        (300, PeerState::Established)
    );
    assert_eq!(
        (cluster.record(B, C), cluster.dirty(B, C)),
        (0, 2048),
        "nothing is known of it any more"
    );
}

#[test]
fn whether_it_can_be_promoted_is_found_out_by_trying_and_changes_nothing() {
    let mut cluster = pair(AckMode::Sync);
    let ticket = cluster.order(A, Order::Agree);
    assert_eq!(cluster.nodes[A].outcome(ticket), Some(Err(OrderRefusal::WrongState)));
    let before = cluster.nodes[B].mirror.identity(PeerIndex(0));
    cluster.nodes[B].holds_metadata = true;
    let ticket = cluster.order(B, Order::Agree);
    assert_eq!(cluster.nodes[B].outcome(ticket), None, "not before it is durable");
    cluster.save(B);
    assert_eq!(cluster.nodes[B].outcome(ticket), Some(Ok(())));
    assert_eq!(cluster.nodes[B].mirror.identity(PeerIndex(0)), before);
}

/// One that is not whole, with nobody there who has more.
#[test]
fn an_image_that_is_declared_in_part_is_no_later_state_of_anything() {
    let mut cluster = pair(AckMode::Sync);
    let held = cluster.generation(B);
    cluster.ordered(A, Order::Demote);
    cluster.cut(A, B);
    let line = |cluster: &Cluster| {
        let identity = cluster.nodes[B].mirror.identity(PeerIndex(0));
        (identity.history, [0, held].contains(&identity.for_peer))
    };
    cluster.ordered(B, Order::Detach);
    cluster.ordered(B, Order::Attach { replaced: true });
    cluster.promote(B, 200);
    assert_eq!(cluster.nodes[B].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(line(&cluster), (vec![], false));
    // A whole one is, of what it was promoted with.
    cluster.ordered(B, Order::Demote);
    cluster.promote(B, 300);
    let identity = cluster.nodes[B].mirror.identity(PeerIndex(0));
    assert_eq!(identity.history, [200]);
}

#[test]
fn the_word_that_gives_data_up_is_durable_and_void_once_they_are_a_primarys() {
    let mut cluster = pair(AckMode::Sync);
    let give_up = |from: usize, given_up| Order::GiveUp {
        peer: Cluster::index(from, 1 - from),
        given_up,
    };
    let gives_up = |cluster: &Cluster| cluster.nodes[1].mirror.gives_up(Cluster::index(1, 0));
    let ticket = cluster.order(0, give_up(0, true));
    assert_eq!(cluster.nodes[0].outcome(ticket), Some(Err(OrderRefusal::WrongState)));
    cluster.cut(0, 1);
    cluster.nodes[1].holds_metadata = true;
    let ticket = cluster.order(1, give_up(1, true));
    assert_eq!(cluster.nodes[1].outcome(ticket), None, "not before it is durable");
    cluster.save(1);
    assert_eq!(cluster.nodes[1].outcome(ticket), Some(Ok(())));
    cluster.nodes[1].holds_metadata = false;
    assert!(gives_up(&cluster));
    cluster.ordered(1, give_up(1, false));
    assert!(!gives_up(&cluster));
    cluster.ordered(1, give_up(1, true));
    cluster.promote(1, 200);
    assert!(!gives_up(&cluster));
}

#[test]
fn an_image_that_is_not_taken_is_not_named() {
    let mut cluster = pair(AckMode::Sync);
    let old = cluster.nodes[A].mirror.superblock.image;
    let new = ImageIdentity {
        inode: old.inode + 1,
        ..old
    };
    let replaced = Order::Attach { replaced: true };
    cluster.nodes[A].mirror.offer_image(new);
    let early = cluster.order(A, replaced.clone());
    assert_eq!(cluster.nodes[A].outcome(early), Some(Err(OrderRefusal::WrongState)));
    cluster.ordered(A, Order::Detach);
    assert_eq!(
        cluster.nodes[A].mirror.superblock.image, old,
        "a restart finds another one"
    );
    cluster.nodes[A].mirror.offer_image(new);
    cluster.ordered(A, replaced);
    assert_eq!(cluster.nodes[A].mirror.superblock.image, new);
}

#[test]
fn an_attached_image_is_fetched_to_when_its_metadata_says_what_it_lacks() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 1, 1);
    cluster.nodes[A].holds_metadata = true;
    cluster.order(A, Order::Detach);
    cluster.nodes[A].image.fill(77);
    cluster.order(A, Order::Attach { replaced: true });
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Inconsistent);
    let copied = cluster.nodes[A].image.iter().any(|&stamp| stamp != 77);
    assert!(!copied, "I10: a crash now would find it called whole");
    cluster.nodes[A].holds_metadata = false;
    while !cluster.nodes[A].transactions.is_empty() {
        cluster.save(A);
    }
    cluster.settle();
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::UpToDate);
    assert_eq!(cluster.nodes[A].image, cluster.nodes[B].image);
}
