//! Nodes are together only while their volumes have the same sizes, but for a growth that goes on: one whose volume has got
//! a size that another's has not, and that can be made Primary, would have its hosts write where the other has nothing.
//! Neither could be made to fit by its operator then: the one has the size, and the other is not the Primary.
//!
//! So each says to all it is connected to that its volume has taken another size, and whoever led does so last. If the
//! sizes differ when that has been said, or when who led has given up or is gone, the two meet anew, and stay apart.

use super::event::Volumes;
use super::peer::Lane;
use super::resize::{Growth, Stage};
use super::{Resource, index};
use crate::event::ConnectionId;
use crate::stream::Control;

/// Another node leads a growth, on this connection, or did and has not said how it ended.
#[derive(Clone, Debug)]
pub(super) struct Led {
    volume: usize,
    peer: usize,
    connection: ConnectionId,
}

impl Resource {
    /// A growth begins: another node leads it, or (`None`) this one.
    pub(super) fn note_led(&mut self, volume: usize, by: Option<(usize, ConnectionId)>) {
        self.led.retain(|led| led.volume != volume);
        self.led.extend(by.map(|(peer, connection)| Led {
            volume,
            peer,
            connection,
        }));
    }

    /// The connection of a volume to a peer, with the volume's place in what this node said there.
    pub(super) fn lane_place(&self, peer: usize, volume: usize) -> Option<(ConnectionId, u16)> {
        let joined = self.peers[peer].joined()?;
        let lane = joined.lanes.iter().find(|lane| lane.ruling.volume == volume)?;
        Some((joined.connection, lane.ruling.mine as u16))
    }

    /// A volume here has taken the size.
    pub(super) fn tell_size(&mut self, volume: usize, size: u64) {
        for peer in 0..self.peers.len() {
            if let Some((connection, place)) = self.lane_place(peer, volume) {
                self.send(peer, connection, Control::Resized { volume: place, size });
            }
        }
    }

    /// Another node's volume has the size.
    pub(super) fn heard_resized(&mut self, from: usize, place: usize, size: u64) {
        let Some(volume) = self.note_size(from, place, size) else {
            return;
        };
        // Who leads is the last to say so.
        self.led.retain(|led| (led.volume, led.peer) != (volume, from));
        if let Some(growth) = &mut self.growth
            && (growth.volume, growth.size) == (volume, size)
            && let Stage::Others { missing } = &mut growth.stage
        {
            missing.retain(|(peer, _)| *peer != from);
        }
    }

    /// The size counts as what was said in the handshake.
    fn note_size(&mut self, from: usize, place: usize, size: u64) -> Option<usize> {
        let joined = self.peers[from].joined_mut()?;
        let lane = joined.lanes.iter().find(|lane| lane.ruling.theirs == place)?;
        joined.theirs.volumes[place].size = size;
        let volume = lane.ruling.volume;
        let name = &self.volumes[volume].name;
        if let Some(record) = &mut self.peers[from].record {
            let mut volumes = record.theirs.volumes.iter_mut();
            if let Some(other) = volumes.find(|other| other.name == *name) {
                other.size = size;
            }
        }
        Some(volume)
    }

    /// The peer's volume had this size when it was heard of last.
    pub(super) fn has_size(&self, peer: usize, volume: usize, size: u64) -> bool {
        let name = &self.volumes[volume].name;
        self.peers[peer].record.as_ref().is_some_and(|record| {
            let mut volumes = record.theirs.volumes.iter();
            volumes.any(|other| other.name == *name && other.size == size)
        })
    }

    /// The two do not fit any more, and no growth goes on that could change that.
    pub(super) fn sizes_differ(&self, peer: usize, world: &dyn Volumes) -> bool {
        let Some(joined) = self.peers[peer].joined() else {
            return false;
        };
        let differs = |lane: &Lane| {
            let here = world.identity(lane.ruling.volume, index(peer)).size;
            here != joined.theirs.volumes[lane.ruling.theirs].size
        };
        let mut lanes = joined.lanes.iter();
        lanes.any(|lane| differs(lane) && !self.is_growing(lane.ruling.volume))
    }

    /// Who leads, here or elsewhere, has not ended it.
    fn is_growing(&self, volume: usize) -> bool {
        let leads = |growth: &Growth| growth.volume == volume;
        let goes_on =
            |led: &Led| led.volume == volume && self.peers[led.peer].link.connection() == Some(led.connection);
        self.growth.as_ref().is_some_and(leads) || self.led.iter().any(goes_on)
    }
}
