//! Stopping: no more requests, finish what is in flight, make everything durable, close.

use std::time::Duration;

use super::thread::{After, DataThread};

/// A stop under way.
pub(super) struct Stopping {
    /// When it has to be over, as time since the thread started.
    pub(super) deadline: Duration,
}

impl DataThread {
    pub(super) fn stop(&mut self, allowed: Duration) {
        let deadline = self.turn.now + allowed;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            return;
        }
        self.stopping = Some(Stopping { deadline });
        for (slot, connection) in self.connections.iter_mut() {
            if let Some(volume) = self.volumes.get_mut(connection.volume()) {
                connection.finish(volume, &self.turn);
                self.touched.push(slot);
            }
        }
        for at in 0..self.resources.len() {
            self.stop_resource(at);
        }
        for volume in self.volumes.iter_mut().filter(|volume| volume.is_view()) {
            volume.stop(&self.turn);
        }
    }

    pub(super) fn check_stop(&mut self) -> Option<After> {
        let deadline = self.stopping.as_ref()?.deadline;
        let mut over = self.connections.is_empty();
        for at in 0..self.resources.len() {
            over &= self.resource_stopped(at);
        }
        // Volumes that are served no longer are of no resource, and branches are not either: each has its own end.
        over &= self.volumes.iter().all(|volume| volume.stopped().is_some());
        let late = self.turn.now >= deadline;
        if !over && !late {
            return None;
        }
        if !over {
            tracing::warn!("not everything could be finished within the time allowed for stopping");
        }
        for (_, connection) in self.connections.iter_mut() {
            if let Some(volume) = self.volumes.get_mut(connection.volume()) {
                connection.cut(volume, &self.turn);
            }
        }
        Some(After::Stopped {
            clean: self.volumes.iter().all(|volume| volume.stopped() == Some(true)),
        })
    }
}
