//! Nodes that cannot take part for now: a peer whose image is full, a mirror that stops or fails.

use core::time::Duration;

use super::world::World;
use crate::event::{OrderRefusal, PeerIndex};
use crate::identity::Role;
use crate::resource::LinkState;
use crate::resource::config::SPACE_RETRY;
use crate::resource::event::{Answer, Command, Input};

const MOMENT: Duration = Duration::from_secs(1);

/// The second node had no space left for what the first one sent.
fn full() -> World {
    let mut world = World::working(2, 2);
    world.give_input(0, Input::NoSpace(PeerIndex(0)));
    world.part(0, 1);
    world.heal(0, 1);
    world
}

fn is_said(world: &World) -> bool {
    let why = world.nodes[0].why();
    let advised = why.next.iter().any(|next| next.contains("make room"));
    assert_eq!(world.nodes[0].resource.status().peers[0].no_space, advised);
    advised
}

#[test]
fn a_peer_without_space_rests_whoever_calls_and_is_said_to_have_none() {
    let mut world = full();
    let connections = world.connection;
    world.advance(SPACE_RETRY - MOMENT);
    assert!(world.connection > connections, "the other one knocks");
    assert_ne!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
    assert!(is_said(&world));
    world.advance(3 * MOMENT);
    assert_eq!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
    assert!(!is_said(&world), "there is room again");
}

#[test]
fn an_operator_who_has_made_room_does_not_wait() {
    let mut world = full();
    let connect = Command::Connect {
        peer: PeerIndex(0),
        discard_my_data: false,
    };
    assert_eq!(world.ask_long(0, connect), Answer::Done);
    world.advance(3 * MOMENT);
    assert_eq!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
}

#[test]
fn a_mirror_that_stops_is_not_asked_again_at_once() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.nodes[0].volumes[0].refuses = Some(OrderRefusal::Closed);
    let connections = world.connection;
    world.heal(0, 1);
    assert_eq!(world.connection, connections + 1);
    world.advance(3 * MOMENT);
    assert!(
        world.connection <= connections + 6,
        "{}",
        world.connection - connections
    );
    world.nodes[0].volumes[0].refuses = None;
    world.advance(3 * MOMENT);
    assert_eq!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
}

#[test]
fn a_volume_that_fails_when_it_is_named_leaves_a_promotion_half_done() {
    let mut world = World::working(2, 2);
    world.nodes[1].volumes[1].fails_naming = true;
    let answer = world.promote(1);
    assert!(
        matches!(&answer, Answer::HalfDone(why) if why.contains("given up")),
        "{answer:?}"
    );
    assert_eq!(world.role(1), Role::Secondary);
}
