//! Faults strike, and at the end of the safety phase everything heals.

use mirror_core::event::{Command, Input, PeerIndex};
use mirror_core::state::PeerState;

use crate::faults::{Fault, SlowPart};
use crate::world::{Check, Event, Phase, World};

impl World {
    /// A fault strikes.
    pub fn strike(&mut self, fault: Fault) -> Check {
        let is_restart = matches!(fault, Fault::PrimaryKilled { .. } | Fault::PrimaryPower { .. });
        if self.phase != Phase::Safety && !(is_restart && (self.primary.broken || self.primary.stopping)) {
            return Ok(());
        }
        self.trace(|| format!("** {fault:?}"));
        match fault {
            Fault::Cut {
                peer,
                notice_us,
                broken_us,
            } => self.cut(peer, notice_us, broken_us),
            Fault::PeerDown { peer, power, down_us } => return self.peer_down(peer, power, down_us),
            Fault::PeerFails { peer, count, failure } => {
                self.peers[peer].failing.extend((0..count).map(|_| failure));
            }
            Fault::Slow { what, times, for_us } => {
                match what {
                    SlowPart::Local => self.primary.slow_local = times,
                    SlowPart::Store => self.primary.slow_store = times,
                    SlowPart::Peer(peer) => self.peers[peer].slow = times,
                }
                self.after(for_us, Event::Fast);
            }
            Fault::LocalFails(failure) => self.primary.failing_local = Some(failure),
            Fault::LocalFlushFails => self.primary.failing_flush = true,
            Fault::PersistFails => self.primary.failing_persist = true,
            Fault::PrimaryKilled { down_us } => return self.primary_dies(false, down_us),
            Fault::PrimaryPower { down_us, all } => {
                for peer in 0..self.peers.len() * usize::from(all) {
                    self.peer_down(peer, true, down_us)?;
                }
                return self.primary_dies(true, down_us);
            }
            Fault::HostGone { connection } => return self.host_gone(connection),
            Fault::Operator(command) => {
                if let Command::Connect(peer) | Command::Disconnect(peer) | Command::Invalidate(peer) = command
                    && usize::from(peer.0) >= self.primary.configured
                {
                    return Ok(());
                }
                self.note_parted(command);
                self.primary.stopping |= command == Command::Stop && self.primary.mirror.is_some();
                self.feed(Input::Command(command))?;
                if let Command::Invalidate(peer) = command {
                    self.peers[usize::from(peer.0)].invalidated = true;
                    self.note_recorded(usize::from(peer.0), PeerState::SyncSource);
                }
            }
        }
        Ok(())
    }

    /// The safety phase is over: no more faults, and what is broken is mended.
    pub fn heal(&mut self) -> Check {
        if self.phase != Phase::Safety {
            return Ok(());
        }
        self.trace(|| "** heal".to_owned());
        self.phase = Phase::Convergence;
        let primary = &mut self.primary;
        (primary.failing_local, primary.failing_flush, primary.failing_persist) = (None, false, false);
        self.peers.iter_mut().for_each(|peer| peer.failing.clear());
        if self.primary.configured < self.peers.len() {
            // The last peer is put back into the configuration.
            return self.primary_dies(false, 500);
        }
        self.operator_connects()
    }

    /// Whoever was disconnected by the operator is connected by him.
    pub fn operator_connects(&mut self) -> Check {
        for peer in 0..self.primary.configured {
            if self.primary.states[peer] == PeerState::StandAlone {
                let command = Command::Connect(PeerIndex(peer as u8));
                self.note_parted(command);
                self.feed(Input::Command(command))?;
            }
        }
        Ok(())
    }

    /// Who parts with a peer goes on without it. What was decided before he wants it back is answered a moment later.
    fn note_parted(&mut self, command: Command) {
        let (peer, until) = match command {
            Command::Disconnect(peer) => (peer, u64::MAX),
            Command::Connect(peer) => (peer, self.now + 1_000_000),
            _ => return,
        };
        let free = &mut self.primary.free_until[usize::from(peer.0)];
        *free = if until == u64::MAX { until } else { until.min(*free) };
    }
}
