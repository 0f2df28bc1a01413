//! What an operator is told of the present state is true.

use alloc::string::String;

use super::world::World;
use crate::resource::Why;
use crate::resource::event::{Answer, Command};

fn why(world: &World, node: usize) -> Why {
    world.nodes[node].resource.why()
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
