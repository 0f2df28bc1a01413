//! What is asked of a peer, split into the requests the peer takes.

use std::fmt;
use std::ops::Range;

use mirror_core::event::{CopyId, Mutation, MutationKind, RequestId};
use nbd_proto::{Command, NbdError};

use blockmirror_client::pipeline::Limits;

use crate::ring::Payload;

/// Longest WRITE_ZEROES asked of a peer, bytes, unless it is fast: it has to be answered within the request timeout.
const ZERO_BYTES: u64 = 64 << 20;
/// Longest WRITE of zeroes to a peer without WRITE_ZEROES, bytes; the size of the payload they share.
pub(super) const ZERO_PAYLOAD_BYTES: usize = 1 << 20;

/// Why something is asked of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkWork {
    /// A host mutation.
    Mutation(RequestId),
    /// The mirror's flush.
    Flush,
    /// A piece of a resync request.
    Copy {
        /// Its place in the table of pieces.
        piece: u32,
        /// The resync request; tells a piece from a later one in the same place.
        copy: CopyId,
    },
    /// A host's READ that this node cannot serve itself; the request.
    Read(u32),
}

/// An answer of a peer.
#[derive(Debug)]
pub(crate) struct LinkDone {
    pub(crate) work: LinkWork,
    /// The bytes of a READ, or what the peer said was wrong.
    pub(crate) outcome: Result<Option<Vec<u8>>, PeerError>,
}

/// An error a peer answered.
#[derive(Clone, Debug)]
pub(crate) struct PeerError {
    pub(crate) error: NbdError,
    pub(crate) message: Option<String>,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer answered {:?}", self.error)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// What is done to the range.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Write { payload: Payload, fua: bool },
    Zero { no_hole: bool, fua: bool },
    Read,
    Flush,
}

impl Action {
    /// A mutation as peers take it: both legs have to read the same afterwards, so TRIM is zeroing that may punch; a
    /// peer's own TRIM leaves the contents undefined.
    pub(crate) fn of(mutation: &Mutation, payload: Option<Payload>) -> Option<Self> {
        let fua = mutation.fua;
        Some(match mutation.kind {
            MutationKind::Write => Self::Write { payload: payload?, fua },
            MutationKind::Zero { no_hole } => Self::Zero { no_hole, fua },
            MutationKind::Trim => Self::Zero { no_hole: false, fua },
        })
    }
}

/// Something asked of a peer, from the first of its requests to the last answer.
#[derive(Debug)]
pub(super) struct LinkOp {
    pub(super) work: LinkWork,
    action: Action,
    start: u64,
    end: u64,
    cursor: u64,
    in_flight: u32,
    fast: Fast,
    /// A FLUSH is to follow, for the peer has no FUA.
    then_flush: bool,
    pub(super) failed: Option<PeerError>,
    pub(super) data: Option<Vec<u8>>,
}

/// Whether zeroing is asked for with FAST_ZERO: in as few requests as possible, which are refused where they would take
/// their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fast {
    No,
    Yes,
    /// The peer refuses: all over again without it, once all answers are there.
    Refused,
}

/// One request to a peer.
pub(super) struct Piece {
    pub(super) command: Command,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// What follows the header.
    pub(super) payload: Option<PiecePayload>,
}

/// The payload of a WRITE.
pub(super) enum PiecePayload {
    Data(Payload),
    /// Zeroes, from the payload shared by all.
    Zeroes,
}

impl LinkOp {
    pub(super) fn new(work: LinkWork, action: Action, range: Range<u64>, limits: &Limits) -> Self {
        let wants_fua = matches!(action, Action::Write { fua: true, .. } | Action::Zero { fua: true, .. });
        // A flush has one request and no range; a range of one byte makes it one piece.
        let range = if matches!(action, Action::Flush) { 0..1 } else { range };
        let is_long = range.end - range.start > ZERO_BYTES;
        let fast = match action {
            Action::Zero { .. } if is_long && limits.can_zero_fast() => Fast::Yes,
            _ => Fast::No,
        };
        Self {
            work,
            action,
            start: range.start,
            end: range.end,
            cursor: range.start,
            in_flight: 0,
            fast,
            then_flush: wants_fua && !limits.can_fua(),
            failed: None,
            data: None,
        }
    }

    /// All its requests have been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.cursor == self.end
    }

    /// Everything was answered.
    pub(super) fn is_over(&self) -> bool {
        self.is_sent() && self.in_flight == 0
    }

    /// The next request; `is_sent` is false.
    pub(super) fn next_piece(&mut self, limits: &Limits) -> Piece {
        let left = self.end - self.cursor;
        let whole_blocks = limits.maximum_payload - limits.maximum_payload % limits.minimum_block;
        let fua_of = |fua: bool| fua && limits.can_fua();
        let (command, longest) = match &self.action {
            Action::Write { fua, .. } => (Command::Write { fua: fua_of(*fua) }, u64::from(whole_blocks)),
            Action::Zero { no_hole, fua } if limits.can_zero() => {
                let fast = self.fast == Fast::Yes;
                let command = Command::WriteZeroes {
                    fast,
                    fua: fua_of(*fua),
                    no_hole: *no_hole,
                };
                (command, if fast { limits.longest_effect() } else { ZERO_BYTES })
            }
            Action::Zero { fua, .. } => (
                Command::Write { fua: fua_of(*fua) },
                u64::from(whole_blocks).min(ZERO_PAYLOAD_BYTES as u64),
            ),
            Action::Read => (Command::Read { df: false }, u64::from(whole_blocks)),
            Action::Flush => (Command::Flush, 1),
        };
        let (offset, length) = (self.cursor, left.min(longest));
        self.cursor += length;
        self.in_flight += 1;
        let payload = match (&self.action, command) {
            (Action::Write { payload, .. }, _) => {
                let at = (offset - self.start) as usize;
                Some(PiecePayload::Data(payload.slice(at..at + length as usize)))
            }
            (_, Command::Write { .. }) => Some(PiecePayload::Zeroes),
            _ => None,
        };
        Piece {
            command,
            offset,
            length,
            payload,
        }
    }

    /// One of its requests was answered.
    pub(super) fn answered(&mut self, outcome: Result<Option<Vec<u8>>, PeerError>) {
        self.in_flight -= 1;
        match outcome {
            // A READ is asked for as one request; of several answers only a part would be looked at.
            Ok(Some(_)) if self.data.is_some() => self.fail(PeerError {
                error: NbdError::Invalid,
                message: Some("a READ was longer than the peer answers at once".to_owned()),
            }),
            Ok(Some(data)) => self.data = Some(data),
            Ok(None) => {}
            Err(PeerError {
                error: NbdError::NotSupported,
                ..
            }) if self.fast != Fast::No => {
                self.fast = Fast::Refused;
                self.cursor = self.end;
            }
            Err(error) => self.fail(error),
        }
    }

    /// Send no more of it.
    pub(super) fn fail(&mut self, error: PeerError) {
        self.failed.get_or_insert(error);
        self.cursor = self.end;
    }

    /// Begin again without FAST_ZERO, which changed nothing where it was refused. False: there is no need.
    pub(super) fn turn_to_slow(&mut self) -> bool {
        if self.fast != Fast::Refused || self.failed.is_some() {
            return false;
        }
        self.fast = Fast::No;
        self.cursor = self.start;
        true
    }

    /// Turn into the FLUSH that stands for FUA. False: none is needed.
    pub(super) fn turn_to_flush(&mut self) -> bool {
        if !self.then_flush || self.failed.is_some() {
            return false;
        }
        self.then_flush = false;
        self.action = Action::Flush;
        (self.start, self.cursor, self.end) = (0, 0, 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nbd_proto::client::Negotiated;
    use nbd_proto::{ReplyStyle, TransmissionFlags};

    const TIB: u64 = 1 << 40;

    fn limits(replies: ReplyStyle, fast: bool) -> Limits {
        let mut flags = TransmissionFlags::all() - TransmissionFlags::READ_ONLY;
        flags.set(TransmissionFlags::SEND_FAST_ZERO, fast);
        Limits::new(&Negotiated {
            size: TIB,
            flags,
            block_sizes: None,
            replies,
            contexts: Vec::new(),
            name: None,
            description: None,
        })
    }

    fn zeroing(limits: &Limits, length: u64) -> LinkOp {
        let action = Action::Zero {
            no_hole: false,
            fua: false,
        };
        LinkOp::new(LinkWork::Flush, action, 0..length, limits)
    }

    /// The rest of its requests: whether each is fast, and its length.
    fn requests(op: &mut LinkOp, limits: &Limits) -> Vec<(bool, u64)> {
        let mut requests = Vec::new();
        while !op.is_sent() {
            let piece = op.next_piece(limits);
            assert!(limits.check(piece.command, piece.offset, piece.length).is_ok());
            let fast = matches!(piece.command, Command::WriteZeroes { fast: true, .. });
            requests.push((fast, piece.length));
        }
        requests
    }

    fn refused(error: NbdError) -> Result<Option<Vec<u8>>, PeerError> {
        Err(PeerError { error, message: None })
    }

    #[test]
    fn a_terabyte_of_zeroes_is_one_request_where_the_peer_can() {
        let extended = limits(ReplyStyle::Extended, true);
        assert_eq!(requests(&mut zeroing(&extended, TIB), &extended), [(true, TIB)]);
        let compact = limits(ReplyStyle::Structured, true);
        let asked = requests(&mut zeroing(&compact, TIB), &compact);
        assert_eq!((asked.len(), asked[0]), (1024, (true, 1 << 30)));
        // What is short is done whether it is fast or not, in one request at that.
        assert_eq!(
            requests(&mut zeroing(&extended, ZERO_BYTES), &extended),
            [(false, ZERO_BYTES)]
        );
        let slow = limits(ReplyStyle::Extended, false);
        let asked = requests(&mut zeroing(&slow, TIB), &slow);
        assert_eq!((asked.len() as u64, asked[0]), (TIB / ZERO_BYTES, (false, ZERO_BYTES)));
    }

    #[test]
    fn what_is_not_fast_is_asked_again_when_all_answers_are_there() {
        let limits = limits(ReplyStyle::Structured, true);
        let mut op = zeroing(&limits, 3 << 30);
        op.next_piece(&limits);
        op.next_piece(&limits);
        op.answered(refused(NbdError::NotSupported));
        assert!(op.is_sent() && !op.is_over(), "an answer is missing");
        op.answered(Ok(None));
        assert!(op.is_over() && op.turn_to_slow());
        let asked = requests(&mut op, &limits);
        let all = vec![(false, ZERO_BYTES); (3 << 30) / ZERO_BYTES as usize];
        assert_eq!(asked, all, "from the beginning");
        // Once is enough: now it is an error like any other.
        op.answered(refused(NbdError::NotSupported));
        assert!(op.failed.is_some() && !op.turn_to_slow());
    }

    #[test]
    fn another_error_of_fast_zeroing_is_an_error() {
        let limits = limits(ReplyStyle::Extended, true);
        let mut op = zeroing(&limits, TIB);
        op.next_piece(&limits);
        op.answered(refused(NbdError::NoSpace));
        assert!(op.is_over() && op.failed.is_some() && !op.turn_to_slow());
    }
}
