//! What Secondaries copy from each other, and what they leave to the next Primary.

use core::time::Duration;

use super::volume::Volume;
use super::world::{SIZE, World, peer_of};
use crate::resource::LinkState;
use crate::resource::event::{Answer, Command, Input};
use crate::state::LocalDisk;

/// Blocks are marked on this Secondary alone, for anna, who becomes Primary: they are copied, over one new connection.
fn marked_is_copied(world: &mut World, on: usize) {
    let peer = peer_of(on, 0);
    let connection = world.nodes[on].connections[peer];
    world.nodes[on].volumes[0].dirty[peer].insert(1);
    assert_eq!(world.promote(0), Answer::Done);
    world.settle();
    assert!(world.nodes[on].volumes[0].dirty[peer].is_empty());
    assert_ne!(world.nodes[on].connections[peer], connection, "once");
}

/// Clara led a growth while nobody was Primary: what is new is marked with her alone.
#[test]
fn what_is_marked_on_a_secondary_only_is_copied_by_its_primary() {
    let mut world = World::working(3, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    marked_is_copied(&mut world, 2);
    let connection = world.nodes[2].connections[peer_of(2, 0)];
    world.settle();
    assert_eq!(world.nodes[2].connections[peer_of(2, 0)], connection);
}

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
    marked_is_copied(&mut world, 2);
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
    marked_is_copied(&mut world, 1);
}

/// Anna leads a growth as Primary: what berta has marked for it anna has marked as well, and waits for berta's answer.
#[test]
fn a_growth_that_the_primary_leads_is_not_cut_short() {
    let mut world = World::working(2, 1);
    let connection = world.nodes[0].connections[0];
    world.nodes[1].volumes[0].mute = true;
    let size = 2 * SIZE;
    let (volume, assume_clean, force) = (0, false, false);
    let growth = Command::Resize {
        volume,
        size,
        assume_clean,
        force,
    };
    assert_eq!(world.ask(0, growth), None, "berta's volume has not answered");
    world.nodes[1].volumes[0].dirty[0].insert(1);
    world.advance(Duration::from_millis(200));
    world.give_input(1, Input::Timeout);
    assert_eq!(world.nodes[0].connections[0], connection, "{}", world.describe());
}

/// Some nodes of two volumes each, the first one Primary until `end`; the last one has got a new image of the second volume.
fn with_a_new_image(nodes: usize, end: impl Fn(&mut World)) -> World {
    let mut world = World::working(nodes, 2);
    let last = nodes - 1;
    world.kill(last);
    end(&mut world);
    world.nodes[last].volumes[1] = Volume::fresh(77, last);
    world.start(last);
    world.settle();
    world
}

/// In `async` the Primary may have got further in the first volume on one of them than on the other.
#[test]
fn nothing_is_copied_beside_a_volume_of_which_one_may_have_more() {
    let mut world = with_a_new_image(3, |world| world.kill(0));
    assert_eq!(world.link(1, 2), LinkState::Connected);
    assert_eq!(world.nodes[1].resource.status().peers[1].parked, ["v1"]);
    assert_eq!(world.nodes[2].resource.status().peers[1].parked, ["v1"]);
    assert!(world.nodes[2].volumes[1].fresh, "{}", world.describe());
    assert_eq!(world.promote_by_force(1), Answer::Done);
    world.settle();
    assert_eq!(world.nodes[2].volumes[1].current, world.nodes[1].volumes[1].current);
    assert_eq!(world.nodes[2].volumes[1].disk, LocalDisk::UpToDate);
}

#[test]
fn who_was_primary_knows_what_another_lacks_and_copies_it() {
    let demoted = |world: &mut World| assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    for nodes in [2, 3] {
        let world = with_a_new_image(nodes, demoted);
        assert!(!world.nodes[nodes - 1].volumes[1].fresh, "{}", world.describe());
        assert!(world.all_in_step(), "{}", world.describe());
    }
}

/// Berta's mirrors take their time to agree; Clara, who has consented, loses the connection meanwhile, and with it her word.
#[test]
fn who_comes_again_while_the_mirrors_are_asked_is_asked_again() {
    let mut world = World::working(3, 2);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.part(0, 1);
    world.nodes[1].volumes[1].mute = true;
    let command = Command::Promote {
        force: false,
        accept: None,
    };
    let id = world.give(1, command);
    world.run();
    world.part(1, 2);
    world.heal(1, 2);
    world.run();
    let other = world.promote_by_force(0);
    assert!(
        matches!(&other, Answer::Refused(why) if why.contains("berta")),
        "{other:?}: {}",
        world.describe()
    );
    assert_eq!(world.nodes[1].answers.get(&id), None, "not refused");
}

/// In `async` the last that was answered may have been nowhere else.
#[test]
fn a_primary_that_has_lost_a_volume_asks_for_the_word() {
    let mut world = World::working(3, 2);
    world.kill(0);
    world.nodes[0].volumes[0] = Volume::fresh(77, 2);
    world.start(0);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    let answer = world.promote(0);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
    assert_eq!(world.promote_by_force(0), Answer::Done);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    assert_eq!(world.promote(0), Answer::Done, "once");
}
