//! What a Secondary has to have durably before others may build on it.

use alloc::vec;
use alloc::vec::Vec;

use super::cluster::{Cluster, pair};
use super::node::{Origin, Packet};
use crate::config::{AckMode, OnDisconnect, OnIoError};
use crate::event::{
    ConnectionId, Failure, HostOp, Input, Mutation, MutationKind, Order, OrderRefusal, SyncPlan, VolumeMessage,
};
use crate::range::{BLOCK_BYTES, ByteRange};
use crate::state::LocalDisk;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Whatever `on_io_error` says: its peers take what it has answered to be there.
#[test]
fn a_failed_flush_costs_a_secondary_its_image() {
    let mut cluster = pair(AckMode::Sync);
    cluster.write(A, 5, 5);
    cluster.nodes[B].broken = Some(Failure::Io);
    cluster.flush(A);
    assert_eq!(cluster.nodes[B].mirror.disk(), LocalDisk::Diskless);
    cluster.nodes[B].broken = None;
    cluster.ordered(B, Order::Attach { replaced: false });
    assert_eq!(
        cluster.nodes[B].mirror.disk(),
        LocalDisk::Inconsistent,
        "anything may be missing"
    );
}

/// In progress on B when the image of A goes, and answered before: the next flush of the host has to cover it, and B
/// answers a flush by what it has applied.
#[test]
fn what_an_asynchronous_peer_has_in_progress_is_fenced_before_the_image_is_given_up() {
    for fails in [false, true] {
        let mut cluster = pair(AckMode::Async);
        cluster.stalled.push((A, B));
        let id = cluster.write(A, 5, 5);
        assert!(cluster.answered(A, id));
        if fails {
            cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
            cluster.nodes[A].broken = Some(Failure::Io);
            cluster.write(A, 6, 6);
        } else {
            cluster.order(A, Order::Detach);
        }
        let wire: Vec<Packet> = cluster.wires[&(A, B)].iter().cloned().collect();
        let place = |what: fn(&Packet) -> bool| wire.iter().position(what);
        let (fence, flush) = (
            place(|packet| matches!(packet, Packet::Barrier)),
            place(|packet| matches!(packet, Packet::Flush)),
        );
        assert!(fence.is_some() && fence < flush, "{fails}: {wire:?}");
    }
}

/// On its way as a write that may be lost with B's power when the image of A goes: B may have flushed, and have the new name
/// durably, before it has applied it.
#[test]
fn what_is_on_its_way_when_the_image_goes_is_durable_before_it_is_answered() {
    for fails in [false, true] {
        let mut cluster = pair(AckMode::Sync);
        cluster.stalled.push((A, B));
        let id = cluster.write(A, 5, 5);
        cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
        if fails {
            cluster.nodes[A].broken = Some(Failure::Io);
            cluster.write(A, 6, 6);
        } else {
            cluster.order(A, Order::Detach);
        }
        let place = cluster.wires[&(A, B)]
            .iter()
            .position(|packet| matches!(packet, Packet::Mutation(..)));
        let wire = cluster.wires.get_mut(&(A, B)).unwrap();
        let late = wire.remove(place.unwrap()).unwrap();
        cluster.stalled.clear();
        cluster.settle();
        assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Diskless);
        assert_eq!(cluster.generation(A), cluster.generation(B));
        cluster.stalled.push((B, A));
        cluster.send(A, Cluster::index(A, B), late);
        cluster.settle();
        assert_eq!(cluster.nodes[B].image[5], 5);
        cluster.stalled = vec![(A, B)];
        cluster.settle();
        assert!(!cluster.answered(A, id), "{fails}");
        let again = cluster.wires[&(A, B)].iter();
        let again = again.filter(|packet| matches!(packet, Packet::Mutation(_, mutation, 5) if mutation.fua));
        assert_eq!(again.count(), 1, "{fails}");
        cluster.stalled.clear();
        cluster.settle();
        assert!(cluster.answered(A, id), "{fails}");
    }
}

/// An operator's detach is called off as the partner is lost: what had waited for it while it was as good as `sync` goes without
/// it, under a new name, as everything does in `async`.
#[test]
fn what_waited_for_a_detach_waits_for_the_new_name() {
    for policy in [OnDisconnect::Continue, OnDisconnect::Suspend, OnDisconnect::Fail] {
        let mut cluster = pair(AckMode::Async).with_policy(policy);
        cluster.stalled.push((A, B));
        let detach = cluster.order(A, Order::Detach);
        let (write, flush) = (cluster.write(A, 5, 5), cluster.flush(A));
        assert!(!cluster.answered(A, write));
        cluster.nodes[A].holds_metadata = true;
        cluster.cut(A, B);
        assert_eq!(
            cluster.nodes[A].outcome(detach),
            Some(Err(OrderRefusal::WrongState)),
            "{policy:?}"
        );
        assert!(!cluster.answered(A, write), "{policy:?}: B has the name of now");
        while !cluster.nodes[A].transactions.is_empty() {
            cluster.save(A);
        }
        let refused = policy == OnDisconnect::Fail;
        assert_eq!(cluster.answered(A, write), !refused, "{policy:?}");
        assert_eq!(cluster.answered(A, flush), !refused, "{policy:?}");
    }
}

/// B has applied what it cannot make durable, and hears a later name. Whether it then counts as whole.
fn is_whole_under_a_later_name(prepare: impl Fn(&mut Cluster)) -> bool {
    let mut cluster = Cluster::new(3, AckMode::Sync);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    prepare(&mut cluster);
    cluster.write(A, 1, 1);
    let held = cluster.generation(B);
    cluster.nodes[B].holds_metadata = true;
    cluster.nodes[B].broken = Some(Failure::Io);
    cluster.cut(A, C);
    assert_ne!(cluster.generation(A), held, "C may lose what it has not flushed");
    cluster.nodes[B].mirror.disk() != LocalDisk::Diskless
}

#[test]
fn a_later_name_is_taken_over_only_when_what_was_applied_before_is_durable() {
    assert!(
        !is_whole_under_a_later_name(|_| {}),
        "B has flushed before it noted the name, and could not"
    );
}

#[cfg(feature = "sabotage")]
#[test]
fn a_later_name_that_covers_nothing_is_noticed() {
    use crate::sabotage::Sabotage;
    let broken = |cluster: &mut Cluster| cluster.nodes[B].mirror.set_sabotage(Some(Sabotage::NameCoversData));
    assert!(is_whole_under_a_later_name(broken));
}

/// The Primary's image is gone, and so is its partner before it had the new name. If the partner may have forgotten what it
/// had answered, only the new name would tell that it has everything; and the image may be all there is.
#[test]
fn a_partner_that_may_forget_what_it_answered_does_not_stand_in_under_the_old_name() {
    for covered in [false, true] {
        let mut cluster = pair(AckMode::Sync);
        cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
        cluster.write(A, 1, 1);
        cluster.nodes[B].holds_metadata = true;
        if covered {
            cluster.order(A, Order::Detach);
        } else {
            cluster.nodes[A].broken = Some(Failure::Io);
            cluster.write(A, 3, 5);
        }
        assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Diskless);
        assert_ne!(
            cluster.generation(A),
            100,
            "what is answered from here on has another name"
        );
        cluster.cut(A, B);
        assert_eq!(cluster.generation(A) == 100, covered);
        assert_eq!(cluster.record(A, B), if covered { 0 } else { 100 });

        let attach = Order::Attach { replaced: false };
        let early = cluster.order(A, attach.clone());
        assert_eq!(
            cluster.nodes[A].outcome(early),
            Some(Err(OrderRefusal::Withheld)),
            "nothing is fetched over it"
        );
        cluster.ordered(A, Order::Demote);
        let said = cluster.nodes[A].mirror.identity(Cluster::index(A, B));
        assert_eq!((said.current, said.crashed_primary), (100, true));
        assert_eq!(said.withholds(), !covered);
        cluster.ordered(A, attach);
        assert_eq!(
            cluster.nodes[A].mirror.disk(),
            LocalDisk::UpToDate,
            "all that was answered is in it"
        );
    }
}

/// B could not apply what the Primary sent, and hears, before the Primary hears of that, that the data has a new name: with
/// it B would count as newer than C, which has all that was sent under the old one.
#[test]
fn who_has_missed_a_change_takes_no_later_name() {
    let mut cluster = Cluster::new(3, AckMode::Async);
    cluster.connect(A, SyncPlan::InStep, B, SyncPlan::InStep);
    cluster.connect(A, SyncPlan::InStep, C, SyncPlan::InStep);
    cluster.promote(A, 100);
    cluster.stalled.push((B, A));
    cluster.nodes[B].broken = Some(Failure::NoSpace);
    cluster.write(A, 5, 5);
    cluster.nodes[B].broken = None;
    cluster.cut(A, C);
    assert_ne!(cluster.generation(A), 100);
    assert_eq!(cluster.generation(B), 100);
    assert_eq!(cluster.nodes[B].disconnects, [Cluster::index(B, A)]);
}

/// The same where B's resource has not told its mirror yet of the connection that it came on.
#[test]
fn nor_who_missed_it_on_a_connection_that_has_no_name_yet() {
    let mut cluster = pair(AckMode::Async);
    cluster.cut(A, B);
    let mutation = Mutation {
        range: ByteRange::new(5 * BLOCK_BYTES, BLOCK_BYTES),
        kind: MutationKind::Write,
        fua: false,
    };
    let id = cluster.nodes[B].request(Origin::Host, vec![5]);
    let op = HostOp::Mutate(mutation);
    cluster.nodes[B].broken = Some(Failure::NoSpace);
    cluster.feed(B, Input::Host { id, op });
    cluster.nodes[B].broken = None;
    let message = VolumeMessage::Generation {
        current: 200,
        earlier: vec![100],
        in_step: vec![],
    };
    let early = Input::FromPeer {
        peer: Cluster::index(B, A),
        connection: ConnectionId(cluster.connection + 1),
        message,
    };
    cluster.feed(B, early);
    assert_eq!(cluster.generation(B), 100);
    assert_eq!(cluster.nodes[B].disconnects, [Cluster::index(B, A)]);
}

/// What the Primary's log does not tell of any more, should both die, only the partner's name for the data tells.
#[test]
fn without_metadata_nothing_is_sent_before_a_partner_has_the_new_name() {
    let mut cluster = pair(AckMode::Sync);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    cluster.nodes[A].holds_metadata = true;
    cluster.nodes[B].holds_metadata = true;
    let write = cluster.write(A, 5, 5);
    let log = cluster.nodes[A].transactions.pop_front().unwrap();
    let outcome = Err(Failure::Io);
    cluster.feed(A, Input::Persisted { id: log.id, outcome });
    cluster.settle();
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Diskless);
    assert_eq!(cluster.nodes[B].image[5], 0, "nobody would know of it");
    while !cluster.nodes[B].transactions.is_empty() {
        cluster.save(B);
    }
    assert_eq!(cluster.generation(A), cluster.generation(B));
    assert_eq!(cluster.nodes[B].image[5], 5);
    assert!(cluster.answered(A, write));
}

/// A flush has failed on the Primary, and its partner is gone before it had got what was answered: nothing can be promised any
/// more, and neither is the data for who comes next.
#[test]
fn an_image_that_may_have_lost_something_is_not_overwritten_by_a_partner_that_lacks_something() {
    let mut cluster = pair(AckMode::Async);
    cluster.nodes[A].mirror.config.on_io_error = OnIoError::Detach;
    cluster.stalled.push((A, B));
    cluster.write(A, 1, 1);
    cluster.nodes[A].broken = Some(Failure::Io);
    cluster.flush(A);
    assert_eq!(cluster.nodes[A].mirror.disk(), LocalDisk::Diskless);
    cluster.cut(A, B);
    let mirror = &cluster.nodes[A].mirror;
    assert!(
        mirror.has_failed(),
        "sent again, it would land on what B may have that is newer"
    );
    assert!(!mirror.superblock.whole, "it may have lost what was answered");
    assert_ne!(cluster.generation(A), cluster.generation(B));
    assert_eq!(cluster.record(A, B), cluster.generation(B), "A has more, or had");
}

/// What an asynchronous Primary had answered its partner has when it ends in order, and only then.
#[test]
fn an_end_in_order_leaves_nothing_that_is_here_alone() {
    for (apart, ends) in [(false, true), (true, true), (false, false)] {
        let mut cluster = pair(AckMode::Async);
        cluster.write(A, 5, 5);
        assert!(!cluster.nodes[A].mirror.identity(Cluster::index(A, B)).acks_wait);
        if apart {
            cluster.cut(A, B);
            cluster.write(A, 6, 6);
        }
        if ends {
            cluster.ordered(A, Order::Demote);
        }
        let has_all = cluster.nodes[A].mirror.identity(Cluster::index(A, B)).acks_wait;
        assert_eq!(has_all, ends && !apart);
    }
}
