//! Diverged data: always seen by both, touched only by the operator's word or a policy.

use alloc::vec;
use alloc::vec::Vec;

use super::world::World;
use crate::event::PeerIndex;
use crate::identity::{Role, SplitBrainPolicy};
use crate::resource::LinkState;
use crate::resource::event::{Answer, Command, Event};
use crate::state::LocalDisk;

/// Both have been Primary on their own and have written; the first is so still if `still`.
fn diverged(policy: SplitBrainPolicy, first_writes: u64, second_writes: u64) -> World {
    let mut world = World::working_with(2, 2, |config| config.split_brain = policy);
    world.part(0, 1);
    (0..first_writes).for_each(|block| world.write(0, block));
    world.advance(core::time::Duration::from_secs(10));
    assert_eq!(world.promote_by_force(1), Answer::Done);
    (0..second_writes).for_each(|block| world.write(1, 10 + block));
    world
}

fn demote(world: &mut World, node: usize) {
    assert_eq!(world.ask(node, Command::Demote), Some(Answer::Done));
}

fn connect(world: &mut World, node: usize, discard_my_data: bool) -> Answer {
    let command = Command::Connect {
        peer: PeerIndex(0),
        discard_my_data,
    };
    world.ask_long(node, command)
}

fn assert_both_alone(world: &World) {
    for node in 0..2 {
        assert_eq!(
            world.link(node, 1 - node),
            LinkState::StandAlone,
            "{}",
            world.describe()
        );
        assert!(world.is_split(node, 1 - node), "both sides have to know");
        let seen = |event: &Event| matches!(event, Event::SplitBrain { .. });
        assert!(world.nodes[node].events.iter().any(seen));
        assert!(
            world.nodes[node]
                .volumes
                .iter()
                .all(|volume| volume.disk == LocalDisk::UpToDate)
        );
        assert!(!world.nodes[node].why().next.is_empty());
    }
}

#[test]
fn two_primaries_are_seen_and_part() {
    let mut world = diverged(SplitBrainPolicy::DiscardLeastChanges, 3, 1);
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
    assert_eq!(
        (world.role(0), world.role(1)),
        (Role::Primary, Role::Primary),
        "hosts work on"
    );
}

#[test]
fn diverged_data_is_seen_and_nothing_is_overwritten() {
    let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
    demote(&mut world, 1);
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn the_operators_word_resolves_it_and_saves_what_is_lost() {
    for survivor_first in [false, true] {
        let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
        demote(&mut world, 1);
        let lost: Vec<u64> = world.nodes[1].volumes.iter().map(|volume| volume.current).collect();
        world.heal(0, 1);
        world.settle();
        assert_both_alone(&world);
        if survivor_first {
            assert_eq!(connect(&mut world, 0, false), Answer::Done);
            world.settle();
            assert_eq!(connect(&mut world, 1, true), Answer::Done);
        } else {
            assert_eq!(connect(&mut world, 1, true), Answer::Done);
            world.settle();
            assert_eq!(connect(&mut world, 0, false), Answer::Done);
        }
        world.settle();
        if world.link(1, 0) == LinkState::StandAlone {
            // The survivor came back while the victim had not been told yet: both say no once more.
            assert_eq!(connect(&mut world, 1, true), Answer::Done);
            assert_eq!(connect(&mut world, 0, false), Answer::Done);
            world.settle();
        }
        assert!(world.all_in_step(), "{}", world.describe());
        assert!(!world.is_split(0, 1) && !world.is_split(1, 0));
        for (volume, lost) in world.nodes[1].volumes.iter().zip(lost) {
            assert_eq!(volume.branches, [lost]);
        }
        assert!(world.nodes[0].volumes.iter().all(|volume| volume.branches.is_empty()));
    }
}

/// Diverged, and the second node's data are given up: its copy has begun and goes nowhere.
fn given_up() -> World {
    let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
    demote(&mut world, 1);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
    assert_eq!(connect(&mut world, 1, true), Answer::Done);
    world.settle();
    world
}

fn assert_second_was_given_up(world: &World) {
    assert!(world.all_in_step(), "{}", world.describe());
    assert!(!world.is_split(0, 1) && !world.is_split(1, 0));
    assert!(world.nodes[1].volumes.iter().all(|volume| volume.branches.len() == 1));
    assert!(world.nodes[0].volumes.iter().all(|volume| volume.branches.is_empty()));
    let words = world.nodes[1]
        .volumes
        .iter()
        .filter(|volume| volume.given_up == [volume.current]);
    assert_eq!(words.count(), 0, "not for another occasion");
}

#[test]
fn the_operators_word_survives_a_restart_of_the_node_that_gives_its_data_up() {
    for copying in [false, true] {
        let mut world = given_up();
        if copying {
            assert_eq!(connect(&mut world, 0, false), Answer::Done);
            world.settle();
            assert!(
                world.nodes[1]
                    .volumes
                    .iter()
                    .all(|volume| volume.disk == LocalDisk::Inconsistent)
            );
        }
        world.kill(1);
        world.settle();
        world.start(1);
        if !copying {
            assert_eq!(connect(&mut world, 0, false), Answer::Done);
        }
        world.copies = true;
        world.settle();
        assert_second_was_given_up(&world);
    }
}

#[test]
fn a_word_that_cannot_be_taken_back_is_not_asked_for_without_end() {
    let mut world = given_up();
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.settle();
    // The copy ends under its old name, as after equal generations.
    for volume in &mut world.nodes[1].volumes {
        volume.keeps_words = true;
        volume.given_up = alloc::vec![volume.current];
    }
    world.copies = true;
    world.settle();
    for volume in &mut world.nodes[1].volumes {
        volume.given_up = alloc::vec![volume.current];
    }
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
}

#[test]
fn a_word_does_not_count_for_what_came_from_a_third_node_in_another_volume() {
    let mut world = given_up();
    // As at the end of a copy from a third node, whose data nobody gave up.
    world.nodes[1].volumes[1].given_up = vec![0];
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.copies = true;
    world.settle();
    assert!(world.is_split(0, 1), "{}", world.describe());
    let intact = |volume: &super::volume::Volume| volume.disk == LocalDisk::UpToDate && volume.branches.is_empty();
    assert!(world.nodes[1].volumes.iter().all(intact));
    // It is up to the operator to say it again.
    assert_eq!(connect(&mut world, 1, true), Answer::Done);
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.settle();
    assert_second_was_given_up(&world);
}

#[test]
fn a_later_connect_does_not_take_the_word_back_and_a_disconnect_does() {
    let mut world = given_up();
    assert_eq!(connect(&mut world, 1, false), Answer::Done);
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.copies = true;
    world.settle();
    assert_second_was_given_up(&world);
    let mut world = given_up();
    let disconnect = Command::Disconnect(PeerIndex(0));
    assert_eq!(world.ask_long(1, disconnect), Answer::Done);
    world.copies = true;
    assert_eq!(connect(&mut world, 1, false), Answer::Done);
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn what_was_given_up_counts_again_once_its_node_has_become_primary() {
    let mut world = given_up();
    world.part(0, 1);
    assert_eq!(world.promote_by_force(1), Answer::Done);
    world.write(1, 20);
    demote(&mut world, 1);
    world.copies = true;
    world.heal(0, 1);
    assert_eq!(connect(&mut world, 1, false), Answer::Done);
    assert_eq!(connect(&mut world, 0, false), Answer::Done);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn a_word_that_could_not_be_written_down_is_not_given() {
    let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
    demote(&mut world, 1);
    world.heal(0, 1);
    world.settle();
    world.nodes[1].volumes[1].refuses = Some(crate::event::OrderRefusal::Closed);
    assert!(matches!(connect(&mut world, 1, true), Answer::Refused(_)));
    assert_eq!(world.link(1, 0), LinkState::StandAlone);
    assert_eq!(world.nodes[1].volumes[0].given_up, [0], "all or nothing");
}

#[test]
fn a_primary_does_not_give_its_data_up() {
    let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
    demote(&mut world, 1);
    world.heal(0, 1);
    world.settle();
    assert!(matches!(connect(&mut world, 0, true), Answer::Refused(why) if why.contains("demote")));
}

#[test]
fn policies_decide_where_it_is_safe() {
    // Anna was Primary earlier; it has changed more.
    for (policy, loser) in [
        (SplitBrainPolicy::DiscardYounger, Some(1)),
        (SplitBrainPolicy::DiscardLeastChanges, Some(1)),
        (SplitBrainPolicy::DiscardZeroChanges, None),
        (SplitBrainPolicy::Manual, None),
    ] {
        let mut world = diverged(policy, 3, 1);
        demote(&mut world, 0);
        demote(&mut world, 1);
        world.heal(0, 1);
        world.settle();
        match loser {
            None => assert_both_alone(&world),
            Some(loser) => {
                assert!(world.all_in_step(), "{policy:?}: {}", world.describe());
                assert!(
                    world.nodes[loser]
                        .volumes
                        .iter()
                        .all(|volume| volume.branches.len() == 1)
                );
                let winner: &super::world::Node = &world.nodes[1 - loser];
                assert!(winner.volumes.iter().all(|volume| volume.branches.is_empty()));
            }
        }
    }
}

#[test]
fn who_became_primary_later_is_known_after_a_restart_of_either() {
    for restarted in 0..2 {
        let mut world = diverged(SplitBrainPolicy::DiscardYounger, 3, 1);
        world.kill(restarted);
        world.start(restarted);
        for node in (0..2)
            .filter(|node| world.role(*node) == Role::Primary)
            .collect::<Vec<_>>()
        {
            demote(&mut world, node);
        }
        world.heal(0, 1);
        world.settle();
        assert!(world.all_in_step(), "{}", world.describe());
        let saved: Vec<usize> = (0..2).map(|node| world.nodes[node].volumes[0].branches.len()).collect();
        assert_eq!(saved, [0, 1], "the younger one's: {}", world.describe());
    }
}

#[test]
fn who_became_primary_later_is_left_to_the_operator_where_it_is_not_known() {
    let mut world = diverged(SplitBrainPolicy::DiscardYounger, 3, 1);
    // What an earlier release left.
    world.nodes[0]
        .volumes
        .iter_mut()
        .for_each(|volume| volume.primary_since = 0);
    world.kill(0);
    world.start(0);
    demote(&mut world, 1);
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn a_policy_never_overwrites_a_primary() {
    // Berta has changed less, and is Primary.
    let mut world = diverged(SplitBrainPolicy::DiscardLeastChanges, 3, 1);
    demote(&mut world, 0);
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn one_volume_that_diverged_keeps_all_apart() {
    let mut world = diverged(SplitBrainPolicy::Manual, 1, 1);
    demote(&mut world, 1);
    // The second volumes agree.
    let same = world.nodes[0].volumes[1].clone();
    let volume = &mut world.nodes[1].volumes[1];
    (volume.current, volume.history) = (same.current, same.history);
    volume.records = [0].into();
    world.heal(0, 1);
    world.settle();
    assert_both_alone(&world);
}

#[test]
fn nodes_of_different_policies_part_and_say_why() {
    let mut world = diverged(SplitBrainPolicy::Manual, 3, 1);
    demote(&mut world, 0);
    demote(&mut world, 1);
    world.nodes[0].config.split_brain = SplitBrainPolicy::DiscardLeastChanges;
    world.start(0);
    world.heal(0, 1);
    world.settle();
    for node in 0..2 {
        assert_eq!(
            world.link(node, 1 - node),
            LinkState::StandAlone,
            "{}",
            world.describe()
        );
        assert!(
            world.nodes[node]
                .volumes
                .iter()
                .all(|volume| volume.branches.is_empty())
        );
    }
}

#[test]
fn what_is_given_up_is_given_up_in_all_volumes() {
    for demoted in [vec![1], vec![0, 1]] {
        // Both wrote, but anna only to the first volume: alone, the second would be berta's.
        let mut world = diverged(SplitBrainPolicy::Manual, 0, 2);
        world.nodes[0].volumes[0].new_generation(4711);
        let parted = world.nodes[0].volumes[0].history[0];
        world.nodes[0].volumes[0].records[0] = parted;
        for node in demoted {
            demote(&mut world, node);
        }
        world.heal(0, 1);
        world.settle();
        let anna: Vec<u64> = world.nodes[0].volumes.iter().map(|volume| volume.current).collect();
        assert_eq!(connect(&mut world, 1, true), Answer::Done);
        assert_eq!(connect(&mut world, 0, false), Answer::Done);
        world.settle();
        assert!(world.all_in_step(), "{}", world.describe());
        assert!(world.nodes[1].volumes.iter().all(|volume| volume.branches.len() == 1));
        assert_eq!(
            world.nodes[0]
                .volumes
                .iter()
                .map(|volume| volume.current)
                .collect::<Vec<_>>(),
            anna
        );
    }
}
