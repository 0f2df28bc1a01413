//! Promotion, demotion, switchover, and what hosts may do meanwhile.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use super::world::{World, peer_of};
use crate::event::{OrderRefusal, PeerIndex};
use crate::identity::Role;
use crate::resource::LinkState;
use crate::resource::config::{DRAIN_MAX, HANDBACK, ResourcePeer};
use crate::resource::event::{Answer, Command, HostAccess, Input};
use crate::state::LocalDisk;
use crate::stream::Control;

#[test]
fn a_fresh_pair_waits_for_the_operators_word() {
    let mut world = World::new(2, 2);
    world.settle();
    for node in 0..2 {
        assert_eq!(world.role(node), Role::Secondary);
        assert_eq!(world.nodes[node].hosts, HostAccess::Shut);
        assert_eq!(world.link(node, 1 - node), LinkState::Connected);
    }
    assert!(matches!(world.promote(0), Answer::Refused(why) if why.contains("--force")));
    let force = Command::Promote {
        force: true,
        accept: None,
    };
    assert_eq!(world.ask_long(0, force), Answer::Done);
    assert_eq!(world.role(0), Role::Primary);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    assert_eq!(world.nodes[0].hosts, HostAccess::ReadWrite);
}

#[test]
fn a_fresh_node_alone_does_not_declare_its_data_without_the_loss_quoted() {
    let mut world = World::new(2, 1);
    world.part(0, 1);
    let force = Command::Promote {
        force: true,
        accept: None,
    };
    let answer = world.ask_long(0, force);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
    assert_eq!(world.role(0), Role::Secondary);
}

#[test]
fn plain_peers_only_means_primary_from_the_start() {
    let world = World::with(2, 1, |config| {
        config.peers = [ResourcePeer {
            name: "shelf".into(),
            kind: Some(crate::config::PeerKind::Plain),
        }]
        .into();
    });
    assert_eq!(world.role(0), Role::Primary);
}

#[test]
fn a_switchover_needs_no_new_handshake() {
    let mut world = World::working(2, 3);
    world.write(0, 1);
    for round in 0..20 {
        let (to, from) = ((round + 1) % 2, round % 2);
        let connection = world.nodes[0].volumes[0].up[0];
        assert_eq!(world.promote(to), Answer::Done, "{}", world.describe());
        assert_eq!((world.role(to), world.role(from)), (Role::Primary, Role::Secondary));
        assert_eq!(world.nodes[to].hosts, HostAccess::ReadWrite);
        assert_eq!(world.nodes[from].hosts, HostAccess::Shut);
        assert_eq!(world.nodes[0].volumes[0].up[0], connection, "the same connection");
        world.write(to, round as u64);
        assert!(world.all_in_step());
    }
}

#[test]
fn every_promotion_gives_every_volume_a_new_generation() {
    let mut world = World::working(2, 2);
    let before: Vec<u64> = world.nodes[0].volumes.iter().map(|volume| volume.current).collect();
    assert_eq!(world.promote(1), Answer::Done);
    for (volume, before) in world.nodes[1].volumes.iter().zip(before) {
        assert_ne!(volume.current, before);
        assert_eq!(volume.history[0], before);
    }
}

#[test]
fn a_primary_that_cannot_drain_keeps_the_role_and_says_so() {
    let mut world = World::working(2, 1);
    world.nodes[0].stuck = true;
    let answer = world.promote(1);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("in flight")),
        "{answer:?}"
    );
    assert_eq!(world.role(0), Role::Primary);
    assert_eq!(world.nodes[0].hosts, HostAccess::ReadWrite);
    assert!(world.now >= DRAIN_MAX);
}

#[test]
fn a_primary_whose_asker_goes_away_while_it_drains_goes_on() {
    let mut world = World::working(2, 1);
    world.nodes[0].stuck = true;
    let id = world.give(
        1,
        Command::Promote {
            force: false,
            accept: None,
        },
    );
    world.run();
    world.part(0, 1);
    assert!(matches!(world.nodes[1].answers[&id], Answer::NeedsAccept { loss, .. } if loss.unknown));
    assert_eq!(world.role(0), Role::Primary);
    assert_eq!(world.nodes[0].hosts, HostAccess::ReadWrite);
}

/// What hosts wrote last may leave an `async` peer behind, in another generation, after it has asked for the role.
#[test]
fn a_primary_whose_asker_falls_behind_while_it_drains_does_not_hand_over() {
    let mut world = World::working(2, 1);
    world.copies = false;
    world.nodes[0].stuck = true;
    let promote = Command::Promote {
        force: false,
        accept: None,
    };
    let id = world.give(1, promote);
    world.run();
    let behind = world.nodes[0].volumes[0].current;
    world.nodes[0].volumes[0].new_generation(77);
    world.nodes[0].volumes[0].records[0] = behind;
    world.nodes[0].volumes[0].dirty[0].insert(1);
    world.nodes[0].stuck = false;
    world.give_input(0, Input::HostsDrained);
    world.run();
    let answer = world.nodes[1].answers.get(&id);
    assert!(
        matches!(answer, Some(Answer::Refused(why)) if why.contains("have everything")),
        "{answer:?}"
    );
    assert_eq!((world.role(0), world.role(1)), (Role::Primary, Role::Secondary));
    assert_eq!(world.nodes[0].hosts, HostAccess::ReadWrite);
}

#[test]
fn the_role_goes_back_when_nobody_takes_it() {
    let mut world = World::working(2, 1);
    // Berta refuses the order to become Primary, after anna has become Secondary for it.
    world.nodes[1].volumes[0].refuses = Some(OrderRefusal::Closed);
    assert!(matches!(world.promote(1), Answer::HalfDone(_)));
    assert_eq!(world.role(0), Role::Secondary);
    world.advance(HANDBACK + HANDBACK);
    assert_eq!(world.role(0), Role::Primary, "{}", world.describe());
    assert_eq!(world.nodes[0].hosts, HostAccess::ReadWrite);
}

#[test]
fn one_volume_that_cannot_leaves_the_others_as_they_were() {
    let mut world = World::working(2, 2);
    let names = |world: &World| [0, 1].map(|volume| world.nodes[1].volumes[volume].current);
    let before = names(&world);
    world.nodes[1].volumes[1].refuses = Some(OrderRefusal::Closed);
    assert!(matches!(world.promote(1), Answer::Refused(_)));
    assert_eq!(names(&world), before);
    world.nodes[1].volumes[1].refuses = None;
    world.advance(HANDBACK + HANDBACK);
    assert_eq!(world.promote(1), Answer::Done);
    assert_eq!(world.role(1), Role::Primary);
}

#[test]
fn the_role_does_not_go_back_while_the_other_may_have_it() {
    let mut world = World::working(2, 1);
    // The new Primary's word that it is Primary never arrives.
    world.holds = Some(Box::new(|from, control| {
        from == 1
            && matches!(
                control,
                Control::State {
                    role: Role::Primary,
                    ..
                }
            )
    }));
    assert_eq!(world.promote(1), Answer::Done);
    world.part(0, 1);
    world.advance(HANDBACK * 10);
    assert_eq!(world.role(0), Role::Secondary, "{}", world.describe());
    let answer = world.promote(0);
    assert!(
        matches!(answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}

#[test]
fn of_two_promoted_at_the_same_moment_one_becomes_primary() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    let command = Command::Promote {
        force: false,
        accept: None,
    };
    let ids = [world.give(0, command.clone()), world.give(1, command)];
    world.run();
    world.settle();
    let primaries = (0..2).filter(|node| world.role(*node) == Role::Primary).count();
    assert_eq!(primaries, 1, "{}", world.describe());
    let answers = [0, 1].map(|node: usize| world.nodes[node].answers[&ids[node]].clone());
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Done).count(), 1);
}

#[test]
fn consent_that_went_with_its_connection_is_asked_for_again() {
    let mut world = World::working(3, 1);
    let command = Command::Promote {
        force: false,
        accept: None,
    };
    // Berta is not reached. The old Primary, which has given the role away, is lost and comes back meanwhile.
    let first = Cell::new(true);
    world.holds = Some(Box::new(move |from, control| {
        from == 2 && matches!(control, Control::Promoting) && first.take()
    }));
    let id = world.give(2, command);
    world.run();
    assert_eq!(world.role(0), Role::Secondary);
    world.part(0, 2);
    world.heal(0, 2);
    // It brings nobody up to date beside the node that is about to be Primary: what that one writes would be missing.
    world.nodes[1].volumes[0].disk = LocalDisk::Outdated;
    world.part(0, 1);
    world.heal(0, 1);
    assert_eq!(world.nodes[2].answers.get(&id), None);
    assert_eq!(world.nodes[0].volumes[0].up[peer_of(0, 1)], None);
    world.part(1, 2);
    assert_eq!(world.nodes[2].answers.get(&id), Some(&Answer::Done));
    assert_eq!(world.role(2), Role::Primary);
}

#[test]
fn a_third_node_consents_to_one_at_a_time() {
    let mut world = World::working(3, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.part(0, 1);
    let command = Command::Promote {
        force: false,
        accept: None,
    };
    let ids = [world.give(0, command.clone()), world.give(1, command)];
    world.run();
    world.settle();
    let primaries = (0..3).filter(|node| world.role(*node) == Role::Primary).count();
    assert!(primaries <= 1, "{}", world.describe());
    assert!((0..2).all(|node| world.nodes[node].answers.contains_key(&ids[node])));
}

#[test]
fn a_node_that_sees_a_primary_objects_for_those_who_do_not() {
    let mut world = World::working(3, 1);
    world.part(0, 1);
    let answer = world.promote_by_force(1);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("anna is Primary")),
        "{answer:?}"
    );
    assert_eq!(world.role(0), Role::Primary);
}

#[test]
fn a_demoted_node_stays_secondary_until_it_is_told_otherwise() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.advance(Duration::from_secs(60));
    assert_eq!(world.role(0), Role::Secondary);
    assert_eq!(world.promote(1), Answer::Done);
}

#[test]
fn a_secondary_may_be_readable() {
    let mut world = World::with(2, 1, |config| config.read_only_secondary = true);
    assert_eq!(world.promote_by_force(0), Answer::Done);
    world.settle();
    assert_eq!(world.nodes[1].hosts, HostAccess::ReadOnly);
    // Not while it is overwritten.
    world.part(0, 1);
    world.write(0, 3);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    assert_eq!(world.nodes[1].hosts, HostAccess::Shut);
}

#[test]
fn a_target_is_not_promoted_and_its_primary_not_demoted_for_it() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 3);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    let answer = world.promote_by_force(1);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("newer data")),
        "{answer:?}"
    );
    assert_eq!(world.role(0), Role::Primary);
}

#[test]
fn of_a_planned_switchover_nobody_in_step_is_compared() {
    let mut world = World::working(3, 1);
    assert_eq!(world.promote(1), Answer::Done);
    let volume = &world.nodes[1].volumes[0];
    assert!(volume.dirty[peer_of(1, 2)].is_empty(), "clara is in step: {volume:?}");
    assert!(world.all_in_step());
}

#[test]
fn verify_goes_to_the_primary() {
    let mut world = World::working(2, 1);
    let verify = Command::Verify {
        volume: 0,
        peer: PeerIndex(0),
        repair: false,
        resume: false,
    };
    assert_eq!(world.ask(0, verify.clone()), Some(Answer::Done));
    assert!(matches!(world.ask(1, verify), Some(Answer::Refused(why)) if why.contains("anna")));
}

#[test]
fn what_another_secondary_has_marked_does_not_hinder_a_switchover() {
    let mut world = World::working(3, 1);
    world.part(1, 2);
    let generation = world.nodes[1].volumes[0].current;
    world.nodes[1].volumes[0].records[peer_of(1, 2)] = generation;
    world.nodes[1].volumes[0].fill(peer_of(1, 2));
    world.heal(1, 2);
    world.settle();
    // Connected, and nothing is copied between two Secondaries.
    assert_eq!(
        world.nodes[2].resource.status().peers[1].parked,
        ["v0"],
        "{}",
        world.describe()
    );
    assert_eq!(world.nodes[2].volumes[0].disk, LocalDisk::UpToDate);
    assert_eq!(world.promote(2), Answer::Done);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    assert_eq!(world.link(2, 1), LinkState::Connected);
}

#[test]
fn a_primary_that_has_just_left_the_role_is_not_asked_in_vain() {
    let mut world = World::working(2, 1);
    let promote = Command::Promote {
        force: false,
        accept: None,
    };
    // Both at once: berta still takes anna for the Primary when it asks.
    let ids = [world.give(0, Command::Demote), world.give(1, promote.clone())];
    world.run();
    world.settle();
    assert_eq!(world.nodes[0].answers[&ids[0]], Answer::Done);
    assert_eq!(world.nodes[1].answers[&ids[1]], Answer::Done, "{}", world.describe());
    // And back, before anna has heard that berta is Primary.
    let back = world.give(0, promote);
    world.run();
    world.settle();
    assert_eq!(world.nodes[0].answers[&back], Answer::Done);
}

#[test]
fn an_operator_is_answered_though_a_mirror_is_not_done() {
    let mut world = World::working(2, 1);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.nodes[1].volumes[0].mute = true;
    let answer = world.promote(1);
    assert!(
        matches!(&answer, Answer::Refused(why) if why.contains("in time")),
        "{answer:?}"
    );
}
