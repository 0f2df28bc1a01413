//! What an operator is told of the present state is true.

use alloc::string::String;
use core::time::Duration;

use super::world::World;
use crate::event::PeerIndex;
use crate::resource::Why;
use crate::resource::event::{Answer, Command};

fn why(world: &World, node: usize) -> Why {
    world.nodes[node].why()
}

fn says(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

#[test]
fn a_peer_without_an_image_is_named_and_so_is_what_brings_it_back() {
    let mut world = World::working(2, 2);
    assert_eq!(world.ask(1, Command::Detach(1)), Some(Answer::Done));
    world.settle();
    let told = why(&world, 0);
    assert!(says(&told.limits, "volume v1 has no image on berta"), "{told:?}");
    assert!(says(&told.next, "on berta `blockmirror attach v1`"), "{told:?}");
    assert!(!says(&told.limits, "volume v0"), "{told:?}");
    let told = why(&world, 1);
    assert!(says(&told.limits, "volume v1 has no image here"), "{told:?}");
    assert!(!says(&told.limits, "serves it"), "nobody serves a Secondary: {told:?}");
    world.part(0, 1);
    assert!(!says(&why(&world, 0).limits, "no image on"), "nobody knows");
}

#[test]
fn who_serves_a_primary_without_its_image_is_named_only_while_it_does() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Detach(0)), Some(Answer::Done));
    world.settle();
    assert!(says(&why(&world, 0).limits, "no image here: berta serves it"));
    world.part(0, 1);
    assert!(says(&why(&world, 0).limits, "no connected peer has all of it"));
}

/// One of the two tries again and again to reach the other, which stands alone.
#[test]
fn the_reason_to_stand_alone_is_the_same_after_every_try() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 1);
    assert_eq!(world.promote_by_force(1), Answer::Done);
    world.write(1, 2);
    assert_eq!(world.ask(1, Command::Demote), Some(Answer::Done));
    world.heal(0, 1);
    world.settle();
    let reason = |world: &World, node: usize| {
        let status = world.nodes[node].resource.status();
        (status.peers[0].stand_alone.clone(), status.peers[0].split_brain.clone())
    };
    for node in [1, 0, 1, 0] {
        let connect = Command::Connect {
            peer: PeerIndex(0),
            discard_my_data: false,
        };
        // The other still stands alone, and says so.
        let before = reason(&world, 1 - node);
        assert!(before.0.is_some() && before.1.is_some(), "{before:?}");
        assert_eq!(world.ask(node, connect), Some(Answer::Done));
        world.advance(Duration::from_secs(20));
        assert_eq!(reason(&world, 1 - node), before);
        let told = reason(&world, node).1.unwrap();
        assert!(
            told.matches("said: ").count() <= 1 && told.matches("stands alone").count() == 0,
            "{told}"
        );
        assert_eq!(world.ask(node, Command::Disconnect(PeerIndex(0))), Some(Answer::Done));
        world.advance(Duration::from_secs(2));
    }
}

/// What is said of the role.
fn role_advice(world: &World, node: usize) -> String {
    let next = why(world, node).next.into_iter();
    next.filter(|line| line.contains("promote")).collect()
}

#[test]
fn a_promotion_that_is_sure_to_be_refused_is_not_advised() {
    let mut world = World::new(2, 1);
    assert!(
        role_advice(&world, 0).contains("`blockmirror promote --force db`"),
        "nobody has declared the data"
    );
    assert_eq!(world.promote_by_force(0), Answer::Done);
    world.settle();
    assert_eq!(role_advice(&world, 1), "", "anna is Primary");
    world.copies = false;
    world.part(0, 1);
    world.write(0, 1);
    let told = role_advice(&world, 1);
    assert!(
        told.contains("bring anna back, or `blockmirror promote --force db`"),
        "{told}"
    );
    assert!(matches!(world.promote(1), Answer::NeedsAccept { .. }));
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    assert!(role_advice(&world, 0).contains("here or on another node: `blockmirror promote db`"));
    world.heal(0, 1);
    world.settle();
    let told = role_advice(&world, 1);
    assert!(
        told.contains("on anna `blockmirror promote db`; not here: volume v0: anna has newer data"),
        "{told}"
    );
    assert!(matches!(world.promote(1), Answer::Refused(_)));
    assert_eq!(world.promote(0), Answer::Done);
}

#[test]
fn who_has_no_image_is_told_where_there_is_one() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    assert_eq!(world.ask(1, Command::Detach(0)), Some(Answer::Done));
    world.settle();
    let told = role_advice(&world, 1);
    assert!(
        told.contains("on anna `blockmirror promote db`; not here: volume v0"),
        "{told}"
    );
    assert!(matches!(world.promote(1), Answer::Refused(_)));
    assert_eq!(world.promote(0), Answer::Done);
    world.kill(0);
    let told = role_advice(&world, 1);
    assert!(
        told.contains("before `blockmirror promote db`: volume v0 has no image here: `blockmirror attach v0`"),
        "{told}"
    );
}
