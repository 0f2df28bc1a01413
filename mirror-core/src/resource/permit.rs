//! Whether this node may become Primary now.

use alloc::format;
use alloc::vec::Vec;

use super::config::CONSENT_STANDS;
use super::event::{Answer, Loss, Volumes};
use super::peer::Link;
use super::{Resource, index};
use crate::identity::{Newer, Verdict};
use crate::sabotage::Sabotage;
use crate::state::LocalDisk;

impl Resource {
    /// May this node become Primary, with nobody to take the role from?
    pub(super) fn permit(&self, world: &dyn Volumes, force: bool, accept: Option<&str>) -> Result<(), Answer> {
        self.permit_data(world, None)?;
        self.permit_loss(world, force, accept)
    }

    /// What no force can overcome. `from`: the Primary, or who was until just now: who is in step with it has the newest
    /// data, whatever another Secondary may have marked.
    pub(super) fn permit_data(&self, world: &dyn Volumes, from: Option<usize>) -> Result<(), Answer> {
        let refused = |text| Err(Answer::Refused(text));
        let newest = from.is_some_and(|from| self.is_in_step(from, world));
        for peer in self.connected_partners() {
            let name = &self.peers[peer].name;
            if self.peers[peer]
                .consented
                .is_some_and(|at| self.now < at + CONSENT_STANDS)
            {
                return refused(format!("{name} is becoming Primary at this moment"));
            }
            if let Some(volume) = self.behind(peer).filter(|_| !newest) {
                return refused(format!(
                    "volume {}: {name} has newer data, and this node has not got all of it yet: wait for the resync to end \
                     (see `blockmirror status`; its own image may have to be attached first), or go on without its data after \
                     `blockmirror disconnect {} {name}`",
                    self.volumes[volume].name, self.config.name
                ));
            }
        }
        for at in self.live_volumes() {
            if self.volumes[at].disk == LocalDisk::Diskless {
                return refused(format!(
                    "volume {0} has no image here: `blockmirror attach {0}` first",
                    self.volumes[at].name
                ));
            }
        }
        Ok(())
    }

    /// A volume in which the peer has what this node lacks.
    fn behind(&self, peer: usize) -> Option<usize> {
        let (rulings, joined) = match &self.peers[peer].link {
            Link::Comparing(comparing) => (comparing.rulings.iter().flatten().collect::<Vec<_>>(), false),
            Link::Joined(joined) => (joined.lanes.iter().map(|lane| &lane.ruling).collect(), true),
            Link::Down => return None,
        };
        let mut behind = rulings.into_iter().filter(|ruling| {
            let target = matches!(ruling.decision.verdict, Verdict::Target { .. });
            // A copy that was agreed on has ended when the image is complete.
            let complete = target && joined && self.volumes[ruling.volume].disk == LocalDisk::UpToDate;
            (target || ruling.decision.newer == Newer::Theirs) && !complete
        });
        behind.next().map(|ruling| ruling.volume)
    }

    /// What would be lost, and whether that has been accepted.
    pub(super) fn permit_loss(&self, world: &dyn Volumes, force: bool, accept: Option<&str>) -> Result<(), Answer> {
        let fresh = |at: usize| world.identity(at, index(0)).fresh;
        if !force && !self.peers.is_empty() && self.live_volumes().all(fresh) {
            return Err(Answer::Refused(format!(
                "no data was ever declared here: if what is in the image is to be the data, \
                 `blockmirror promote --force {}`",
                self.config.name
            )));
        }
        // A node that mirrors to plain servers only has nobody to lose anything of.
        let loss = self.assess(world);
        if self.partners().next().is_none() || loss == Loss::default() {
            return Ok(());
        }
        let token = self.token(&loss, world);
        if (force && accept == Some(token.as_str())) || !self.keeps(Sabotage::LossQuotedBack) {
            return Ok(());
        }
        Err(Answer::NeedsAccept { loss, token })
    }
}
