//! What a promotion would do without, and when nobody can say.

use alloc::boxed::Box;
use core::time::Duration;

use super::volume::{BLOCKS, Volume};
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

/// Anna was Primary, died, and had to be given a new image, which `from` fills.
fn refilled(nodes: usize, from: usize, acks_wait: bool) -> World {
    let mut world = World::working(nodes, 1);
    world.kill(0);
    for other in (1..nodes).filter(|other| *other != from) {
        world.kill(other);
    }
    let volume = &mut world.nodes[0].volumes[0];
    (volume.acks_wait, volume.disk) = (acks_wait, LocalDisk::Inconsistent);
    volume.dirty.iter_mut().for_each(|bits| *bits = (0..BLOCKS).collect());
    world.start(0);
    world.settle();
    world
}

#[test]
fn the_last_primary_that_lost_its_image_may_have_answered_more_than_its_partner_has() {
    for (acks_wait, promoted) in [(true, 0), (false, 0), (true, 1), (false, 1)] {
        let mut world = refilled(2, 1, acks_wait);
        assert!(world.all_in_step(), "{}", world.describe());
        let answer = world.promote(promoted);
        if acks_wait {
            assert_eq!(answer, Answer::Done);
        } else {
            must_ask(&answer);
        }
    }
}

/// Nor does a node forget it that was not there, or one that was killed since, until somebody is Primary.
#[test]
fn answers_that_were_lost_with_an_image_are_asked_for_by_every_node_until_one_is_primary() {
    let mut world = refilled(3, 1, false);
    for node in 0..2 {
        world.kill(node);
    }
    for node in 0..3 {
        world.start(node);
    }
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    for node in 0..3 {
        must_ask(&world.promote(node));
    }
    assert_eq!(world.promote_by_force(2), Answer::Done);
    for node in 0..3 {
        assert_eq!(world.promote(node), Answer::Done, "it moves in order from node to node");
    }
}

/// Anna was Primary, and is lost with image and metadata: nothing of her tells what she may have answered alone.
#[test]
fn what_a_lost_machine_had_answered_is_asked_for_when_another_has_its_name() {
    for (seen_to_end, bertas_life) in [(true, false), (false, false), (false, true)] {
        let mut world = World::working(2, 1);
        if !seen_to_end {
            world.part(0, 1);
            world.write(0, 5);
        }
        world.kill(0);
        if bertas_life {
            world.kill(1);
            world.start(1);
        }
        world.nodes[0].volumes[0] = Volume::fresh(77, 1);
        world.start(0);
        world.heal(0, 1);
        world.settle();
        assert!(world.all_in_step(), "{}", world.describe());
        for node in 0..2 {
            let answer = world.promote(node);
            if seen_to_end {
                assert_eq!(answer, Answer::Done);
            } else {
                must_ask(&answer);
            }
        }
    }
}

/// As at a `reload` that adds a volume: the Primary lives, whatever the end of its connection looks like.
#[test]
fn a_connection_that_a_primary_closes_on_purpose_is_no_death() {
    let mut world = World::working(2, 1);
    (world.cut[0][1], world.cut[1][0]) = (true, true);
    let connection = world.nodes[0].connections[0].expect("they are together");
    let nobody_asked = Control::Bitmap {
        volume: 0,
        blocks: core::iter::once(3..9).collect(),
        last: true,
    };
    world.give_control(0, 0, connection, nobody_asked);
    world.run();
    assert_eq!(world.nodes[1].connections[0], None, "{}", world.describe());
    must_ask(&world.promote(1));
}
