//! Named scenarios: a quiet cluster and a script of steps with expectations.

use std::cell::RefCell;

use mirror_core::ByteRange;
use mirror_core::config::AckMode;
use mirror_core::event::{HostOp, Mutation, MutationKind, PeerIndex};
use mirror_core::identity::Role;
use mirror_core::range::BLOCK_BYTES;
use mirror_core::resource::event::{Answer, HostAccess};
use mirror_core::resource::status::LinkState;

use crate::disk::Stamp;
use crate::faults::{Action, Cut, Fault};
use crate::node::peer_of;
use crate::outcome::Options;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::world::World;

/// Simulated microseconds that an expectation waits at most.
const PATIENCE_US: u64 = 200_000_000;
/// For ever, as far as a scenario goes.
pub const LONG_US: u64 = 3_600_000_000;

/// What a step returns: why the scenario went wrong.
pub type Step = Result<(), String>;

/// A scenario's name, and what it plays.
pub type Row = (&'static str, fn(u64) -> Step);

/// A scenario: its name in the reference, and what it plays.
pub struct Scenario {
    /// The name of the row.
    pub name: &'static str,
    /// The script.
    pub play: fn(u64) -> Step,
}

thread_local! {
    static OPTIONS: RefCell<Options> = RefCell::new(Options::default());
}

/// How the scenarios that begin on this thread from now on are run.
pub fn set_options(options: Options) {
    OPTIONS.set(options);
}

/// A cluster on a stage.
pub struct Stage {
    /// The world.
    pub world: World,
}

impl Stage {
    /// So many nodes and volumes, `sync`, nothing else.
    pub fn new(seed: u64, nodes: usize, volumes: usize) -> Self {
        Self::with(seed, nodes, volumes, |_| {})
    }

    /// The same, with changes to the plan.
    pub fn with(seed: u64, nodes: usize, volumes: usize, change: impl FnOnce(&mut Plan)) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::quiet(&mut rng, nodes, volumes);
        change(&mut plan);
        let options = OPTIONS.with_borrow(Clone::clone);
        Self {
            world: World::of_plan(rng, plan, options),
        }
    }

    /// An asynchronous cluster.
    pub fn asynchronous(seed: u64, nodes: usize) -> Self {
        Self::with(seed, nodes, 1, |plan| plan.mode = AckMode::Async)
    }

    /// Everybody is up and in step, node 0 is Primary.
    pub fn ready(mut self) -> Result<Self, String> {
        self.promote(0, true)?;
        self.until_whole()?;
        Ok(self)
    }

    /// Let time pass.
    pub fn pass(&mut self, us: u64) -> Step {
        let until = self.world.now + us;
        while self.world.next_at().is_some_and(|at| at <= until) {
            self.tick()?;
        }
        self.world.now = until;
        Ok(())
    }

    /// Let time pass until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Step {
        let limit = self.world.now + PATIENCE_US;
        while !holds(&self.world) {
            if self.world.next_at().is_none_or(|at| at > limit) {
                let state = self.world.stuck("waited in vain").err().map(|violation| violation.text);
                return Err(format!("waited in vain for: {what}\n{}", state.unwrap_or_default()));
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Everything must be in step again, with equal images.
    pub fn until_whole(&mut self) -> Step {
        self.until("everything in step", |world| world.whole().is_some())?;
        let primary = self.world.whole().unwrap_or(0);
        self.world
            .judge_equal(primary)
            .map_err(|violation| violation.to_string())
    }

    /// One event.
    pub fn tick(&mut self) -> Step {
        self.world.step().map_err(|violation| violation.to_string())
    }

    /// An expectation that must hold now.
    pub fn expect(&self, what: &str, holds: bool) -> Step {
        if holds {
            return Ok(());
        }
        let state = self.world.stuck("here").err().map(|violation| violation.text);
        Err(format!("expected: {what}\n{}", state.unwrap_or_default()))
    }

    /// An operator's action, and its answer.
    pub fn act(&mut self, action: Action) -> Result<Answer, String> {
        self.world.operator.answers.clear();
        self.world.act(action).map_err(|violation| violation.to_string())?;
        self.until("the answer to a command", |world| !world.operator.waits())?;
        let answer = self.world.operator.answers.pop();
        answer.map_or_else(
            || Err(format!("{action:?} was not carried out")),
            |(_, _, answer)| Ok(answer),
        )
    }

    /// An action that must succeed.
    pub fn does(&mut self, action: Action) -> Step {
        match self.act(action)? {
            Answer::Done => Ok(()),
            answer => Err(format!("{action:?} was answered {answer:?}")),
        }
    }

    /// An action that must be refused.
    pub fn refuses(&mut self, action: Action) -> Step {
        match self.act(action)? {
            Answer::Done => Err(format!("{action:?} was not refused")),
            _ => Ok(()),
        }
    }

    /// Promote a node and wait until hosts may write there.
    pub fn promote(&mut self, node: usize, force: bool) -> Step {
        self.until("the node is up", |world| world.nodes[node].is_up())?;
        self.does(Action::Promote { node, force })?;
        self.until("hosts may write", |world| {
            world.nodes[node].access == HostAccess::ReadWrite
        })
    }

    /// A host writes one block, and waits for the answer. Returns false when it was refused.
    pub fn write(&mut self, node: usize, volume: usize, block: usize) -> Step {
        self.write_with(node, volume, block, false)
    }

    /// The same, durably.
    pub fn write_fua(&mut self, node: usize, volume: usize, block: usize) -> Step {
        self.write_with(node, volume, block, true)
    }

    fn write_with(&mut self, node: usize, volume: usize, block: usize, fua: bool) -> Step {
        self.write_only(node, volume, block, fua)?;
        self.until("a write is answered", |world| world.hosts.unanswered[node] == 0)
    }

    /// A host writes one block and does not wait.
    pub fn write_only(&mut self, node: usize, volume: usize, block: usize, fua: bool) -> Step {
        let range = self.block(volume, block);
        let kind = MutationKind::Write;
        let op = HostOp::Mutate(Mutation { range, kind, fua });
        self.world
            .submit(node, volume, 0, op)
            .map_err(|violation| violation.to_string())
    }

    /// A host flushes and waits.
    pub fn flush(&mut self, node: usize, volume: usize) -> Step {
        let submitted = self.world.submit(node, volume, 0, HostOp::Flush);
        submitted.map_err(|violation| violation.to_string())?;
        self.until("a flush is answered", |world| world.hosts.unanswered[node] == 0)
    }

    /// A host reads one block and waits.
    pub fn read(&mut self, node: usize, volume: usize, block: usize) -> Step {
        let range = self.block(volume, block);
        let before = self.world.tally.reads;
        let submitted = self.world.submit_read(node, volume, range);
        submitted.map_err(|violation| violation.to_string())?;
        self.until("a read is answered", |world| !world.hosts.is_reading(node))?;
        self.expect("the read succeeds", self.world.tally.reads > before)
    }

    /// A block of the simulated windows.
    pub fn block(&self, volume: usize, block: usize) -> ByteRange {
        let layout = &self.world.plan.layouts[volume];
        let per_block = (BLOCK_BYTES / crate::layout::SECTOR_BYTES) as usize;
        let slot = block * per_block % layout.slots;
        layout.block_range(slot, layout.size)
    }

    /// What a node's image holds at a block.
    pub fn holds(&self, node: usize, volume: usize, block: usize) -> Stamp {
        let range = self.block(volume, block);
        self.world
            .content(node, volume, range)
            .first()
            .map_or(0, |&(_, stamp)| stamp)
    }

    /// The images of two nodes are the same.
    pub fn same(&self, one: usize, other: usize) -> bool {
        (0..self.world.plan.layouts.len()).all(|volume| {
            let (a, b) = (
                &self.world.nodes[one].volumes[volume].disk,
                &self.world.nodes[other].volumes[volume].disk,
            );
            (0..a.slots()).all(|slot| a.read(slot) == b.read(slot))
        })
    }

    /// Blocks dirty on a node for another.
    pub fn dirty(&self, node: usize, other: usize) -> u64 {
        let index = PeerIndex(peer_of(node, other) as u8);
        let mirrors = self.world.nodes[node]
            .volumes
            .iter()
            .filter_map(|it| it.mirror.as_ref());
        let runs = mirrors.flat_map(|mirror| mirror.dirty_runs(index, 0, usize::MAX));
        runs.map(|run| run.end - run.start).sum()
    }

    /// Cut the link between two nodes, noticed at once, until `join`.
    pub fn cut(&mut self, one: usize, other: usize) -> Step {
        self.break_link(one, other, Cut::Both, (0, 0), LONG_US)?;
        self.until("both see it", move |world| !world.linked(one, other))
    }

    /// Break a link in some way.
    pub fn break_link(&mut self, one: usize, other: usize, how: Cut, notice_us: (u64, u64), for_us: u64) -> Step {
        let nodes = (one, other);
        let fault = Fault::Cut {
            nodes,
            how,
            notice_us,
            for_us,
        };
        self.strike(fault)
    }

    /// The link works again.
    pub fn join(&mut self, one: usize, other: usize) {
        self.world.broken_until[one][other] = 0;
        self.world.broken_until[other][one] = 0;
    }

    /// A fault strikes.
    pub fn strike(&mut self, fault: Fault) -> Step {
        self.world.strike(fault).map_err(|violation| violation.to_string())
    }

    /// The link of a node to another, as its resource has it.
    pub fn link(&self, node: usize, other: usize) -> Option<LinkState> {
        self.world.link_state(node, other)
    }

    /// Wait until the histories of two nodes are seen to have diverged, on both.
    pub fn until_split(&mut self, one: usize, other: usize) -> Step {
        self.until("split brain seen on both nodes", move |world| {
            [(one, other), (other, one)]
                .into_iter()
                .all(|(a, b)| world.is_split(a, b) && world.link_state(a, b) == Some(LinkState::StandAlone))
        })
    }

    /// The generation of a node's first volume.
    pub fn generation(&self, node: usize) -> u64 {
        let mirror = self.world.nodes[node].volumes[0].mirror.as_ref();
        mirror.map_or(0, mirror_core::Mirror::generation)
    }

    /// A node's role.
    pub fn role(&self, node: usize) -> Option<Role> {
        let resource = self.world.nodes[node].resource.as_ref()?;
        Some(resource.role())
    }
}

impl World {
    /// Two nodes have a connection, as one of them sees it.
    pub fn linked(&self, one: usize, other: usize) -> bool {
        let has = |node: usize, far: usize| self.nodes[node].links[peer_of(node, far)].conn.is_some();
        has(one, other) || has(other, one)
    }

    /// The link of a node to another, as its resource has it.
    pub fn link_state(&self, node: usize, other: usize) -> Option<LinkState> {
        let resource = self.nodes[node].resource.as_ref()?;
        Some(resource.link(PeerIndex(peer_of(node, other) as u8)))
    }

    /// Two nodes have agreed on a connection.
    pub fn is_connected(&self, one: usize, other: usize) -> bool {
        self.link_state(one, other) == Some(LinkState::Connected)
            && self.link_state(other, one) == Some(LinkState::Connected)
    }
}
