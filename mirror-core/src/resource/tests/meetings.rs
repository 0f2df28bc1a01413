//! Marks of meetings, and what is put back to before them.

use super::world::World;
use crate::identity::Rule;
use crate::stream::Control;

/// What the last handshake of the second node with the first has decided.
fn rule(world: &World) -> Option<Rule> {
    let why = world.nodes[1].why();
    let handshake = why.peers[0].handshake.as_ref()?;
    Some(handshake.volumes[0].decision.rule)
}

/// The image and its metadata of a node that was stopped: one connection later it is known that they are older.
#[test]
fn what_is_put_back_by_one_connection_is_recognised() {
    let mut world = World::working(2, 1);
    world.stop(1);
    let snapshot = world.nodes[1].volumes[0].clone();
    world.start(1);
    assert!(world.all_in_step(), "{}", world.describe());
    world.stop(1);
    world.nodes[1].volumes[0] = snapshot;
    world.start(1);
    assert_eq!(rule(&world), Some(Rule::Restored), "{}", world.describe());
}

/// The mark that is under way is with one of the two only when they part: nobody was put back.
#[test]
fn a_mark_that_only_one_has_is_no_alarm() {
    for begun in [true, false] {
        let mut world = World::working(2, 1);
        world.part(0, 1);
        world.holds = Some(alloc::boxed::Box::new(move |_, control| {
            matches!(
                (control, begun),
                (Control::Meet { .. }, true) | (Control::Met { .. }, false)
            )
        }));
        for _ in 0..3 {
            world.heal(0, 1);
            world.settle();
            assert!(world.all_in_step(), "{}", world.describe());
            assert_eq!(rule(&world), Some(Rule::SameGeneration), "{}", world.describe());
            world.part(0, 1);
        }
    }
}
