//! Hang-ups.
//!
//! A client that has hung up without DISC may have sent its requests again on another connection: what is received
//! from it afterwards must not be carried out (see the zombie-write rule in docs/ARCHITECTURE.md). With a DISC behind
//! them they count, for then the client wanted them done.

use nbd_proto::Request;

use super::receive::Incoming;
use super::{Connection, HangUp};
use crate::data::turn::Turn;
use crate::data::volume::Volume;

/// Bytes looked through for a DISC behind which the client has hung up.
const FAREWELL_BYTES: usize = 4 << 20;

impl Connection {
    /// False: nothing may be taken now; the connection waits for bytes, or has ended.
    pub(super) fn judge_hang_up(&mut self, volume: &mut Volume, turn: &mut Turn) -> bool {
        let nothing_to_take = match &self.incoming {
            Incoming::Header => self.staging.len() == 0,
            Incoming::Direct(_, arriving) => !arriving.is_whole(),
            Incoming::Staged(_) | Incoming::Held(..) | Incoming::Filter(_) | Incoming::Discard(_) => false,
        };
        if self.hang_up == HangUp::No && !nothing_to_take && self.socket.has_hung_up() {
            self.hang_up = HangUp::Unexplained;
        }
        if self.hang_up != HangUp::Unexplained || matches!(self.incoming, Incoming::Direct(..)) {
            return true;
        }
        match self.find_farewell() {
            Farewell::Found => {
                self.hang_up = HangUp::Farewell;
                return true;
            }
            Farewell::NotYet if self.staging.len() < FAREWELL_BYTES => {
                volume.forget(self.slot);
                self.staging.limit(None);
                self.staging.grow(turn.driver.pool(), FAREWELL_BYTES);
                self.receive(turn);
            }
            Farewell::NotYet | Farewell::Never => self.lose(volume, turn, "closed by the client without DISC"),
        }
        false
    }

    /// Walk over the requests in the staging buffer.
    fn find_farewell(&self) -> Farewell {
        let style = self.negotiated.replies;
        let mut at = match &self.incoming {
            Incoming::Header | Incoming::Held(..) | Incoming::Direct(..) => 0,
            Incoming::Staged(write) => u64::from(write.length),
            Incoming::Filter(request) => request.length,
            Incoming::Discard(left) => *left,
        };
        loop {
            let rest = usize::try_from(at).ok().and_then(|at| self.staging.bytes().get(at..));
            match Request::read(style, rest.unwrap_or_default()) {
                Ok(Some(request)) if request.command == nbd_proto::constants::command::DISCONNECT => {
                    return Farewell::Found;
                }
                Ok(Some(request)) => {
                    let whole = request
                        .payload_length(style)
                        .saturating_add(style.request_length() as u64);
                    at = at.saturating_add(whole);
                }
                Ok(None) => return Farewell::NotYet,
                Err(_) => return Farewell::Never,
            }
        }
    }
}

/// Is there a DISC among what was received?
enum Farewell {
    Found,
    NotYet,
    Never,
}
