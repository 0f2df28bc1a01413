//! Nodes, operators and networks that do whatever comes to mind; then they stop, and everything has to come right.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::world::World;
use crate::event::{ConnectionId, PeerIndex};
use crate::identity::{Role, SplitBrainPolicy};
use crate::resource::LinkState;
use crate::resource::config::COMMAND_MAX;
use crate::resource::event::{Answer, Command, HostAccess};
use crate::rng::Rng;
use crate::stream::Control;

const SEEDS: u64 = 150;
const STEPS: usize = 60;

fn pick(rng: &mut Rng, of: usize) -> usize {
    (rng.identifier() % of as u64) as usize
}

fn command(rng: &mut Rng, peers: usize, token: Option<String>) -> Command {
    let peer = PeerIndex(pick(rng, peers) as u8);
    match pick(rng, 12) {
        0 | 1 => Command::Promote {
            force: false,
            accept: None,
        },
        2 | 3 => Command::Promote {
            force: true,
            accept: token,
        },
        4 => Command::Demote,
        5 => Command::Disconnect(peer),
        6 => Command::Connect {
            peer,
            discard_my_data: true,
        },
        7 => Command::Invalidate(peer),
        8 => Command::Detach(0),
        9 => Command::Attach {
            volume: 0,
            replaced: false,
        },
        _ => Command::Connect {
            peer,
            discard_my_data: false,
        },
    }
}

/// Frames that no good node would send now.
fn nonsense(rng: &mut Rng) -> Control {
    match pick(rng, 9) {
        0 => Control::Demoted,
        1 => Control::AskDemote,
        2 => Control::PromoteGranted,
        3 => Control::Promoting,
        4 => Control::Bitmap {
            volume: 0,
            blocks: core::iter::once(3..9).collect(),
            last: true,
        },
        5 => Control::Resize {
            volume: 0,
            size: 1 << 20,
            assume_clean: false,
        },
        6 => Control::Met { salt: 5 },
        7 => Control::State {
            role: Role::Primary,
            disks: Vec::new(),
        },
        _ => Control::Verdict {
            my_revision: 1,
            your_revision: 1,
            verdicts: [1].into(),
            text: String::new(),
        },
    }
}

fn storm(seed: u64, hostile: bool) -> World {
    let mut rng = Rng::new(seed);
    let nodes = 2 + pick(&mut rng, 2);
    let policy = [SplitBrainPolicy::Manual, SplitBrainPolicy::DiscardLeastChanges][pick(&mut rng, 2)];
    let mut world = World::working_with(nodes, 2, |config| config.split_brain = policy);
    let mut asked: Vec<(usize, u64, Duration)> = Vec::new();
    for _ in 0..STEPS {
        let (a, b) = (pick(&mut rng, nodes), pick(&mut rng, nodes));
        match pick(&mut rng, 12) {
            0 if a != b => world.part(a, b),
            1 | 2 if a != b => world.heal(a, b),
            3 if world.nodes[a].alive => world.kill(a),
            4 | 5 if !world.nodes[a].alive => {
                world.start(a);
                asked.retain(|(node, ..)| *node != a);
            }
            6 if world.nodes[a].alive => {
                let token = world.nodes[a].answers.values().rev().find_map(|answer| match answer {
                    Answer::NeedsAccept { token, .. } => Some(token.clone()),
                    _ => None,
                });
                let command = match command(&mut rng, nodes - 1, token) {
                    // These volumes cannot serve hosts without an image.
                    Command::Detach(_) if world.role(a) == Role::Primary => Command::Demote,
                    command => command,
                };
                asked.push((a, world.give(a, command), world.now));
            }
            7 if world.nodes[a].hosts == HostAccess::ReadWrite && world.nodes[a].alive => world.write(a, seed),
            8 => world.copies = !world.copies,
            9 if hostile => {
                let connection = ConnectionId(pick(&mut rng, 40) as u32);
                world.give_control(a, pick(&mut rng, nodes - 1) as u8, connection, nonsense(&mut rng));
            }
            _ => world.advance(Duration::from_millis(10 << pick(&mut rng, 9))),
        }
        world.run();
        check(&world, &asked, hostile);
    }
    world
}

fn check(world: &World, asked: &[(usize, u64, Duration)], hostile: bool) {
    let nodes = world.nodes.len();
    for a in (0..nodes).filter(|a| world.nodes[*a].alive) {
        for b in (0..nodes).filter(|b| *b != a && world.nodes[*b].alive) {
            let both = world.role(a) == Role::Primary && world.role(b) == Role::Primary;
            let joined = world.link(a, b) == LinkState::Connected && world.link(b, a) == LinkState::Connected;
            assert!(
                hostile || !(both && joined),
                "two Primaries are connected:\n{}",
                world.describe()
            );
        }
    }
    for (node, id, at) in asked.iter().filter(|(node, ..)| world.nodes[*node].alive) {
        let answered = world.nodes[*node].answers.contains_key(id);
        assert!(answered || world.now <= *at + COMMAND_MAX * 2, "{}", world.describe());
    }
}

/// An operator who knows what he does: one node survives, the others give up what has diverged.
fn heal(world: &mut World) {
    world.copies = true;
    let nodes = world.nodes.len();
    for a in 0..nodes {
        for b in 0..nodes {
            world.cut[a][b] = false;
        }
    }
    for node in 0..nodes {
        if !world.nodes[node].alive {
            world.start(node);
        }
    }
    world.settle();
    let survivor = (0..nodes).find(|node| world.role(*node) == Role::Primary).unwrap_or(0);
    for node in 0..nodes {
        let attach = Command::Attach {
            volume: 0,
            replaced: false,
        };
        if world.nodes[node].volumes[0].disk == crate::state::LocalDisk::Diskless {
            world.ask_long(node, attach);
        }
        if node != survivor {
            world.ask_long(node, Command::Demote);
        }
    }
    for _ in 0..3 {
        for node in 0..nodes {
            for peer in 0..nodes - 1 {
                let peer_index = PeerIndex(peer as u8);
                let connected = world.nodes[node].resource.link(peer_index) == LinkState::Connected;
                let victim = node != survivor && super::world::peer_of(node, survivor) == peer;
                let discard_my_data = victim && !connected;
                world.ask_long(
                    node,
                    Command::Connect {
                        peer: peer_index,
                        discard_my_data,
                    },
                );
            }
        }
        world.advance(Duration::from_secs(30));
    }
    if world.role(survivor) != Role::Primary {
        world.promote_by_force(survivor);
    }
    world.advance(Duration::from_secs(60));
}

#[test]
fn no_two_primaries_together_and_every_command_is_answered() {
    for seed in 1..=SEEDS {
        storm(seed, false);
    }
}

#[test]
fn nonsense_from_a_peer_breaks_nothing() {
    for seed in 1..=SEEDS {
        storm(1000 + seed, true);
    }
}

#[test]
fn after_the_storm_all_are_in_step() {
    let mut failed = Vec::new();
    for seed in 1..=SEEDS {
        let mut world = storm(5000 + seed, false);
        heal(&mut world);
        let primaries = (0..world.nodes.len())
            .filter(|node| world.role(*node) == Role::Primary)
            .count();
        if primaries != 1 || !world.all_in_step() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
