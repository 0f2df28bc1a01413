//! The end of a resource, in order.
//!
//! ```text
//!  Primary:    volumes stop: what is in flight ends on every leg, metadata is clean -> goodbye -> streams closed
//!  Secondary:  goodbye -> streams closed, what they brought has ended -> volumes stop
//! ```

use mirror_core::identity::Role;
use mirror_core::resource::event::Input;

use super::ResourceSide;
use crate::data::thread::DataThread;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopPhase {
    /// Not asked for.
    Lives,
    /// The volumes stop; goodbye is still to be said.
    VolumesFirst,
    /// Goodbye is being said; the volumes are still to be stopped.
    GoodbyeFirst,
    /// What was to be first is over.
    Last,
}

impl ResourceSide {
    /// No stream is there, and nothing that came on one is in progress.
    fn streams_ended(&self) -> bool {
        let ended = |partner: &super::Partner| partner.port.connection().is_none() && partner.port.is_idle();
        self.inbox.is_empty() && self.partners.iter().all(ended)
    }
}

impl DataThread {
    /// Begin to stop: hosts have been let go.
    pub(in crate::data) fn stop_resource(&mut self, at: usize) {
        let side = &mut self.resources[at];
        let is_secondary = side.core.as_ref().is_some_and(|core| core.role() == Role::Secondary);
        if is_secondary {
            side.stop = StopPhase::GoodbyeFirst;
            self.say_goodbye(at);
        } else {
            side.stop = StopPhase::VolumesFirst;
            self.stop_volumes(at);
        }
    }

    /// Go on stopping. True: it is over.
    pub(in crate::data) fn resource_stopped(&mut self, at: usize) -> bool {
        let side = &self.resources[at];
        let volumes_stopped = side
            .volumes
            .iter()
            .flatten()
            .all(|&place| self.volumes[place].stopped().is_some());
        let streams_ended = side.streams_ended();
        match side.stop {
            StopPhase::VolumesFirst if volumes_stopped => {
                self.resources[at].stop = StopPhase::Last;
                if !self.resources[at].has_core() {
                    return true;
                }
                self.say_goodbye(at);
            }
            StopPhase::GoodbyeFirst if streams_ended => {
                self.resources[at].stop = StopPhase::Last;
                self.stop_volumes(at);
            }
            StopPhase::Last => return volumes_stopped && streams_ended,
            StopPhase::Lives | StopPhase::VolumesFirst | StopPhase::GoodbyeFirst => return false,
        }
        // There is more to do before anything else happens.
        self.turn.driver.waker().wake();
        false
    }

    fn say_goodbye(&mut self, at: usize) {
        let side = &mut self.resources[at];
        for partner in &mut side.partners {
            partner.stop_wanting(&self.turn);
        }
        side.inbox.push_back(Input::Stop);
    }

    fn stop_volumes(&mut self, at: usize) {
        for place in self.resources[at].volumes.clone().into_iter().flatten() {
            self.volumes[place].stop(&self.turn);
        }
    }
}
