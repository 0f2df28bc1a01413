//! Part after part of a long TRIM or WRITE_ZEROES, over what is a hole already: there is nothing to do there.
//!
//! A mirrored TRIM or WRITE_ZEROES goes part by part, each with its place in the activity log and on every peer: about a
//! millisecond for 64 MiB. Most of a long one is holes already, and over them it jumps.

use mirror_core::ByteRange;
use mirror_core::event::ReadFrom;
use nbd_proto::Command;

use super::request::{HostRequest, Origin};
use super::{Machinery, Volume};
use crate::data::turn::Turn;
use crate::image::ExtentKind;

impl Volume {
    /// No leg needs the request any more: on to its next part, or away with it.
    pub(super) fn released(&mut self, turn: &Turn, id: u32) {
        let unanswered = self.requests.get(id).is_some_and(HostRequest::has_more);
        self.skip_hole(id);
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        match (request.next_part(), &mut self.machinery) {
            (Some(mutation), Machinery::Mirror(mirror)) => mirror.mutate(turn.now, id, mutation),
            // The rest was holes.
            (None, _) if unanswered => self.end(id, Ok(None)),
            _ => self.drop_request(id),
        }
    }

    /// What comes next of a host's TRIM or WRITE_ZEROES reads as zeroes, here and wherever else it is not marked as
    /// different: count it as done.
    ///
    /// Not with FUA, for the hole need not be durable, nor with NO_HOLE. Whatever was answered before is in the image, and
    /// what was not may come before or after. Where the image is not what hosts read, it says nothing.
    pub(super) fn skip_hole(&mut self, id: u32) {
        let Some(request) = self.requests.get(id) else { return };
        let skips = match request.command {
            Command::Trim { fua } => !fua,
            Command::WriteZeroes { fua, no_hole, .. } => !fua && !no_hole,
            _ => false,
        };
        let (at, end) = (request.offset + request.taken, request.offset + request.length);
        let from_host = matches!(request.origin, Origin::Host { .. });
        if !skips || !from_host || at >= end || end > self.image.size() {
            return;
        }
        let Machinery::Mirror(mirror) = &self.machinery else {
            return;
        };
        let extent = self.image.look(at);
        if extent.kind == ExtentKind::Data {
            return;
        }
        let hole = ByteRange::new(at, extent.end.min(end) - at);
        if mirror.core.read_from(hole) != ReadFrom::Local {
            return;
        }
        if let Some(request) = self.requests.get_mut(id) {
            request.taken += hole.length;
        }
    }
}
