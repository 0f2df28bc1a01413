//! Changes of a volume while it is served: its image grows, goes, comes back; peers come.

use mirror_core::AckMode;
use mirror_core::config::PeerKind;
use mirror_core::event::{PeerIndex, Ticket};
use mirror_core::metadata::ImageIdentity;

use super::branch::Branch;
use super::incoming::Incoming;
use super::plain::Plain;
use super::{Machinery, Volume};
use crate::data::peer::Peer;
use crate::data::plan::PeerPlan;
use crate::data::token::{Kind, Token};
use crate::data::turn::Turn;
use crate::image::Image;

/// What another attach is told while one is under way: it would have the mirror take the image of the later for that of the
/// earlier.
pub(crate) const ATTACHING: &str = "an earlier attach of this volume has not ended: it waits for a partner to have everything on its disk. Try again \
     when `blockmirror status` shows that the partner has answered, or that it is lost";

/// An image that the mirror may take, or refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// The core of the resource has not ordered it to be taken yet.
    Made,
    /// It has: the mirror answers this.
    Ordered(Ticket),
}

impl Volume {
    /// Make the image larger, or make sure that it can be smaller: the bytes it can have, or why not.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<u64, String> {
        if bytes < self.size {
            return if self.image.is_unused_from(bytes) {
                Ok(bytes)
            } else {
                Err(format!(
                    "something is beyond {bytes} bytes, or its file system cannot tell: only holes count as unused, so \
                     discard (blkdiscard, fstrim) what is there first"
                ))
            };
        }
        self.set_aside(bytes)?;
        self.image.grow(bytes).map_err(|error| error.to_string())?;
        Ok(self.image.size())
    }

    /// Set aside what the metadata file will need at this size: a disk that is full later must not keep the volume from
    /// noting what a peer misses. Blocks for as long as the file system takes.
    pub(crate) fn set_aside(&self, bytes: u64) -> Result<(), String> {
        match &self.machinery {
            Machinery::Mirror(mirror) => mirror.metadata.set_aside(&mirror.core.space(bytes)),
            Machinery::Plain(_) => Ok(()),
        }
    }

    /// The mirror has given the image up: close it once nothing of it is in flight, so that it can be replaced.
    pub(crate) fn close_image(&mut self, turn: &mut Turn) {
        self.image_gone = true;
        self.branch_without_image(turn);
        self.let_image_go();
    }

    /// Close an image that was given up, if nothing of it is in flight.
    pub(super) fn let_image_go(&mut self) {
        if !self.image_gone || self.image.in_flight() > 0 {
            return;
        }
        self.image_gone = false;
        match Image::placeholder(self.size) {
            Ok(image) => self.put_image(image),
            Err(error) => tracing::warn!(export = self.export, %error, "the image that was given up stays open"),
        }
    }

    /// It is served no longer: once nothing is in flight any more, close its files. It may be served again, here or by
    /// another daemon. The core and its tables go as well.
    pub(crate) fn let_files_go(&mut self) {
        let (Some(clean), Machinery::Mirror(_)) = (self.stopped(), &self.machinery) else {
            return;
        };
        if self.connections > 0 || self.image.in_flight() > 0 {
            return;
        }
        self.machinery = Machinery::Plain(Plain::over(clean));
        self.branch = Branch::default();
        match Image::placeholder(self.size) {
            Ok(image) => self.put_image(image),
            Err(error) => tracing::warn!(export = self.export, %error, "the image of a removed volume stays open"),
        }
    }

    /// The mirror has been offered an image, and has neither taken nor refused it.
    pub(crate) fn is_attaching(&self) -> bool {
        self.offer.is_some()
    }

    /// The core of the resource has refused to have the image taken: nobody else closes it.
    pub(crate) fn withdraw_offer(&mut self, turn: &mut Turn) {
        // An order goes on when its command is given up for taking too long.
        if self.offer == Some(Offer::Made) {
            self.end_offer(turn);
        }
    }

    /// The mirror has carried an order out, or not: if that was to take the image and it has not, it is closed again.
    pub(crate) fn offer_answered(&mut self, turn: &mut Turn, ticket: Ticket) {
        if self.offer == Some(Offer::Ordered(ticket)) {
            self.end_offer(turn);
        }
    }

    fn end_offer(&mut self, turn: &mut Turn) {
        self.offer = None;
        if !self.has_image() {
            self.close_image(turn);
        }
    }

    /// Take an image in the place of the one that was given up.
    pub(crate) fn take_image(&mut self, image: Image, identity: ImageIdentity, replaced: bool) -> Result<(), String> {
        if self.is_attaching() {
            return Err(ATTACHING.to_owned());
        }
        if self.image.in_flight() > 0 {
            return Err("requests are in flight at the image that was given up: they have to end first".to_owned());
        }
        if image.size() != self.size {
            return Err(format!(
                "the image has {} bytes, the volume {}: give it the same size",
                image.size(),
                self.size
            ));
        }
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            mirror.core.offer_image(identity);
        }
        self.offer = Some(Offer::Made);
        self.image_gone = false;
        self.branch.set_image_gone(false);
        if replaced {
            // What a branch still misses was in the image that is gone.
            self.branch.finish();
        }
        self.put_image(image);
        Ok(())
    }

    /// A peer that the mirror is about to be told of.
    pub(crate) fn add_peer(&mut self, plan: PeerPlan, kind: PeerKind, mode: AckMode) {
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            let index = PeerIndex(mirror.peers.len() as u8);
            mirror.peers.push(Peer::new(self.index, index, plan, false));
            mirror.kinds.push(kind);
            mirror.modes.push(mode);
            mirror.streams.push(None);
            mirror.seeds.push(0);
            mirror.incoming.push(Incoming::default());
        }
    }

    /// The mirror does not know the last peer: forget it.
    pub(crate) fn forget_last_peer(&mut self) {
        if let Machinery::Mirror(mirror) = &mut self.machinery {
            mirror.peers.pop();
            mirror.kinds.pop();
            mirror.modes.pop();
            mirror.streams.pop();
            mirror.seeds.pop();
            mirror.incoming.pop();
        }
    }

    fn put_image(&mut self, mut image: Image) {
        image.set_token_base(Token::new(Kind::Image, self.index).encode());
        self.image = image;
    }
}
