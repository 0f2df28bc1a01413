//! Growths that are cut short, and what the nodes make of it.

use super::members::{resize, sizes};
use super::world::{SIZE, World};
use crate::event::Order;
use crate::resource::LinkState;
use crate::resource::event::{Answer, Command, Input, Output};

const LARGER: u64 = 2 * SIZE;

/// The operator asks for a growth that does not end at once.
fn begin(world: &mut World, node: usize) -> u64 {
    let command = Command::Resize {
        volume: 0,
        size: LARGER,
        assume_clean: false,
        force: false,
    };
    let id = world.give(node, command);
    world.run();
    assert_eq!(world.nodes[node].answers.get(&id), None);
    id
}

fn all_connected(world: &World) -> bool {
    let connected = |node: usize, other: usize| other == node || world.link(node, other) == LinkState::Connected;
    (0..world.nodes.len()).all(|node| (0..world.nodes.len()).all(|other| connected(node, other)))
}

/// Three nodes, of which clara's volume has taken the size and berta's does not get to.
fn halfway() -> (World, u64) {
    let mut world = World::working(3, 1);
    world.nodes[1].volumes[0].mute = true;
    let id = begin(&mut world, 0);
    assert_eq!(sizes(&world), [SIZE, SIZE, LARGER]);
    (world, id)
}

/// Seed 1600057012: who had the size and who led stayed connected. Once the former was Primary, the one was told that the
/// Primary had to grow, and the Primary that it had grown already.
#[test]
fn who_has_taken_the_size_of_a_growth_that_is_given_up_is_apart_until_all_have_it() {
    let (mut world, id) = halfway();
    world.part(0, 1);
    world.settle();
    assert!(matches!(&world.nodes[0].answers[&id], Answer::Refused(why) if why.contains("stay apart")));
    assert_eq!(world.link(0, 2), LinkState::Connecting, "{}", world.describe());
    assert_eq!(world.link(1, 2), LinkState::Connecting, "{}", world.describe());
    world.nodes[1].volumes[0].mute = false;
    world.heal(0, 1);
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::Connected, "{}", world.describe());
    assert_eq!(resize(&mut world, 0, LARGER), Answer::Done);
    world.settle();
    assert_eq!(sizes(&world), [LARGER; 3]);
    assert!(all_connected(&world), "{}", world.describe());
}

#[test]
fn who_has_taken_a_size_is_apart_from_who_has_not_when_who_led_is_gone() {
    let (mut world, _) = halfway();
    assert_eq!(world.link(1, 2), LinkState::Connected, "it may be on its way");
    world.kill(0);
    world.settle();
    assert_eq!(world.link(1, 2), LinkState::Connecting, "{}", world.describe());
    assert_eq!(world.promote_by_force(2), Answer::Done);
    world.nodes[1].volumes[0].mute = false;
    assert_eq!(resize(&mut world, 1, LARGER), Answer::Done);
    world.settle();
    assert_eq!(world.link(1, 2), LinkState::Connected, "{}", world.describe());
}

#[test]
fn who_takes_a_size_after_the_growth_was_given_up_is_apart_too() {
    let mut world = World::working(2, 1);
    let log = world.log_outputs(1);
    world.nodes[1].volumes[0].mute = true;
    assert!(matches!(resize(&mut world, 0, LARGER), Answer::Refused(why) if why.contains("in time")));
    assert_eq!(world.link(0, 1), LinkState::Connected, "nobody has the size");
    let is_resize = |output: &Output| match output {
        Output::Order { ticket, order, .. } => matches!(order, Order::Resize { .. }).then_some(*ticket),
        _ => None,
    };
    let ticket = log.borrow().iter().find_map(is_resize).expect("it was asked to");
    world.nodes[1].volumes[0].mute = false;
    world.nodes[1].volumes[0].size = LARGER;
    let (volume, outcome) = (0, Ok(()));
    world.give_input(
        1,
        Input::OrderDone {
            volume,
            ticket,
            outcome,
        },
    );
    assert_eq!(world.link(0, 1), LinkState::Connecting, "{}", world.describe());
    assert_eq!(resize(&mut world, 0, LARGER), Answer::Done);
    world.settle();
    assert!(all_connected(&world), "{}", world.describe());
}

#[test]
fn who_comes_while_images_grow_stays_as_it_is_until_its_own_has_grown() {
    let mut world = World::working(3, 1);
    world.part(0, 1);
    world.part(0, 2);
    world.part(1, 2);
    world.nodes[2].volumes[0].size = LARGER;
    world.heal(0, 2);
    world.nodes[0].silent = true;
    let id = begin(&mut world, 0);
    world.heal(0, 1);
    assert_eq!(world.link(0, 1), LinkState::Connected);
    let (volume, outcome) = (0, Ok(LARGER));
    world.give_input(0, Input::Grown { volume, outcome });
    assert_eq!(world.nodes[0].answers[&id], Answer::Done);
    world.settle();
    assert_eq!(sizes(&world), [LARGER, SIZE, LARGER], "berta's image has not grown");
    assert_eq!(world.link(0, 1), LinkState::Connecting, "{}", world.describe());
    assert_eq!(resize(&mut world, 1, LARGER), Answer::Done);
    world.heal(1, 2);
    world.settle();
    assert!(all_connected(&world), "{}", world.describe());
}

#[test]
fn a_growth_that_ends_well_disturbs_nobody() {
    let mut world = World::working(3, 2);
    let before = world.connection;
    assert_eq!(resize(&mut world, 0, LARGER), Answer::Done);
    world.settle();
    world.part(0, 1);
    world.part(0, 2);
    world.settle();
    assert_eq!(world.connection, before, "{}", world.describe());
}
