//! From a configuration to the plans of the data threads, with everything opened. Blocking.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::exports::MAXIMUM_PAYLOAD;
use super::open::{self, Node, StartError};
use super::roster::{Place, ResourcePlace, Served, ServedVolume};
use crate::config::{Config, Engine, Resource};
use crate::data::{self, DataPlan, ResourcePlan};
use crate::ring::EngineChoice;

/// Everything opened, nothing started.
pub(super) struct Prepared {
    pub(super) plans: Vec<DataPlan>,
    /// In the order of the configuration.
    pub(super) served: Vec<Served>,
}

/// Open everything the configuration names.
pub(super) fn prepare(config: &Config, adopt: &BTreeSet<String>) -> Result<Prepared, StartError> {
    check_adopt(config, adopt)?;
    let node = Node::new(&config.name)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut plans: Vec<DataPlan> = (0..config.thread_count(cores))
        .map(|thread| empty_plan(config, thread))
        .collect();
    let mut all_served = Vec::new();
    for (index, resource) in config.resources.iter().enumerate() {
        let thread = index % plans.len();
        let plan = open::resource(&node, resource, |export| adopt.contains(export))?;
        let slots = config.limits.max_connections_per_export;
        all_served.push(served(resource, &plan, thread, &plans[thread].resources, slots));
        plans[thread].resources.push(plan);
    }
    Ok(Prepared {
        plans,
        served: all_served,
    })
}

/// A resource and where it will be: behind those that its thread has already.
fn served(resource: &Resource, plan: &ResourcePlan, thread: usize, before: &[ResourcePlan], slots: usize) -> Served {
    let first: usize = before.iter().map(|resource| resource.volumes.len()).sum();
    let number_of = |export: &str| plan.volumes.iter().position(|volume| volume.export == export);
    let volumes = resource.volumes.iter().map(|volume| {
        let number = number_of(&volume.export).unwrap_or_default();
        ServedVolume {
            place: Place {
                thread,
                volume: first + number,
            },
            number,
            slots: Arc::new(Semaphore::new(slots)),
            identity: plan.volumes.get(number).and_then(open::identity),
        }
    });
    Served {
        place: ResourcePlace {
            thread,
            resource: before.len(),
        },
        gate: Arc::clone(&plan.gate),
        config: resource.clone(),
        volumes: volumes.collect(),
        peers: (0..resource.peers.len()).collect(),
        peers_ever: resource.peers.len(),
        branches: Vec::new(),
        joining: Vec::new(),
    }
}

fn check_adopt(config: &Config, adopt: &BTreeSet<String>) -> Result<(), StartError> {
    for name in adopt {
        let mut volumes = config.resources.iter().flat_map(|resource| &resource.volumes);
        if !volumes.any(|volume| volume.export == *name && volume.metadata.is_some()) {
            return Err(StartError::UnknownAdopt(name.clone()));
        }
    }
    Ok(())
}

fn empty_plan(config: &Config, thread: usize) -> DataPlan {
    let limits = &config.limits;
    DataPlan {
        name: format!("data-{thread}"),
        engine: match config.engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Uring => EngineChoice::Uring,
            Engine::Threads => EngineChoice::Threads,
        },
        resources: Vec::new(),
        limits: data::Limits {
            budget_bytes: limits.bytes_in_flight.max(u64::from(MAXIMUM_PAYLOAD)),
            budget_requests: u32::try_from(limits.requests_in_flight).unwrap_or(u32::MAX),
            idle_timeout: limits.idle_timeout,
        },
    }
}
