//! READs of hosts: from the image, or from a peer where the image is gone, fails, or is not yet what it should be (I6).

use mirror_core::ByteRange;
use mirror_core::config::PeerKind;
use mirror_core::event::{ConnectionId, Input, PeerIndex, ReadFrom};
use mirror_core::stream::Request;

use super::request::{ImageWork, LOCAL_IO, Origin, failure_of};
use super::{Machinery, Volume};
use crate::data::peer::{Action, LinkWork, PeerError};
use crate::data::stream::{StreamOutcome, StreamWork};
use crate::data::turn::Turn;
use crate::image::{ImageError, ImageRequest};
use crate::ring::FileRange;

/// READs that a peer is answering.
#[derive(Debug, Default)]
pub(super) struct RemoteReads {
    asked: Vec<(u32, PeerIndex, ConnectionId)>,
}

impl RemoteReads {
    /// True: it was one of these.
    fn take(&mut self, id: u32) -> bool {
        let before = self.asked.len();
        self.asked.retain(|(asked, ..)| *asked != id);
        self.asked.len() < before
    }
}

impl Volume {
    /// Serve a READ.
    pub(super) fn read(&mut self, turn: &mut Turn, id: u32) {
        let Some(request) = self.requests.get(id) else { return };
        let (offset, length) = (request.offset, request.length);
        let range = ByteRange::new(offset, length);
        let from = match &self.machinery {
            Machinery::Plain(_) => ReadFrom::Local,
            Machinery::Mirror(mirror) => mirror.core.read_from(range),
        };
        match from {
            ReadFrom::Local => {
                let buffer = turn.driver.pool().take(length as usize);
                self.submit_image(turn, ImageWork::Host(id), ImageRequest::Read { buffer, offset });
            }
            ReadFrom::Peer(peer, connection) => self.read_remote(turn, id, (peer, connection), range),
            ReadFrom::Nowhere => self.end(id, Err(LOCAL_IO)),
        }
    }

    /// What a READ is answered with where it lies in the page cache. The bytes are those of the moment in which the host
    /// takes them: newer than its request, never older. So only where nobody but hosts writes: on a volume with partners
    /// the image could become the target of a resync meanwhile.
    pub(crate) fn cached_range(&self, offset: u64, length: u64, but_zeroes: Option<u64>) -> Option<FileRange> {
        let is_hosts_alone = match &self.machinery {
            Machinery::Plain(_) => self.view.is_none(),
            Machinery::Mirror(mirror) => {
                mirror.kinds.iter().all(|kind| *kind == PeerKind::Plain)
                    && mirror.core.read_from(ByteRange::new(offset, length)) == ReadFrom::Local
            }
        };
        if !is_hosts_alone {
            return None;
        }
        self.image.send_range(offset, length, but_zeroes)
    }

    /// The image failed a READ: the mirror is told, and a peer is asked if there is one that can answer.
    pub(super) fn read_failed(&mut self, turn: &mut Turn, id: u32, error: &ImageError) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let range = ByteRange::new(request.offset, request.length);
        let second_time = request.taken > 0;
        // Counts attempts; READs have no parts.
        request.taken += 1;
        if let Machinery::Mirror(mirror) = &mut self.machinery
            && matches!(request.origin, Origin::Host { .. })
            && !second_time
        {
            let failure = failure_of(error);
            mirror.tell(turn.now, Input::LocalReadFailed { range, failure });
            if mirror.core.read_from(range) != ReadFrom::Local {
                return self.read(turn, id);
            }
        }
        self.end(id, Err(super::image_refusal(error)));
    }

    /// A plain peer has answered a READ.
    pub(super) fn plain_read(&mut self, turn: &mut Turn, id: u32, outcome: Result<Option<Vec<u8>>, PeerError>) {
        match outcome {
            Ok(Some(data)) => self.read_done(turn, id, Some(&data)),
            Ok(None) | Err(_) => self.read_done(turn, id, None),
        }
    }

    /// A blockmirror has answered a READ.
    pub(super) fn stream_read(&mut self, turn: &mut Turn, id: u32, outcome: StreamOutcome) {
        match outcome {
            StreamOutcome::Contents {
                holes,
                payload: Some(payload),
                ..
            } if holes.is_empty() => self.read_done(turn, id, Some(payload.as_slice())),
            // A READ is asked for as one range: it is a hole or it is not.
            StreamOutcome::Contents {
                holes, payload: None, ..
            } if !holes.is_empty() => {
                let length = self.requests.get(id).map_or(0, |request| request.length);
                self.read_done(turn, id, Some(&vec![0; length as usize]));
            }
            _ => self.read_done(turn, id, None),
        }
    }

    /// The connection is gone: ask elsewhere.
    pub(super) fn reads_lost(&mut self, turn: &mut Turn, peer: PeerIndex, connection: ConnectionId) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        let asked = std::mem::take(&mut mirror.remote.asked);
        let (lost, kept) = asked
            .into_iter()
            .partition(|&(_, to, on)| (to, on) == (peer, connection));
        mirror.remote.asked = kept;
        let lost: Vec<(u32, PeerIndex, ConnectionId)> = lost;
        for (id, ..) in lost {
            self.read(turn, id);
        }
    }

    fn read_remote(&mut self, turn: &mut Turn, id: u32, way: (PeerIndex, ConnectionId), range: ByteRange) {
        let (peer, connection) = way;
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        mirror.remote.asked.push((id, peer, connection));
        if mirror.has_stream(peer, connection) {
            return self.put_outward(way, Request::Read { range }, StreamWork::Read(id));
        }
        match mirror.link(peer, connection) {
            Some(link) => link.ask(turn, LinkWork::Read(id), Action::Read, range.offset..range.end()),
            None => self.read_done(turn, id, None),
        }
    }

    fn read_done(&mut self, turn: &mut Turn, id: u32, data: Option<&[u8]>) {
        let Machinery::Mirror(mirror) = &mut self.machinery else {
            return;
        };
        if !mirror.remote.take(id) {
            return;
        }
        let length = self.requests.get(id).map_or(0, |request| request.length);
        let outcome = match data.filter(|data| data.len() == length as usize) {
            Some(data) => {
                let mut buffer = turn.driver.pool().take(data.len());
                buffer.as_mut_slice().copy_from_slice(data);
                Ok(Some(buffer))
            }
            None => Err(LOCAL_IO),
        };
        self.end(id, outcome);
    }
}
