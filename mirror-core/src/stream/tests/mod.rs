//! Both halves of a stream, joined by a link that only delays, against what must hold of any order of events.
#![allow(clippy::unwrap_used, clippy::panic)]

extern crate std;

mod intake;
mod joined;
mod outflow;

use super::frame::Need;

fn need(cost: u64) -> Need {
    Need {
        cost,
        mutates: true,
        barrier: false,
    }
}

const BARRIER: Need = Need {
    cost: 0,
    mutates: false,
    barrier: true,
};
