//! Hosts at the door of a resource: let in, let read, or shut out after what is in flight.

use mirror_core::resource::event::{HostAccess, Input};
use nbd_proto::TransmissionFlags;

use super::ResourceSide;
use crate::data::thread::DataThread;
use crate::data::volume::Volume;

impl ResourceSide {
    /// May a host with these flags of its export be served?
    pub(in crate::data) fn admits(&self, flags: TransmissionFlags) -> bool {
        match self.access {
            HostAccess::Shut => false,
            HostAccess::ReadOnly => flags.contains(TransmissionFlags::READ_ONLY),
            HostAccess::ReadWrite => true,
        }
    }

    pub(super) fn volume_names(&self, volumes: &[Volume]) -> Vec<Option<String>> {
        let name = |place: &Option<usize>| Some(volumes.get((*place)?)?.export().to_owned());
        self.volumes.iter().map(name).collect()
    }
}

impl DataThread {
    /// The core has changed what hosts may do: those who may no longer are let go after what is in flight.
    pub(super) fn admit_hosts(&mut self, at: usize, access: HostAccess) {
        let side = &mut self.resources[at];
        side.access = access;
        side.gate.set_access(access);
        side.draining = access == HostAccess::Shut;
        tracing::info!(resource = side.name, access = ?access, "hosts");
        for (slot, connection) in self.connections.iter_mut() {
            let of_resource = side.volumes.contains(&Some(connection.volume()));
            if !of_resource || side.admits(connection.flags()) {
                continue;
            }
            if let Some(volume) = self.volumes.get_mut(connection.volume()) {
                connection.finish(volume, &self.turn);
                self.touched.push(slot);
            }
        }
    }

    /// Tell the core once no host request is in flight any more.
    pub(super) fn check_drained(&mut self, at: usize) {
        let side = &mut self.resources[at];
        if !side.draining {
            return;
        }
        let mut places = side.volumes.iter().flatten();
        if places.all(|&place| self.volumes[place].requests_in_flight() == 0) {
            side.draining = false;
            side.inbox.push_back(Input::HostsDrained);
        }
    }
}
