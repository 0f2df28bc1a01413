//! Volumes grow, peers and volumes come and go.

use alloc::vec::Vec;

use super::world::{SIZE, World, peer_of};
use crate::config::{AckMode, OnDisconnect, PeerConfig, PeerKind};
use crate::event::{Order, OrderRefusal, PeerIndex};
use crate::identity::Role;
use crate::range::BLOCK_BYTES;
use crate::resource::LinkState;
use crate::resource::event::{Answer, Command, Input, Output};
use crate::stream::Control;

pub(super) fn resize(world: &mut World, node: usize, size: u64) -> Answer {
    resize_with(world, node, size, false)
}

fn resize_with(world: &mut World, node: usize, size: u64, force: bool) -> Answer {
    let command = Command::Resize {
        volume: 0,
        size,
        assume_clean: false,
        force,
    };
    world.ask_long(node, command)
}

pub(super) fn sizes(world: &World) -> Vec<u64> {
    world.nodes.iter().map(|node| node.volumes[0].size).collect()
}

#[test]
fn all_grow() {
    let mut world = World::working(3, 2);
    assert_eq!(resize(&mut world, 0, 2 * SIZE), Answer::Done);
    assert_eq!(sizes(&world), [2 * SIZE; 3]);
    assert!(world.nodes.iter().all(|node| node.volumes[1].size == SIZE));
}

#[test]
fn two_that_lead_a_growth_at_a_time_both_hear_of_it() {
    let mut world = World::working(3, 1);
    let log = world.log_outputs(2);
    let grow = Control::Grow {
        volume: 0,
        size: 2 * SIZE,
    };
    for from in [0, 1] {
        let peer = peer_of(2, from);
        let connection = world.nodes[2].connections[peer].expect("they are together");
        let (peer, control) = (PeerIndex(peer as u8), grow.clone());
        world.nodes[2].inbox.push_back(Input::Control {
            peer,
            connection,
            control,
        });
    }
    world.run();
    let said = |wanted: fn(&Control) -> bool| {
        let log = log.borrow();
        let mut sent = log.iter().filter_map(|output| match output {
            Output::Send { peer, control, .. } => wanted(control).then_some(usize::from(peer.0)),
            _ => None,
        });
        sent.next()
    };
    assert_eq!(
        said(|control| matches!(control, Control::Grown { .. })),
        Some(peer_of(2, 0))
    );
    assert_eq!(
        said(|control| matches!(control, Control::GrowRefused { .. })),
        Some(peer_of(2, 1))
    );
}

#[test]
fn a_node_that_cannot_keeps_all_as_they_are() {
    let mut world = World::working(2, 1);
    world.nodes[1].grow = Err("no space".into());
    let answer = resize(&mut world, 0, 2 * SIZE);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("no space")),
        "{answer:?}"
    );
    assert_eq!(sizes(&world), [SIZE; 2]);
    world.nodes[1].grow = Ok(());
    world.nodes[0].grow = Err("no space either".into());
    assert!(matches!(resize(&mut world, 0, 2 * SIZE), Answer::Refused(_)));
    assert_eq!(sizes(&world), [SIZE; 2]);
}

#[test]
fn growing_is_the_primarys() {
    let mut world = World::working(2, 1);
    assert!(matches!(resize(&mut world, 1, 2 * SIZE), Answer::Refused(why) if why.contains("anna")));
    assert!(matches!(resize(&mut world, 0, SIZE), Answer::Refused(why) if why.contains("already")));
    world.part(0, 1);
    assert!(matches!(resize(&mut world, 0, 2 * SIZE), Answer::Refused(why) if why.contains("berta")));
}

/// Why it is refused.
fn no_shrink(world: &mut World, node: usize, size: u64, force: bool) -> alloc::string::String {
    let before = sizes(world);
    match resize_with(world, node, size, force) {
        Answer::Refused(why) => {
            assert_eq!(sizes(world), before);
            why
        }
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn what_is_at_rest_gets_smaller_by_force() {
    let mut world = World::working(3, 2);
    assert!(no_shrink(&mut world, 0, SIZE / 2, false).contains("--force"));
    assert!(no_shrink(&mut world, 0, SIZE / 2, true).contains("demote"));
    assert!(no_shrink(&mut world, 1, SIZE / 2, true).contains("anna is Primary"));
    assert_eq!(world.ask_long(0, Command::Demote), Answer::Done);
    assert!(no_shrink(&mut world, 0, SIZE / 2 + 1, true).contains("whole blocks"));
    assert!(no_shrink(&mut world, 0, 0, true).contains("whole blocks"));
    world.nodes[2].grow = Err("something is beyond".into());
    assert!(no_shrink(&mut world, 0, SIZE / 2, true).contains("something is beyond"));
    world.nodes[2].grow = Ok(());
    assert_eq!(resize_with(&mut world, 1, SIZE / 2, true), Answer::Done);
    assert_eq!(sizes(&world), [SIZE / 2; 3]);
    assert!(world.nodes.iter().all(|node| node.volumes[1].size == SIZE));
}

#[test]
fn nobody_becomes_primary_while_a_volume_gets_smaller() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask_long(0, Command::Demote), Answer::Done);
    // The image of the node that leads it never answers.
    world.nodes[0].silent = true;
    let shrink = Command::Resize {
        volume: 0,
        size: SIZE / 2,
        assume_clean: false,
        force: true,
    };
    assert_eq!(world.ask(0, shrink), None);
    for node in [0, 1] {
        let promote = Command::Promote {
            force: false,
            accept: None,
        };
        assert!(matches!(world.ask_long(node, promote), Answer::Refused(_)), "{node}");
        assert_eq!(world.role(node), Role::Secondary);
    }
}

#[test]
fn a_growth_that_was_cut_short_can_be_completed() {
    let mut world = World::working(2, 1);
    world.nodes[0].volumes[0].refuses = Some(OrderRefusal::NoRoom);
    assert!(matches!(resize(&mut world, 0, 2 * SIZE), Answer::Refused(_)));
    assert_eq!(sizes(&world), [SIZE, 2 * SIZE]);
    world.nodes[0].volumes[0].refuses = None;
    world.part(0, 1);
    world.heal(0, 1);
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::Connecting, "the sizes differ");
    assert_eq!(resize(&mut world, 0, 2 * SIZE), Answer::Done);
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
}

#[test]
fn nodes_that_stayed_behind_a_growth_follow_one_by_one() {
    let mut world = World::working(3, 1);
    world.part(0, 1);
    world.part(0, 2);
    world.part(1, 2);
    world.nodes[2].volumes[0].size = 2 * SIZE;
    world.heal(0, 2);
    world.heal(1, 2);
    world.settle();
    assert_eq!(world.link(0, 2), LinkState::Connecting, "the sizes differ");
    assert!(matches!(resize(&mut world, 0, 3 * SIZE), Answer::Refused(why) if why.contains("berta")));
    for node in [0, 1] {
        assert_eq!(resize(&mut world, node, 2 * SIZE), Answer::Done);
        world.settle();
        assert_eq!(world.link(node, 2), LinkState::Connected, "{}", world.describe());
    }
    assert_eq!(sizes(&world), [2 * SIZE; 3]);
}

#[test]
fn a_peer_comes_and_goes() {
    let mut world = World::working(2, 1);
    let config = PeerConfig {
        name: "emil".into(),
        mode: AckMode::Sync,
        on_disconnect: OnDisconnect::Continue,
        queue_bytes: 0,
        queue_requests: 0,
        kind: PeerKind::Partner,
    };
    let add = Command::AddPeer {
        config,
        kind: Some(PeerKind::Partner),
    };
    assert_eq!(world.ask(0, add.clone()), Some(Answer::Done));
    assert!(matches!(world.ask(0, add), Some(Answer::Refused(_))), "twice");
    let status = world.nodes[0].resource.status();
    assert_eq!(status.peers[1].link, LinkState::Connecting);
    assert_eq!(world.ask(0, Command::RemovePeer(PeerIndex(1))), Some(Answer::Done));
    assert!(world.nodes[0].resource.status().peers[1].removed);
    assert!(matches!(
        world.ask(0, Command::RemovePeer(PeerIndex(1))),
        Some(Answer::Refused(_))
    ));
    assert_eq!(world.role(0), Role::Primary);
}

/// What the last Primary wrote at its end one of the two may have and the other not, and nobody is left who knows.
#[test]
fn who_stays_when_the_last_primary_is_removed_is_compared() {
    let mut world = World::working(3, 1);
    world.kill(0);
    for node in [1, 2] {
        assert_eq!(world.ask(node, Command::RemovePeer(PeerIndex(0))), Some(Answer::Done));
    }
    let marked = |world: &World, node: usize| world.nodes[node].volumes[0].dirty[1].len() as u64;
    assert_eq!([marked(&world, 1), marked(&world, 2)], [SIZE / BLOCK_BYTES; 2]);
    assert_eq!(world.promote_by_force(2), Answer::Done);
    world.settle();
    assert_eq!([marked(&world, 1), marked(&world, 2)], [0; 2], "{}", world.describe());
    // Whoever is removed from here on was not the last.
    let mut world = World::working(3, 1);
    assert_eq!(world.ask(1, Command::RemovePeer(PeerIndex(1))), Some(Answer::Done));
    assert!(world.nodes[1].volumes[0].dirty.iter().all(|bits| bits.is_empty()));
}

/// The partner goes on as Primary, and does not know that it was removed here.
#[test]
fn who_removes_its_last_partner_waits_for_its_operator() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(1, Command::RemovePeer(PeerIndex(0))), Some(Answer::Done));
    world.settle();
    assert_eq!([world.role(0), world.role(1)], [Role::Primary, Role::Secondary]);
    let promote = Command::Promote {
        force: false,
        accept: None,
    };
    assert_eq!(world.ask_long(1, promote), Answer::Done);
    assert_eq!(world.role(1), Role::Primary);
}

#[test]
fn a_volume_comes_and_goes() {
    let mut world = World::working(2, 1);
    for node in [1, 0] {
        let volume = super::volume::Volume::fresh(55 + node as u64, 1);
        world.nodes[node].volumes.push(volume);
        assert_eq!(
            world.ask(node, Command::AddVolume { name: "w".into() }),
            Some(Answer::Done)
        );
    }
    world.settle();
    assert!(world.nodes[0].volumes[1].primary);
    assert!(world.all_in_step(), "{}", world.describe());
    for node in 0..2 {
        assert_eq!(world.ask(node, Command::RemoveVolume(1)), Some(Answer::Done));
    }
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::Connected);
    assert!(matches!(world.ask(0, Command::Detach(1)), Some(Answer::Refused(_))));
}

#[test]
fn a_peer_that_turns_out_to_be_plain_leaves_nobody_to_wait_for() {
    let mut world = World::with(1, 1, |config| {
        config.peers = [crate::resource::ResourcePeer {
            name: "shelf".into(),
            kind: None,
        }]
        .into();
    });
    assert_eq!(world.role(0), Role::Secondary);
    world.give_input(0, Input::IsPlain(PeerIndex(0)));
    world.settle();
    assert_eq!(world.role(0), Role::Primary);
}

#[test]
fn outputs_are_in_the_order_in_which_they_have_to_be_done() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 1);
    let log = world.log_outputs(1);
    world.heal(0, 1);
    world.settle();
    let log = log.borrow();
    let at = |is: &dyn Fn(&Output) -> bool| log.iter().position(is).unwrap();
    let begun = at(&|output| {
        matches!(
            output,
            Output::Order {
                order: Order::BeginTarget { .. },
                ..
            }
        )
    });
    let bits = at(&|output| {
        matches!(
            output,
            Output::Send {
                control: Control::Bitmap { .. },
                ..
            }
        )
    });
    let up = at(&|output| matches!(output, Output::PeerUp { .. }));
    assert!(begun < bits && bits < up);
}

#[test]
fn the_primarys_volume_grows_last() {
    let mut world = World::working(2, 1);
    world.nodes[1].volumes[0].mute = true;
    let answer = resize(&mut world, 0, 2 * SIZE);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("in time")),
        "{answer:?}"
    );
    assert_eq!(world.nodes[0].volumes[0].size, SIZE);
}

#[test]
fn every_volume_hears_that_the_operator_parts_with_a_peer_and_so_does_one_that_comes_later() {
    let mut world = World::working(2, 2);
    let log = world.log_outputs(0);
    let parts = |wanted: bool| {
        let is_part = |output: &&Output| matches!(output, Output::Order { order: Order::Part { parted, .. }, .. } if *parted == wanted);
        let count = log.borrow().iter().filter(is_part).count();
        log.borrow_mut().clear();
        count
    };
    let peer = PeerIndex(0);
    assert_eq!(world.ask(0, Command::Disconnect(peer)), Some(Answer::Done));
    assert_eq!(parts(true), 2);
    world.nodes[0].volumes.push(super::volume::Volume::fresh(55, 1));
    let add = Command::AddVolume { name: "w".into() };
    assert_eq!(world.ask(0, add), Some(Answer::Done));
    assert_eq!(parts(true), 1);
    let connect = Command::Connect {
        peer,
        discard_my_data: false,
    };
    assert_eq!(world.ask(0, connect.clone()), Some(Answer::Done));
    assert_eq!(parts(false), 3);
    assert_eq!(world.ask(0, connect), Some(Answer::Done));
    let copies = "a connected peer is brought what a verify has marked";
    assert_eq!(parts(false), 3, "{copies}");
}
