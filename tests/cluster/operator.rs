//! What operators do: at random while faults strike, and with a plan when everything has to come back.

use std::collections::BTreeMap;

use mirror_core::event::PeerIndex;
use mirror_core::identity::Generation;
use mirror_core::resource::event::{Answer, Command, CommandId, Input};

use crate::disk::Disk;
use crate::faults::Action;
use crate::node::Word;
use crate::plan::garbage;
use crate::world::{Check, Event, Phase, World};

/// Microseconds between two looks at the cluster, while faults strike and afterwards.
const LOOK_US: u64 = 40_000;
/// A command is answered within so many microseconds of the node's life.
const COMMAND_US: u64 = 200_000_000;

/// A command that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u64,
    node: usize,
    since: u64,
    action: Action,
}

/// What operators know and wait for.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    asked: Vec<Asked>,
    serial: u64,
    /// Daemons somebody will restart.
    pub restarts: Vec<(u64, Action)>,
    /// The last answer to a command, by node.
    pub answers: Vec<(usize, Action, Answer)>,
    /// Promotions without force that were refused since a Primary was last seen.
    pub refused: u32,
    /// How often he has looked since the faults stopped.
    pub looks: u32,
    /// How often links that stood alone were connected.
    pub reconnects: u32,
    /// Volumes and peers that were compared at the end.
    pub compared: u32,
    /// By node, other node: he has parted with it there, and until then nothing has to wait for it.
    free_until: BTreeMap<(usize, usize), u64>,
}

impl Operator {
    /// Nobody answers for a dead process.
    pub fn node_died(&mut self, node: usize) {
        self.asked.retain(|asked| asked.node != node);
        self.free_until.retain(|(at, _), _| *at != node);
    }

    /// The node may go on without the other one at this time.
    pub fn has_parted(&self, node: usize, other: usize, now: u64) -> bool {
        self.free_until.get(&(node, other)).is_some_and(|until| now <= *until)
    }

    /// A command waits for its answer.
    pub fn waits(&self) -> bool {
        !self.asked.is_empty()
    }
}

impl World {
    /// An operator's action.
    pub fn carry_out(&mut self, action: Action) -> Check {
        match action {
            Action::Restart(node) => return self.restart(node),
            Action::Attach { node, volume, replaced } => self.prepare_image(node, volume, replaced),
            Action::Connect {
                node, discard: true, ..
            } => self.word(node, Word::Discard),
            Action::Invalidate { node, .. } => self.word(node, Word::Worthless),
            _ => {}
        }
        if let Action::Promote { node, force } = action {
            self.tally.worst_moments += u64::from(self.is_in_trouble());
            let promotes = |asked: &Asked| asked.node == node && matches!(asked.action, Action::Promote { .. });
            let others = self.operator.asked.iter().any(promotes);
            self.nodes[node].forcing = force || (others && self.nodes[node].forcing);
            self.nodes[node].names = self.names(node);
        }
        let (node, command) = self.command_of(action);
        self.command(node, command, action)
    }

    /// A node is down, a link is cut, an image is not whole, or an earlier command is under way.
    fn is_in_trouble(&self) -> bool {
        let down = self.nodes.iter().any(|node| !node.is_up());
        let partial = self.nodes.iter().any(|node| node.volumes.iter().any(|it| it.partial));
        let cut = self.broken_until.iter().flatten().any(|&until| until > self.now);
        down || partial || cut || self.operator.waits()
    }

    fn command_of(&self, action: Action) -> (usize, Command) {
        match action {
            Action::Promote { node, force } => (node, Command::Promote { force, accept: None }),
            Action::Demote(node) => (node, Command::Demote),
            Action::Connect { node, to, discard } => {
                let peer = self.index_of(node, to);
                let discard_my_data = discard;
                (node, Command::Connect { peer, discard_my_data })
            }
            Action::Disconnect { node, from } => (node, Command::Disconnect(self.index_of(node, from))),
            Action::Remove { node, peer } => (node, Command::RemovePeer(self.index_of(node, peer))),
            Action::Invalidate { node, from } => (node, Command::Invalidate(self.index_of(node, from))),
            Action::Detach { node, volume } => (node, Command::Detach(volume)),
            Action::Attach { node, volume, replaced } => (node, Command::Attach { volume, replaced }),
            Action::Resize { node, volume } => {
                let size = self.plan.layouts[volume].grown;
                let (assume_clean, force) = (false, false);
                (
                    node,
                    Command::Resize {
                        volume,
                        size,
                        assume_clean,
                        force,
                    },
                )
            }
            Action::Verify {
                node,
                volume,
                with,
                repair,
            } => {
                let (peer, resume) = (self.index_of(node, with), false);
                (
                    node,
                    Command::Verify {
                        volume,
                        peer,
                        repair,
                        resume,
                    },
                )
            }
            Action::Restart(node) => (node, Command::Demote),
        }
    }

    fn command(&mut self, node: usize, command: Command, action: Action) -> Check {
        if !self.nodes[node].is_up() || self.nodes[node].paused_until > self.now || self.nodes[node].stopping {
            return Ok(());
        }
        self.operator.serial += 1;
        let id = self.operator.serial;
        self.operator.asked.push(Asked {
            id,
            node,
            since: self.now,
            action,
        });
        if let Action::Verify { .. } = action {
            self.tally.verified += 1;
        }
        self.note_parted(node, action);
        let id = CommandId(id);
        self.feed_resource(node, Input::Command { id, command })?;
        self.settle(node)
    }

    /// Who parts with a peer goes on without it. What was decided before he wants it back is answered a moment later.
    fn note_parted(&mut self, node: usize, action: Action) {
        let free = &mut self.operator.free_until;
        match action {
            Action::Disconnect { from, .. } => {
                free.insert((node, from), u64::MAX);
            }
            Action::Connect { to, discard: false, .. } => {
                let soon = self.now + 1_000_000;
                free.entry((node, to)).and_modify(|until| *until = soon.min(*until));
            }
            _ => {}
        }
    }

    /// A command was answered.
    pub fn command_answered(&mut self, node: usize, id: CommandId, answer: Answer) -> Check {
        let Some(at) = self.operator.asked.iter().position(|asked| asked.id == id.0) else {
            return Err(self.violation("commands", format!("{node} answers {id:?} twice, or unasked")));
        };
        let asked = self.operator.asked.swap_remove(at);
        self.trace(|| format!("{node} answers {:?}: {answer:?}", asked.action));
        if let Answer::Refused(_) | Answer::HalfDone(_) = answer {
            self.tally.commands_refused += 1;
        }
        match (&asked.action, &answer) {
            (Action::Promote { force: true, .. }, _) => self.force_answered(node, asked.action, &answer)?,
            (Action::Attach { volume, .. }, Answer::Refused(_)) if self.phase == Phase::Safety => {
                self.keep_detached(node, *volume);
            }
            (Action::Connect { discard: true, .. }, Answer::Done) => {
                self.judge.discarded = true;
                // A copy that ended while it was being taken down has not used the word up.
                self.word(node, Word::Discard);
            }
            (Action::Demote(_), Answer::Refused(_)) if self.phase != Phase::Safety => {
                // Requests of hosts that are held for want of a peer: he stops the daemon.
                self.restart_later(node, 1_000);
            }
            (Action::Attach { .. }, Answer::Refused(_)) if self.phase != Phase::Safety => {
                // What the metadata disk did needs a new start.
                let Action::Attach { volume, .. } = asked.action else {
                    return Ok(());
                };
                if !self.lacks_image(node, volume) {
                    return Ok(());
                }
                self.keep_detached(node, volume);
                let mirror = self.nodes[node].volumes[volume].mirror.as_ref();
                if self.nodes[node].reign.is_some() && mirror.is_some_and(|mirror| mirror.served_by().is_empty()) {
                    // Nobody else is known to have everything: a Secondary takes it again.
                    return self.carry_out(Action::Demote(node));
                }
                self.nodes[node]
                    .volumes
                    .iter_mut()
                    .for_each(|it| it.failed |= !it.attached);
                self.nodes[node].volumes[volume].renewed = true;
                self.restart_later(node, 1_000);
            }
            _ => {}
        }
        self.operator.answers.push((node, asked.action, answer));
        if self.operator.answers.len() > 64 {
            self.operator.answers.remove(0);
        }
        Ok(())
    }

    /// A promotion by force was answered.
    fn force_answered(&mut self, node: usize, action: Action, answer: &Answer) -> Check {
        match answer {
            Answer::NeedsAccept { token, .. } => {
                let accept = Some(token.clone());
                self.nodes[node].forcing = true;
                self.command(node, Command::Promote { force: true, accept }, action)?;
            }
            Answer::Done => {}
            Answer::HalfDone(_) => {
                self.nodes[node].forcing = true;
                self.half_reign(node)?;
            }
            Answer::Refused(_) => {
                let forces = |asked: &Asked| matches!(asked.action, Action::Promote { force: true, .. });
                let mut others = self.operator.asked.iter().filter(|asked| asked.node == node);
                self.nodes[node].forcing = others.any(forces);
            }
        }
        Ok(())
    }

    /// Of the volumes that have new names what he accepted as lost is given up, though nobody may write.
    fn half_reign(&mut self, node: usize) -> Check {
        let names = self.names(node);
        let renamed = |&at: &usize| names[at] != self.nodes[node].names[at];
        let named: Vec<usize> = (0..names.len()).filter(renamed).collect();
        if named.is_empty() {
            return Ok(());
        }
        self.new_reign(node)?;
        named.into_iter().for_each(|volume| self.is_of_its_reign(node, volume));
        self.reign_ends(node);
        Ok(())
    }

    /// What the volumes of a node are called.
    fn names(&self, node: usize) -> Vec<Option<Generation>> {
        let volumes = self.nodes[node].volumes.iter();
        let name = |mirror: &mirror_core::Mirror| mirror.identity(PeerIndex(0)).current;
        volumes.map(|it| it.mirror.as_ref().map(name)).collect()
    }

    /// The image he had in mind is not taken.
    fn keep_detached(&mut self, node: usize, volume: usize) {
        let it = &mut self.nodes[node].volumes[volume];
        let disk = it.mirror.as_ref().map(mirror_core::Mirror::disk);
        it.attached &= disk != Some(mirror_core::state::LocalDisk::Diskless);
    }

    /// He has said this of the data on a node.
    fn word(&mut self, node: usize, word: Word) {
        if !self.nodes[node].is_up() {
            return;
        }
        for it in &mut self.nodes[node].volumes {
            if it.word != Word::Worthless {
                it.word = word;
            }
        }
    }

    fn restart(&mut self, node: usize) -> Check {
        let failed = self.nodes[node].volumes.iter().any(|it| it.failed);
        if self.nodes[node].stopping || failed {
            let down = self.rng.between(200, 3_000);
            // What a failed flush left in the cache may be lost.
            return self.node_dies(node, failed, down);
        }
        self.stop_node(node)
    }

    /// A volume is without an image, as the simulation or its mirror has it.
    pub fn lacks_image(&self, node: usize, volume: usize) -> bool {
        let it = &self.nodes[node].volumes[volume];
        let disk = it.mirror.as_ref().map(mirror_core::Mirror::disk);
        !it.attached || disk == Some(mirror_core::state::LocalDisk::Diskless)
    }

    /// The image a volume is to be given: the one of before, or a new one full of something else.
    fn prepare_image(&mut self, node: usize, volume: usize, replaced: bool) {
        // A failed volume and a daemon that stops refuse it; a new image would be recognised when the daemon starts again.
        let own = &self.nodes[node];
        let refused = !own.is_up() || own.stopping || own.volumes[volume].failed;
        if refused || !self.lacks_image(node, volume) {
            return;
        }
        let slots = self.nodes[node].volumes[volume].disk.slots();
        self.tally.attached += 1;
        if replaced {
            let content = garbage(&mut self.rng, slots);
            self.nodes[node].volumes[volume].disk = Disk::new(&content);
            self.nodes[node].volumes[volume].bad.clear();
            let it = &mut self.nodes[node].volumes[volume];
            it.inode += 1;
            (it.follows, it.copied) = (None, None);
            let image = it.image();
            if let Some(mirror) = &mut it.mirror {
                mirror.offer_image(image);
            }
            self.content_goes(node, volume);
        }
        self.nodes[node].volumes[volume].attached = true;
    }

    /// An operator looks at the cluster.
    pub fn look(&mut self) -> Check {
        let now = self.now;
        let late = self.operator.asked.iter().find(|asked| now - asked.since > COMMAND_US);
        if let Some(late) = late {
            return Err(self.violation("commands", format!("{:?} is not answered", late.action)));
        }
        let due: Vec<_> = self
            .operator
            .restarts
            .extract_if(.., |&mut (at, _)| at <= now)
            .collect();
        for (_, action) in due {
            self.carry_out(action)?;
        }
        if self.phase == Phase::Safety {
            self.look_in_trouble()?;
        } else {
            self.look_and_heal()?;
        }
        let pause = self.rng.between(LOOK_US / 4, LOOK_US);
        self.after(if self.reigns.is_empty() { 1_000 } else { pause }, Event::Look);
        Ok(())
    }

    /// While faults strike: somebody must be Primary, sooner or later.
    fn look_in_trouble(&mut self) -> Check {
        if self.reigns.is_empty() && !self.operator.waits() && self.rng.chance(60) {
            return self.promote(0, true);
        }
        if self.primaries() == 0 && !self.operator.waits() && self.rng.chance(12) {
            let node = if self.plan.rot {
                0
            } else {
                self.rng.index(self.nodes.len())
            };
            let force = self.rng.chance(30);
            return self.promote(node, force);
        }
        Ok(())
    }

    /// Promote; by force he quotes back what he is told.
    pub fn promote(&mut self, node: usize, force: bool) -> Check {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        self.carry_out(Action::Promote { node, force })
    }
}
