//! The handshake: revisions, old connections, what is durable before what.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use super::world::{World, peer_of};
use crate::event::{ConnectionId, PeerIndex, SyncPlan};
use crate::identity::Role;
use crate::resource::LinkState;
use crate::resource::event::{Answer, Command, Output};
use crate::state::LocalDisk;
use crate::stream::Control;

#[test]
fn what_was_written_without_the_peer_is_copied_to_it() {
    let mut world = World::working(2, 2);
    world.part(0, 1);
    world.write(0, 7);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    for node in 0..2 {
        assert_eq!(world.link(node, 1 - node), LinkState::Connected);
    }
    let (source, target) = (&world.nodes[0].volumes[0], &world.nodes[1].volumes[0]);
    assert!(matches!(source.up[0], Some((_, SyncPlan::Source))));
    assert!(matches!(target.up[0], Some((_, SyncPlan::Target))));
    assert_eq!(target.disk, LocalDisk::Inconsistent);
    world.copies = true;
    world.settle();
    assert!(world.all_in_step());
}

#[test]
fn the_targets_bits_are_copied_too() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 7);
    world.nodes[1].volumes[0].dirty[0].insert(40);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    let source = &world.nodes[0].volumes[0];
    assert_eq!(source.dirty[0].iter().copied().collect::<Vec<_>>(), [7, 40]);
}

#[test]
fn frames_of_an_older_connection_do_not_count() {
    let mut world = World::working(2, 1);
    let goodbye = Control::Goodbye {
        stand_alone: true,
        reason: "an old story".into(),
    };
    world.give_control(0, 0, ConnectionId(0), goodbye);
    assert_eq!(world.link(0, 1), LinkState::Connected);
}

#[test]
fn an_identity_that_changes_meanwhile_is_told_again() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    // Berta's verdicts do not come: anna's handshake stays open.
    let open = Rc::new(Cell::new(true));
    let held = Rc::clone(&open);
    world.holds = Some(Box::new(move |from, control| {
        held.get() && from == 1 && matches!(control, Control::Verdict { .. })
    }));
    world.heal(0, 1);
    assert_eq!(world.link(0, 1), LinkState::Handshake);
    // In step was what both concluded; now it is not true any more.
    world.write(0, 9);
    open.set(false);
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
    assert_ne!(world.nodes[0].volumes[0].current, 0);
    let record = world.nodes[1].why().peers[0].handshake.clone().unwrap();
    assert!(record.theirs.volumes[0].dirty_bytes > 0, "{record:?}");
}

#[test]
fn two_secondaries_do_not_copy_while_a_primary_is_there() {
    let mut world = World::working(3, 1);
    // Clara misses a write; then berta and clara meet before clara has got it.
    world.part(0, 2);
    world.part(1, 2);
    world.write(0, 3);
    // Berta has it under the new generation.
    let (current, history) = (
        world.nodes[0].volumes[0].current,
        world.nodes[0].volumes[0].history.clone(),
    );
    let clara = world.nodes[2].volumes[0].current;
    let volume = &mut world.nodes[1].volumes[0];
    (volume.current, volume.history) = (current, history);
    volume.records[peer_of(1, 2)] = clara;
    volume.fill(peer_of(1, 2));
    world.heal(1, 2);
    world.settle();
    assert_eq!(world.link(1, 2), LinkState::Handshake, "{}", world.describe());
    assert_eq!(world.nodes[2].volumes[0].disk, LocalDisk::UpToDate);
    let why = world.nodes[1].why();
    assert!(
        why.peers.iter().any(|peer| peer.because.contains("anna is Primary")),
        "{why:?}"
    );
    // Without the Primary they do.
    world.kill(0);
    world.settle();
    assert_eq!(world.link(1, 2), LinkState::Connected);
    assert_eq!(world.nodes[2].volumes[0].current, current);
}

#[test]
fn a_replaced_image_on_the_primary_is_fetched() {
    let mut world = World::working(2, 2);
    world.part(0, 1);
    let volume = &mut world.nodes[0].volumes[1];
    volume.disk = LocalDisk::Inconsistent;
    volume.fill(0);
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    assert_eq!(world.role(0), Role::Primary);
    let (primary, other) = (&world.nodes[0].volumes, &world.nodes[1].volumes);
    assert!(
        matches!(primary[1].up[0], Some((_, SyncPlan::Target))),
        "{}",
        world.describe()
    );
    assert!(matches!(other[1].up[0], Some((_, SyncPlan::Fetched))));
    assert!(matches!(primary[0].up[0], Some((_, SyncPlan::InStep))));
    assert_eq!(other[1].disk, LocalDisk::UpToDate);
    world.copies = true;
    world.settle();
    assert!(world.all_in_step());
}

#[test]
fn a_secondary_without_an_image_is_connected_and_copied_to_when_it_has_one() {
    let mut world = World::working(2, 2);
    assert_eq!(world.ask(1, Command::Detach(1)), Some(Answer::Done));
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::Connected);
    assert_eq!(world.nodes[0].resource.status().peers[0].parked, ["v1"]);
    assert_eq!(world.nodes[0].volumes[1].up[0], None);
    assert!(world.nodes[0].volumes[0].up[0].is_some(), "the other volume goes on");
    world.write(0, 5);
    let attach = Command::Attach {
        volume: 1,
        replaced: false,
    };
    assert_eq!(world.ask(1, attach), Some(Answer::Done));
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
}

#[test]
fn the_last_image_that_a_primary_is_served_from_is_not_given_up_anywhere() {
    for nodes in [2, 3] {
        let mut world = World::working(nodes, 2);
        let last = nodes - 1;
        for node in 0..last {
            assert_eq!(world.ask(node, Command::Detach(1)), Some(Answer::Done));
            world.settle();
        }
        let answer = world.ask(last, Command::Detach(1));
        assert!(
            matches!(&answer, Some(Answer::Refused(why)) if why.contains("serves its hosts")),
            "{answer:?}"
        );
        assert_eq!(
            world.ask(last, Command::Detach(0)),
            Some(Answer::Done),
            "others have this one"
        );
    }
}

#[test]
fn invalidated_data_is_taken_from_the_peer_again() {
    let mut world = World::working(2, 1);
    assert!(matches!(
        world.ask(0, Command::Invalidate(PeerIndex(0))),
        Some(Answer::Refused(_))
    ));
    world.copies = false;
    assert_eq!(world.ask(1, Command::Invalidate(PeerIndex(0))), Some(Answer::Done));
    world.settle();
    let source = &world.nodes[0].volumes[0];
    assert_eq!(
        source.dirty[0].len() as u64,
        super::volume::BLOCKS,
        "everything: {source:?}"
    );
    world.copies = true;
    world.settle();
    assert!(world.all_in_step());
}

#[test]
fn a_name_that_is_not_the_peers_is_refused() {
    let mut world = World::with(2, 1, |config| {
        if config.node == "berta" {
            config.node = "bertha".into();
        }
    });
    world.settle();
    assert_eq!(world.link(0, 1), LinkState::StandAlone);
}

#[test]
fn a_secondary_tries_again_for_ever() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.advance(core::time::Duration::from_secs(600));
    assert_eq!(world.link(1, 0), LinkState::Connecting);
    world.heal(0, 1);
    world.settle();
    assert!(world.all_in_step());
}

#[test]
fn no_bits_before_the_target_is_durably_inconsistent() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.write(0, 1);
    let log = world.log_outputs(1);
    world.nodes[1].volumes[0].mute = true;
    world.heal(0, 1);
    world.settle();
    let told = |output: &Output| {
        matches!(output, Output::PeerUp { .. })
            || matches!(
                output,
                Output::Send {
                    control: Control::Bitmap { .. },
                    ..
                }
            )
    };
    assert!(!log.borrow().iter().any(told));
    assert_eq!(world.nodes[0].volumes[0].up[0], None, "the source waits for the bits");
}

#[test]
fn a_volume_is_copied_to_from_one_side_at_a_time() {
    let mut world = World::working(3, 1);
    world.kill(2);
    world.write(0, 3);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    // What clara lacks, both others have, and there is no Primary.
    world.copies = false;
    world.start(2);
    world.settle();
    let sources = world.nodes[2].volumes[0].up.iter().flatten().count();
    assert_eq!(sources, 1, "{}", world.describe());
    let why = world.nodes[2].why();
    assert!(
        why.peers.iter().any(|peer| peer.because.contains("one at a time")),
        "{why:?}"
    );
    world.copies = true;
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
}

#[test]
fn who_is_copied_to_is_in_step_with_nobody() {
    let mut world = World::working(3, 1);
    // Anna goes on alone; the others stay in step with each other.
    world.part(0, 1);
    world.part(0, 2);
    world.write(0, 3);
    let together = world.nodes[1].volumes[0].up[peer_of(1, 2)];
    assert!(together.is_some());
    world.copies = false;
    world.heal(0, 1);
    world.settle();
    assert_eq!(world.nodes[1].volumes[0].disk, LocalDisk::Inconsistent);
    assert_ne!(world.nodes[1].volumes[0].up[peer_of(1, 2)], together);
    assert_ne!(world.nodes[2].volumes[0].up[peer_of(2, 1)], together);
}

#[test]
fn after_a_copy_from_a_secondary_nobody_is_taken_to_be_in_step() {
    let mut world = World::working(3, 1);
    world.kill(2);
    world.write(0, 3);
    assert_eq!(world.ask(0, Command::Demote), Some(Answer::Done));
    world.part(0, 2);
    world.copies = false;
    world.start(2);
    world.settle();
    // Berta, who was not Primary, copies to clara: all of it is compared, and clara knows nothing of anna any more.
    assert_eq!(
        world.nodes[1].volumes[0].dirty[peer_of(1, 2)].len() as u64,
        super::volume::BLOCKS
    );
    assert_eq!(
        world.nodes[2].volumes[0].dirty[peer_of(2, 0)].len() as u64,
        super::volume::BLOCKS
    );
    world.copies = true;
    world.settle();
    world.heal(0, 2);
    world.settle();
    assert_eq!(
        world.nodes[2].resource.status().peers[peer_of(2, 0)].parked,
        ["v0"],
        "{}",
        world.describe()
    );
}

#[test]
fn no_volume_is_copied_beside_one_whose_newer_image_is_gone() {
    let mut world = World::working(2, 2);
    world.kill(0);
    world.kill(1);
    let [first, second] = &mut world.nodes[0].volumes[..] else {
        unreachable!("two volumes")
    };
    // What it had answered last may not be on the other; of the second volume it is not here any more either.
    first.fill(0);
    (first.acks_wait, second.acks_wait, second.disk) = (false, false, LocalDisk::Diskless);
    world.start(0);
    world.start(1);
    world.settle();
    assert_eq!(world.link(1, 0), LinkState::Connected);
    let copied = &world.nodes[1].volumes[0];
    assert!(copied.up[0].is_none(), "volumes of two times are no data: {copied:?}");
    // With its image it brings both.
    world.nodes[0].volumes[1].detached = LocalDisk::UpToDate;
    let attach = Command::Attach {
        volume: 1,
        replaced: false,
    };
    assert_eq!(world.ask(0, attach), Some(Answer::Done));
    world.settle();
    assert!(world.all_in_step(), "{}", world.describe());
}

/// A Primary that lives on another node's image falls back to its own when it leaves the role.
#[test]
fn newer_data_that_were_seen_once_are_not_forgotten_when_who_had_them_shows_older_ones() {
    let mut world = World::working(2, 1);
    world.part(0, 1);
    world.kill(0);
    let held = world.nodes[0].volumes[0].current;
    world.nodes[0].volumes[0].new_generation(77);
    world.nodes[0].volumes[0].records[0] = held;
    world.nodes[0].volumes[0].disk = LocalDisk::Inconsistent;
    world.nodes[0].volumes[0].primary = false;
    world.start(0);
    world.heal(0, 1);
    world.settle();
    world.part(0, 1);
    world.kill(0);
    let volume = &mut world.nodes[0].volumes[0];
    (volume.current, volume.disk) = (held, LocalDisk::UpToDate);
    volume.history.clear();
    volume.records[0] = 0;
    world.start(0);
    world.heal(0, 1);
    world.settle();
    let answer = world.promote(1);
    assert!(
        matches!(&answer, Answer::NeedsAccept { loss, .. } if loss.unknown),
        "{answer:?}"
    );
}
