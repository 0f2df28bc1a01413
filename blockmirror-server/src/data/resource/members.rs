//! Peers and volumes that come and go, and images that come back, while the resource is served.

use mirror_core::PeerConfig;
use mirror_core::metadata::ImageIdentity;
use mirror_core::resource::event::{Answer, Command};
use tokio::sync::oneshot;

use super::commands::Then;
use crate::data::message::FromData;
use crate::data::plan::{PartnerPlan, PeerPlan, VolumePlan};
use crate::data::thread::DataThread;
use crate::data::token::INDEX_MAX;
use crate::data::volume::Volume;
use crate::image::Image;

impl DataThread {
    pub(super) fn add_peer(
        &mut self,
        at: usize,
        config: PeerConfig,
        plan: &PeerPlan,
        partner: PartnerPlan,
        answer: oneshot::Sender<Answer>,
    ) {
        for place in self.resources[at].volumes.clone().into_iter().flatten() {
            self.volumes[place].add_peer(plan.clone(), config.kind, config.mode);
        }
        self.resources[at].add_partner(at, partner);
        let command = Command::AddPeer { config, kind: None };
        self.core_command(at, command, Then::KeepPeer, answer);
    }

    /// The core has taken the peer: its bitmap needs room.
    pub(super) fn peer_kept(&self, at: usize) {
        for place in self.resources[at].volumes.iter().copied().flatten() {
            let volume = &self.volumes[place];
            if let Err(why) = volume.set_aside(volume.size()) {
                let export = volume.export();
                tracing::warn!(
                    export,
                    "{why}: when its disk is full the volume may have to refuse changes"
                );
            }
        }
    }

    /// The core has not taken the peer that was added last.
    pub(super) fn forget_last_peer(&mut self, at: usize) {
        for place in self.resources[at].volumes.clone().into_iter().flatten() {
            self.volumes[place].forget_last_peer();
        }
        self.resources[at].partners.pop();
    }

    pub(super) fn add_volume(&mut self, at: usize, plan: VolumePlan, answer: oneshot::Sender<Answer>) {
        let place = self.volumes.len();
        let name = plan.export.clone();
        let made = if place < INDEX_MAX {
            Volume::new(place, plan, &self.turn.limits)
        } else {
            Err(std::io::Error::other(
                "the data thread has as many volumes as it can number",
            ))
        };
        match made {
            Ok(volume) => {
                self.volumes.push(volume);
                self.homes.push((at, self.resources[at].volumes.len()));
                self.resources[at].volumes.push(Some(place));
                // At once: the core tells of it, too, from the next word on.
                self.name_volumes(at);
                let command = Command::AddVolume { name };
                self.core_command(at, command, Then::KeepVolume { place }, answer);
            }
            Err(error) => {
                // Whoever asked may have given up.
                let _ = answer.send(Answer::Refused(format!("the volume cannot be served: {error}")));
            }
        }
    }

    /// The core has taken the volume.
    pub(super) fn volume_added(&mut self, at: usize, place: usize) {
        let volume = &self.volumes[place];
        let export = volume.export().to_owned();
        self.turn.tell(FromData::VolumeAdded {
            resource: at,
            export,
            volume: place,
            number: self.homes[place].1,
        });
    }

    /// The core has not taken it: its number is free where the core has none.
    pub(super) fn forget_volume(&mut self, at: usize, place: usize) {
        self.drop_volume(at, place);
        let side = &mut self.resources[at];
        let numbered = side.core.as_ref().map_or(0, |core| core.volumes_ever());
        side.volumes.truncate(numbered);
    }

    /// What the next HELLO says of the volumes.
    fn name_volumes(&self, at: usize) {
        let side = &self.resources[at];
        let named = side.volumes.iter().flatten().map(|place| {
            let volume = &self.volumes[*place];
            (volume.export().to_owned(), volume.size())
        });
        side.gate.set_volumes(named.collect());
    }

    /// Serve the volume no longer.
    pub(super) fn drop_volume(&mut self, at: usize, place: usize) {
        for (slot, connection) in self.connections.iter_mut() {
            if connection.volume() == place {
                connection.finish(&mut self.volumes[place], &self.turn);
                self.touched.push(slot);
            }
        }
        let volume = &mut self.volumes[place];
        volume.stop(&self.turn);
        self.leaving.push(place);
        for volume in &mut self.resources[at].volumes {
            volume.take_if(|volume| *volume == place);
        }
        self.name_volumes(at);
    }

    /// The image of a volume is there again.
    pub(super) fn attach(
        &mut self,
        at: usize,
        volume: usize,
        (image, identity): (Image, ImageIdentity),
        replaced: bool,
        answer: oneshot::Sender<Answer>,
    ) {
        let place = self.resources[at].volumes.get(volume).copied().flatten();
        let taken = match place {
            Some(place) if self.volumes[place].has_image() => {
                Err("the volume has its image: detach it first".to_owned())
            }
            Some(place) => self.volumes[place].take_image(image, identity, replaced),
            None => Err("there is no such volume".to_owned()),
        };
        match taken {
            Ok(()) => self.core_command(
                at,
                Command::Attach { volume, replaced },
                Then::KeepImage(volume),
                answer,
            ),
            Err(why) => {
                let _ = answer.send(Answer::Refused(why));
            }
        }
    }
}
