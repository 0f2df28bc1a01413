//! What an image has once a copy to it is complete, as the checker sees it.

use mirror_core::state::LocalDisk;

use crate::node::peer_of;
use crate::truth::Moment;
use crate::world::World;

/// How far an image follows a reign.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The reign.
    pub follows: Option<usize>,
    /// See `Volume::through`.
    pub through: Option<usize>,
    /// When, and at which step, the reign went on without it; 0: it has not.
    pub left: (Moment, u64),
    /// Parts of it are newer than others.
    pub partial: bool,
    /// It may have forgotten something.
    pub power_lost: bool,
    /// Of what came before this.
    pub forgot_at: Moment,
}

impl World {
    /// A source says that a copy is complete.
    pub fn end_of_copy_said(&mut self, source: usize, volume: usize, peer: usize) {
        let reign = self.nodes[source].reign;
        self.nodes[source].volumes[volume].end_said[peer] = reign;
    }

    /// A node has heard from its source that it has everything: what the source had when it said so, and as what it did.
    /// A Primary may have died since. What it had answered by then, `async`, and sent behind that word, may never arrive:
    /// the copy is as far as the stream had got, and came from the Primary itself (1900033508). Not so a copy from one that
    /// is Primary no more when it says so: that has all that it ever answered.
    pub fn copy_heard(&mut self, node: usize, source: usize, volume: usize) {
        let now = self.truth.tick();
        let let_go = self.nodes[node].volumes[volume].let_go;
        let it = &self.nodes[source].volumes[volume];
        let (said, is_now) = (it.end_said[peer_of(source, node)], self.nodes[source].reign);
        let there = self.speaks_with(node, source);
        let reign = if there { is_now.or(said) } else { said.or(is_now) };
        let let_go = let_go.filter(|&(left, _)| reign == Some(left));
        let standing = match reign {
            None => Standing {
                follows: it.follows,
                through: it.through.or(Some(source)),
                left: (it.left_at, it.left_step),
                partial: it.partial,
                power_lost: it.power_lost,
                forgot_at: it.forgot_at,
            },
            // The Primary may go on without it from here on, if it does not hear that this was heard, or it has already.
            reign => Standing {
                follows: reign,
                through: None,
                left: let_go.map_or((now, self.steps), |(_, when)| when),
                partial: false,
                power_lost: false,
                forgot_at: it.forgot_at,
            },
        };
        self.nodes[node].volumes[volume].copied = Some(standing);
    }

    /// It has noted that durably, whether or not the source hears of it.
    pub fn copy_noted(&mut self, node: usize, volume: usize, disk: LocalDisk) {
        let it = &mut self.nodes[node].volumes[volume];
        if let Some(standing) = it.copied.take_if(|_| disk == LocalDisk::UpToDate) {
            (it.follows, it.partial, it.power_lost) = (standing.follows, standing.partial, standing.power_lost);
            (it.through, (it.left_at, it.left_step)) = (standing.through, standing.left);
            it.forgets(standing.forgot_at);
        }
    }
}
