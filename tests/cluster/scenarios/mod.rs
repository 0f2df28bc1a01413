//! Named scenarios, after the rows of the test survey that they play (docs/SCENARIOS.md has the table).

mod connections;
mod decisions;
mod disks;
mod forced;
mod generations;
mod order;
mod resync;
mod resync_more;
mod roles;
mod thirds;
mod verify;

use crate::stage::Scenario;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [
        connections::ALL,
        roles::ALL,
        generations::ALL,
        resync::ALL,
        resync_more::ALL,
        verify::ALL,
        disks::ALL,
        decisions::ALL,
        order::ALL,
        thirds::ALL,
        forced::ALL,
    ]
    .into_iter()
    .flatten()
    .map(|&(name, play)| Scenario { name, play })
    .collect()
}
