//! A peer whose image is full.

use core::time::Duration;

use super::world::World;
use crate::event::PeerIndex;
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
    let why = world.nodes[0].resource.why();
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
