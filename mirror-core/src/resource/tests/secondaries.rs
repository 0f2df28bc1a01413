//! What Secondaries copy from each other, and what they leave to the next Primary.

use super::volume::Volume;
use super::world::{World, peer_of};
use crate::resource::event::{Answer, Command};

/// Clara was copied to, and led a growth after that on the same connection: what is new is marked with her alone.
#[test]
fn what_is_marked_on_a_secondary_after_its_copy_is_copied_by_its_primary() {
    let mut world = World::working(3, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.kill(2);
    world.nodes[2].volumes[0] = Volume::fresh(77, 2);
    world.nodes[2].volumes[0].fill(peer_of(2, 0));
    world.start(2);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    let connection = world.nodes[2].connections[peer_of(2, 0)];
    world.nodes[2].volumes[0].dirty[peer_of(2, 0)].insert(1);
    assert_eq!(world.promote(0), Answer::Done);
    world.settle();
    assert!(world.nodes[2].volumes[0].dirty[peer_of(2, 0)].is_empty());
    assert_ne!(world.nodes[2].connections[peer_of(2, 0)], connection, "once");
}

/// Berta has copied to Anna, and led a growth after that on the same connection.
#[test]
fn what_is_marked_on_a_secondary_that_was_a_source_is_copied_by_its_primary() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.kill(0);
    world.nodes[0].volumes[0] = Volume::fresh(77, 1);
    world.nodes[1].volumes[0].fill(peer_of(1, 0));
    world.start(0);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    let connection = world.nodes[1].connections[peer_of(1, 0)];
    world.nodes[1].volumes[0].dirty[peer_of(1, 0)].insert(1);
    assert_eq!(world.promote(0), Answer::Done);
    world.settle();
    assert!(world.nodes[1].volumes[0].dirty[peer_of(1, 0)].is_empty());
    assert_ne!(world.nodes[1].connections[peer_of(1, 0)], connection, "once");
}
