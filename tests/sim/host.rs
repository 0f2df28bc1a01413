//! The host: several connections that write, zero, trim and flush one volume, and die at times.

use std::collections::BTreeMap;

use mirror_core::event::{HostOp, Mutation, MutationKind, RequestId};

use crate::checker::Moment;
use crate::disk::Stamp;
use crate::layout::Layout;
use crate::rng::Rng;
use crate::scenario::HostPlan;

/// What a request is to the checker.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// A write of this stamp.
    Write {
        /// Its name.
        stamp: Stamp,
        /// Forced unit access.
        fua: bool,
    },
    /// A flush submitted at this moment.
    Flush(Moment),
}

/// A request from arrival to release.
#[derive(Clone, Debug)]
pub struct Request {
    /// Connection it came on.
    pub connection: usize,
    /// What it asks.
    pub asked: Asked,
    /// The mirror has answered it.
    pub replied: bool,
    /// Its connection died first.
    pub abandoned: bool,
}

/// Requests under way, by the number the mirror knows them by.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Until released.
    pub requests: BTreeMap<u32, Request>,
    /// Submitted so far.
    pub submitted: u64,
}

impl Host {
    /// The smallest free number: numbers are used again as soon as they are released.
    pub fn free_id(&self) -> RequestId {
        let taken = self
            .requests
            .keys()
            .enumerate()
            .take_while(|&(at, &id)| at as u32 == id)
            .count();
        RequestId(taken as u32)
    }

    /// Requests that still count against the depth.
    pub fn unanswered(&self) -> usize {
        self.requests
            .values()
            .filter(|request| !request.replied && !request.abandoned)
            .count()
    }

    /// Requests of a connection that are not released.
    pub fn of_connection(&self, connection: usize) -> Vec<RequestId> {
        let mine = self
            .requests
            .iter()
            .filter(|(_, request)| request.connection == connection);
        mine.map(|(&id, _)| RequestId(id)).collect()
    }
}

/// The next thing the host asks.
pub fn choose(rng: &mut Rng, plan: &HostPlan, layout: &Layout, extents_max: usize) -> HostOp {
    if rng.chance(plan.flush_percent) {
        return HostOp::Flush;
    }
    let large = rng.chance(plan.large_percent);
    let kind = match rng.below(10) {
        0 => MutationKind::Trim,
        1 => MutationKind::Zero {
            no_hole: rng.chance(50),
        },
        _ if large => MutationKind::Zero { no_hole: false },
        _ => MutationKind::Write,
    };
    let range = if large {
        layout.large_range(rng, extents_max)
    } else {
        layout.small_range(rng)
    };
    HostOp::Mutate(Mutation {
        range,
        kind,
        fua: rng.chance(plan.fua_percent),
    })
}
