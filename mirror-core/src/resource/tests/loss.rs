//! What a promotion would do without, and when nobody can say.

use alloc::boxed::Box;
use core::time::Duration;

use super::world::{World, peer_of};
use crate::resource::event::Answer;
use crate::state::LocalDisk;
use crate::stream::Control;

/// What may be missing nobody knows.
fn must_ask(answer: &Answer) {
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}

/// Berta and clara are together, anna is Primary and apart from them; clara has been killed since and knows of no Primary.
fn nobody_known() -> World {
    let mut world = World::working(3, 1);
    world.part(0, 1);
    world.part(0, 2);
    world.kill(2);
    world.write(0, 5);
    world.start(2);
    world.settle();
    world
}

#[test]
fn who_was_allowed_to_be_primary_and_is_not_hides_nobody_that_may_be() {
    for allows in [false, true] {
        let mut world = nobody_known();
        let berta = peer_of(2, 1);
        if allows {
            let connection = world.nodes[2].connections[berta].expect("they are together");
            world.give_control(2, berta as u8, connection, Control::Promoting);
            // Berta thinks better of it.
            world.part(1, 2);
            world.heal(1, 2);
            world.settle();
        }
        must_ask(&world.promote(2));
    }
}

#[test]
fn a_primary_that_ends_before_it_has_spoken_has_been_alone_for_a_while() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 5);
    world.holds = Some(Box::new(|from, _| from == 0));
    world.heal(0, 1);
    world.advance(Duration::from_secs(1));
    assert!(world.nodes[1].connections[0].is_some(), "{}", world.describe());
    world.kill(0);
    must_ask(&world.promote(1));
}

#[test]
fn the_last_primary_that_lost_its_image_may_have_answered_more_than_its_partner_has() {
    for acks_wait in [true, false] {
        let mut world = World::working(2, 1);
        world.kill(0);
        let volume = &mut world.nodes[0].volumes[0];
        (volume.acks_wait, volume.disk) = (acks_wait, LocalDisk::Inconsistent);
        volume.fill(0);
        world.start(0);
        world.settle();
        assert!(world.all_in_step(), "{}", world.describe());
        let answer = world.promote(0);
        if acks_wait {
            assert_eq!(answer, Answer::Done);
        } else {
            must_ask(&answer);
        }
    }
}
