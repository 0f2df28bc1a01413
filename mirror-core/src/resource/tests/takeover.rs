//! The Primary is gone: who may take over, what is asked, and what happens when it comes back.

use super::volume::Volume;
use super::world::{World, peer_of};
use crate::event::{Order, PeerIndex};
use crate::identity::Role;
use crate::resource::event::{Answer, Command, Loss, Output};
use crate::resource::{AfterRestart, LinkState};
use crate::state::LocalDisk;

#[test]
fn a_primary_that_died_with_nothing_missing_is_replaced_without_force() {
    let mut world = World::working(2, 2);
    world.write(0, 1);
    world.kill(0);
    assert_eq!(world.promote(1), Answer::Done);
    assert_eq!(world.role(1), Role::Primary);
    // Its own log knows what it had in flight: nothing is filled.
    assert!(world.nodes[1].volumes.iter().all(|volume| volume.dirty[0].is_empty()));
    world.write(1, 5);
    world.start(0);
    world.settle();
    assert_eq!((world.role(0), world.role(1)), (Role::Secondary, Role::Primary));
    assert!(world.all_in_step(), "{}", world.describe());
}

#[test]
fn a_silent_primary_may_be_running() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    let Answer::NeedsAccept { loss, token } = world.promote(1) else {
        panic!("promoted beside a Primary that may be running");
    };
    assert!(loss.unknown);
    // The word without force is not enough, another word neither.
    let ask = |force, accept: &str| Command::Promote {
        force,
        accept: Some(accept.into()),
    };
    assert!(matches!(
        world.ask_long(1, ask(false, &token)),
        Answer::NeedsAccept { .. }
    ));
    assert!(matches!(
        world.ask_long(1, ask(true, "yes")),
        Answer::NeedsAccept { .. }
    ));
    assert_eq!(world.ask_long(1, ask(true, &token)), Answer::Done);
}

#[test]
fn another_loss_has_another_word() {
    let mut world = World::working(2, 1);
    world.missed = Loss {
        bytes: 4096,
        flushes: 1,
        ..Loss::default()
    };
    world.kill(0);
    let Answer::NeedsAccept { loss, token } = world.promote(1) else {
        panic!("writes are missing");
    };
    assert_eq!((loss.bytes, loss.flushes, loss.unknown), (4096, 1, false));
    world.start(0);
    world.settle();
    world.missed.bytes = 8192;
    world.nodes[0].resource.role();
    assert_eq!(world.role(0), Role::Primary, "{}", world.describe());
    world.kill(0);
    let ask = Command::Promote {
        force: true,
        accept: Some(token),
    };
    assert!(matches!(world.ask_long(1, ask), Answer::NeedsAccept { loss, .. } if loss.bytes == 8192));
}

#[test]
fn a_primary_that_disconnects_in_words_is_still_running() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Disconnect(PeerIndex(0))), Some(Answer::Done));
    assert_eq!(world.link(0, 1), LinkState::StandAlone);
    let answer = world.promote(1);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}

#[test]
fn a_primary_that_stopped_in_order_is_replaced_without_force() {
    let mut world = World::working(2, 1);
    world.stop(0);
    assert_eq!(world.promote(1), Answer::Done);
}

#[test]
fn a_primary_that_restarts_takes_the_role_again_when_all_are_there() {
    let mut world = World::working(2, 2);
    world.kill(0);
    world.part(0, 1);
    world.start(0);
    world.settle();
    assert_eq!(world.role(0), Role::Secondary, "not alone");
    let answer = world.promote(0);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
    world.heal(0, 1);
    world.settle();
    assert_eq!(
        (world.role(0), world.role(1)),
        (Role::Primary, Role::Secondary),
        "{}",
        world.describe()
    );
    assert!(world.all_in_step());
}

#[test]
fn unless_it_is_told_to_stay_secondary() {
    let mut world = World::working_with(2, 1, |config| config.after_restart = AfterRestart::Secondary);
    world.kill(0);
    world.start(0);
    world.settle();
    assert_eq!(world.role(0), Role::Secondary);
    assert_eq!(world.promote(0), Answer::Done, "all are there, nothing is newer");
}

#[test]
fn or_somebody_else_has_it() {
    let mut world = World::working(2, 1);
    world.kill(0);
    assert_eq!(world.promote(1), Answer::Done);
    world.start(0);
    world.settle();
    assert_eq!((world.role(0), world.role(1)), (Role::Secondary, Role::Primary));
    world.kill(1);
    assert_eq!(
        world.promote(0),
        Answer::Done,
        "in step again, and the end of the Primary was seen"
    );
}

#[test]
fn after_an_unplanned_takeover_other_secondaries_are_compared() {
    let mut world = World::working(3, 1);
    world.kill(0);
    world.copies = false;
    assert_eq!(world.promote(1), Answer::Done);
    world.settle();
    let volume = &world.nodes[1].volumes[0];
    assert!(
        !volume.dirty[peer_of(1, 2)].is_empty(),
        "nobody knows what clara got: {volume:?}"
    );
    assert!(
        volume.dirty[peer_of(1, 0)].is_empty(),
        "anna's own log tells: {volume:?}"
    );
    world.copies = true;
    world.settle();
}

#[test]
fn incomplete_data_has_its_own_warning() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 3);
    world.write(0, 4);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    world.kill(0);
    let answer = world.promote(1);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.inconsistent_bytes > 0),
        "{answer:?}"
    );
    assert_eq!(world.promote_by_force(1), Answer::Done);
}

#[test]
fn a_restarted_secondary_knows_nothing_of_the_primary() {
    let mut world = World::working(2, 1);
    world.kill(0);
    world.kill(1);
    world.start(1);
    let answer = world.promote(1);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}

#[test]
fn a_primary_that_was_demoted_takes_the_role_again_alone() {
    let mut world = World::working(2, 1);
    world.kill(1);
    world.write(0, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    assert_eq!(world.promote(0), Answer::Done);
}

#[test]
fn a_primary_that_dies_while_it_is_asked_is_replaced() {
    let mut world = World::working(2, 1);
    world.nodes[0].stuck = true;
    let command = Command::Promote {
        force: false,
        accept: None,
    };
    let id = world.give(1, command);
    world.run();
    assert_eq!(world.nodes[1].answers.get(&id), None);
    world.kill(0);
    assert_eq!(world.nodes[1].answers.get(&id), Some(&Answer::Done));
    assert_eq!(world.role(1), Role::Primary);
}

#[test]
fn or_somebody_else_had_it_meanwhile() {
    let mut world = World::working(2, 1);
    world.kill(0);
    assert_eq!(world.promote(1), Answer::Done);
    world.write(1, 5);
    assert_eq!(world.ask(1, Command::Demote), Some(Answer::Done));
    world.start(0);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    assert_eq!((world.role(0), world.role(1)), (Role::Secondary, Role::Secondary));
}

#[test]
fn an_established_secondary_is_compared_after_an_unplanned_takeover() {
    let mut world = World::working(3, 1);
    assert!(world.nodes[1].volumes[0].up[peer_of(1, 2)].is_some());
    world.kill(0);
    // It comes back, is Secondary, and goes again: that is no end in order.
    world.part(0, 2);
    world.start(0);
    world.settle();
    world.kill(0);
    world.copies = false;
    assert!(matches!(world.promote_by_force(1), Answer::Done));
    let volume = &world.nodes[1].volumes[0];
    assert!(
        !volume.dirty[peer_of(1, 2)].is_empty(),
        "nobody knows what clara got: {volume:?}"
    );
}

#[test]
fn newer_data_that_cannot_be_had_is_not_passed_over_in_silence() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    assert_eq!(world.ask(0, Command::Detach(0)), Some(Answer::Done));
    world.heal(0, 1);
    world.settle();
    assert!(matches!(world.promote_by_force(1), Answer::Refused(why) if why.contains("newer data")));
    assert_eq!(world.ask(1, Command::Disconnect(PeerIndex(0))), Some(Answer::Done));
    let answer = world.promote(1);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}

#[test]
fn a_secondary_that_fell_behind_hears_of_it() {
    let mut world = World::working(3, 1);
    // Clara loses the Primary; berta gets more of it, and clara, still connected to berta, does not know.
    world.part(0, 2);
    world.write(0, 1);
    let (previous, current) = (world.nodes[2].volumes[0].current, world.nodes[0].volumes[0].current);
    assert_eq!(world.nodes[1].volumes[0].current, current);
    world.nodes[1].volumes[0].records[peer_of(1, 2)] = previous;
    world.nodes[1].volumes[0].fill(peer_of(1, 2));
    world.copies = false;
    world.kill(0);
    let answer = world.promote_by_force(2);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("newer data")),
        "{answer:?}"
    );
    world.copies = true;
    assert_eq!(world.promote(1), Answer::Done);
    world.settle();
    assert_eq!(world.nodes[2].volumes[0].current, world.nodes[1].volumes[0].current);
}

#[test]
fn a_crashed_primary_without_its_image_may_have_what_nobody_else_has() {
    for acks_wait in [true, false] {
        let mut world = World::working(2, 1);
        world.kill(0);
        world.kill(1);
        let crashed = &mut world.nodes[0].volumes[0];
        (crashed.acks_wait, crashed.disk) = (acks_wait, LocalDisk::Diskless);
        world.start(0);
        world.start(1);
        world.settle();
        assert_eq!(world.role(1), Role::Secondary);
        let answer = world.promote(1);
        if acks_wait {
            assert_eq!(answer, Answer::Done);
        } else {
            assert!(
                matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
                "{answer:?}"
            );
        }
    }
}

#[test]
fn data_of_an_unseen_primary_tells_that_the_one_that_was_seen_is_not_the_last() {
    let mut world = World::working(3, 1);
    // Clara never sees berta as Primary, and gets its data from anna, which is Secondary again.
    world.part(1, 2);
    world.part(0, 2);
    assert_eq!(world.promote(1), Answer::Done);
    world.write(1, 3);
    world.settle();
    world.part(0, 1);
    world.heal(0, 2);
    world.settle();
    assert_eq!(world.nodes[2].volumes[0].current, world.nodes[0].volumes[0].current);
    assert_eq!(world.nodes[2].volumes[0].disk, LocalDisk::UpToDate);
    let answer = world.promote(2);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "berta may be Primary still: {answer:?}"
    );
}

#[test]
fn a_primary_that_was_lost_counts_though_another_one_has_left_in_order_since() {
    let mut world = World::working(3, 1);
    world.part(0, 1);
    world.part(1, 2);
    assert_eq!(world.promote_by_force(1), Answer::Done);
    // Clara, with anna, hears of the other Primary, which stops. Then anna falls silent.
    world.heal(1, 2);
    world.settle();
    world.stop(1);
    world.part(0, 2);
    let answer = world.promote(2);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "anna may be Primary still: {answer:?}"
    );
}

#[test]
fn a_primary_that_leaves_speaks_for_those_in_step_with_it() {
    for in_step in [true, false] {
        let mut world = World::working(3, 1);
        if !in_step {
            world.nodes[2].volumes[0].fill(peer_of(2, 0));
        }
        world.stop(0);
        let outputs = world.log_outputs(2);
        world.promote_by_force(2);
        let doubted = outputs.borrow().iter().any(
            |output| matches!(output, Output::Order { order: Order::Promote { doubtful, .. }, .. } if !doubtful.is_empty()),
        );
        assert_eq!(doubted, !in_step);
    }
}

#[test]
fn no_volume_is_copied_beside_one_that_waits_for_the_next_primary() {
    // Whichever way it would be copied: what was written to the waiting one last may be in a cache only.
    for (late, other) in [(2, 1), (1, 2)] {
        let mut world = World::working(3, 2);
        world.kill(0);
        world.part(1, 2);
        // In the first volume either may have what the Primary has acknowledged; the second is new on one of them.
        world.nodes[1].volumes[0].fill(peer_of(1, 2));
        world.nodes[late].volumes[1] = Volume::fresh(7, 2);
        world.heal(1, 2);
        world.settle();
        assert_eq!(world.link(2, 1), LinkState::Connected);
        let volume = &world.nodes[late].volumes[1];
        assert!(
            volume.fresh && volume.up[peer_of(late, other)].is_none(),
            "volumes of two times are no data: {volume:?}"
        );
        let answer = world.promote(late);
        assert!(!matches!(answer, Answer::Done), "{answer:?}");
    }
}
