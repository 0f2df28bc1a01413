//! What the control side tells a data thread.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::connection::Connection;
use super::message::{ClientHandover, ToData};
use super::thread::DataThread;
use super::token::INDEX_MAX;

/// Messages taken in one turn; the rest wait for the next one, so that I/O is never starved.
const MESSAGES_PER_TURN: usize = 64;

impl DataThread {
    pub(super) fn take_messages(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            match self.messages.try_recv() {
                Ok(message) => self.on_message(message),
                Err(TryRecvError::Empty) => return,
                // The control side is gone: nobody will ever ask again.
                Err(TryRecvError::Disconnected) => return self.stop(Duration::ZERO),
            }
        }
        // There may be more: come back without sleeping.
        self.turn.driver.waker().wake();
    }

    fn on_message(&mut self, message: ToData) {
        match message {
            ToData::Client(handover) => self.accept(handover),
            ToData::PeerReady(handover) => {
                if let Some(volume) = self.volumes.get_mut(handover.volume) {
                    volume.peer_ready(&self.turn, handover);
                }
            }
            ToData::PeerFailed { volume, peer, error } => {
                if let Some(volume) = self.volumes.get_mut(volume) {
                    volume.peer_failed(&self.turn, peer, error);
                }
            }
            ToData::StreamReady(handover) => self.stream_ready(handover),
            ToData::StreamPlain { resource, peer } => self.stream_plain(resource, peer),
            ToData::StreamFailed { resource, peer, error } => self.stream_failed(resource, peer, error),
            ToData::StreamRested { resource, peer } => self.stream_rested(resource, peer),
            ToData::Resources(answer) => {
                let snapshots = self
                    .resources
                    .iter()
                    .map(|side| side.snapshot(self.turn.now, &self.volumes))
                    .collect();
                let _ = answer.send(snapshots);
            }
            ToData::ResourceCommand {
                resource,
                command,
                answer,
            } => self.resource_command(resource, command, answer),
            ToData::Status(answer) => {
                let snapshots = self.volumes.iter().map(|volume| volume.snapshot(&self.turn)).collect();
                // Whoever asked may have given up.
                let _ = answer.send(snapshots);
            }
            ToData::Command {
                volume,
                peer,
                command,
                answer,
            } => {
                self.peer_command((volume, peer), command, answer);
            }
            ToData::ServeBranch { resource, plan, answer } => {
                let served = self.serve_branch(resource, *plan);
                // Whoever asked may have given up.
                let _ = answer.send(served);
            }
            ToData::DropBranch { volume, answer } => {
                self.drop_branch(volume);
                let _ = answer.send(());
            }
            ToData::Stop { deadline } => self.stop(deadline),
        }
    }

    fn accept(&mut self, handover: ClientHandover) {
        let Some(volume) = self.volumes.get_mut(handover.volume) else {
            return;
        };
        let side = &self.resources[self.homes[handover.volume].0];
        // Its handshake may have been before the door was shut, or before the volume was removed.
        let served = side.volumes.contains(&Some(handover.volume));
        let admitted = volume.is_view() || (served && side.admits(handover.negotiated.export.flags));
        if self.stopping.is_some() || !admitted || self.connections.len() > INDEX_MAX {
            tracing::warn!(
                client = handover.address,
                "connection refused: stopping, Secondary, removed, or too many connections"
            );
            return;
        }
        let address = handover.address.clone();
        // The slot is known before the connection is made: it is the one freed last, or a new one.
        let slot = self.connections.next_index();
        match Connection::new(slot, handover, volume, &self.turn) {
            Ok(connection) => {
                volume.connected();
                let inserted = self.connections.insert(connection);
                debug_assert_eq!(inserted, slot);
                if let Some(connection) = self.connections.get_mut(slot) {
                    connection.proceed(volume, &mut self.turn);
                }
                self.touched.push(slot);
            }
            Err(error) => tracing::warn!(client = address, error = %error, "cannot use the connection"),
        }
    }
}
