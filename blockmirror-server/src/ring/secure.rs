//! TLS on a socket: [`Secure`], what an operation on such a socket becomes below.
//!
//! A receive for plaintext is answered from what was received and opened before, or becomes a receive into memory of
//! our own. A send of plaintext becomes a send of sealed bytes, of which only one is under way: a record that was begun
//! has to be finished. What is copied: data to a record of rustls' and that, sealed, to the memory it is sent from; what was
//! opened where it was received, to a vector of rustls' and from there to who has asked.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blockmirror_client::tls::{Read, SEAL_MAX, Session, TlsFault};
use rustix::net::{SendFlags, send};

use super::inline::{self, Attempt};
use super::op::left;
use super::{Buffer, BufferPool, Op, Segment, Socket};

/// Bytes of memory for what was received and is still sealed.
const INTAKE_BYTES: usize = 64 << 10;
/// The same for a connection that has filled it.
const INTAKE_BUSY_BYTES: usize = 256 << 10;
/// Bytes of an alert and a close_notify that are sent at the end, at most.
const CLOSE_BYTES: usize = 128;

/// The TLS connection on a socket.
pub struct Secure {
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// Away while a receive is in flight.
    intake: Option<Buffer>,
    /// Bytes it is to have.
    intake_bytes: usize,
    /// The last receive filled it.
    was_full: bool,
    /// The receive that is in flight, as it was asked for.
    receiving: Option<(Buffer, usize)>,
    /// The send that is in flight, as it was asked for.
    sending: Option<(Vec<Segment>, usize)>,
    /// Sealed bytes that have not all been sent.
    sealed: Option<Sealed>,
    /// The vector of the last sealed send, kept for its memory.
    spare: Vec<Segment>,
}

/// Data on its way.
struct Sealed {
    /// One buffer; away while a send is in flight.
    segments: Vec<Segment>,
    length: usize,
    sent: usize,
    /// Bytes of data in it.
    data: usize,
}

/// What becomes of an operation.
#[derive(Debug)]
pub(crate) enum Next {
    /// It has ended.
    Over(io::Result<usize>, Op),
    /// This is to be done first; [`Secure::ended`] wants to know what came of it.
    Below(Op),
}

impl Secure {
    /// TLS with this session.
    pub(super) fn new(session: Session) -> Self {
        let state = State {
            session,
            intake: None,
            intake_bytes: INTAKE_BYTES,
            was_full: false,
            receiving: None,
            sending: None,
            sealed: None,
            spare: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// A receive or a send is asked for.
    pub(crate) fn begin(&self, op: Op, pool: &BufferPool) -> Next {
        let mut state = self.lock();
        match op {
            Op::Receive { socket, buffer, filled } => state.receive(socket, buffer, filled, pool),
            Op::Send { socket, segments, skip } => state.send(socket, segments, skip, pool),
            other => Next::Over(Err(io::ErrorKind::Unsupported.into()), other),
        }
    }

    /// What was to be done below has ended.
    pub(crate) fn ended(&self, result: io::Result<usize>, op: Op, pool: &BufferPool) -> Next {
        let mut state = self.lock();
        match op {
            Op::Receive { socket, buffer, .. } => state.received(result, socket, buffer, pool),
            Op::Send { socket, segments, .. } => state.sent(result, socket, segments),
            other => Next::Over(Err(io::ErrorKind::Unsupported.into()), other),
        }
    }

    /// Receive what is there, with no receive in flight. `None`: nothing is.
    pub(super) fn receive_now(&self, socket: &Socket, into: &mut [u8]) -> Option<io::Result<usize>> {
        let mut state = self.lock();
        let State {
            session,
            intake: Some(intake),
            ..
        } = &mut *state
        else {
            return None;
        };
        loop {
            match session.read(intake.as_mut_slice(), into) {
                Ok(Read::Bytes(count)) => return Some(Ok(count)),
                Ok(Read::Closed) => return Some(Ok(0)),
                Ok(Read::Starved) => {}
                Err(fault) => return Some(Err(fault.into())),
            }
            match inline::receive(socket, intake.as_mut_slice()) {
                Attempt::Done(Ok(0)) => return Some(session.ended().map(|()| 0).map_err(Into::into)),
                Attempt::Done(Ok(count)) => session.received(count),
                Attempt::Done(Err(error)) => return Some(Err(error)),
                Attempt::Blocked(_) => return None,
            }
        }
    }

    /// The other side has said that nothing more comes.
    pub(super) fn has_closed(&self) -> bool {
        self.lock().session.ended().is_ok()
    }

    /// Say that nothing more comes, unless a record is half sent. Nothing depends on its arrival.
    pub(super) fn say_goodbye(&self, socket: &Socket) {
        let mut state = self.lock();
        if state.sealed.is_some() {
            return;
        }
        let mut record = [0; CLOSE_BYTES];
        if let Ok(length) = state.session.seal_close(&mut record) {
            let _ = send(socket, &record[..length], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A session that a panic has left halfway fails its next record; it gives nothing away.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn receive(&mut self, socket: Socket, mut buffer: Buffer, filled: usize, pool: &BufferPool) -> Next {
        let received = self.intake.as_mut().map_or(&mut [][..], Buffer::as_mut_slice);
        let read = self.session.read(received, &mut buffer.as_mut_slice()[filled..]);
        let result = match read {
            Ok(Read::Starved) => {
                self.receiving = Some((buffer, filled));
                return Next::Below(Op::Receive {
                    socket,
                    buffer: self.take_intake(pool),
                    filled: 0,
                });
            }
            Ok(Read::Bytes(count)) => Ok(count),
            Ok(Read::Closed) => Ok(0),
            Err(fault) => Err(fault.into()),
        };
        Next::Over(result, Op::Receive { socket, buffer, filled })
    }

    /// Memory to receive into, of which nothing is needed any more.
    fn take_intake(&mut self, pool: &BufferPool) -> Buffer {
        let intake = self.intake.take().filter(|intake| intake.len() >= self.intake_bytes);
        intake.unwrap_or_else(|| pool.take(self.intake_bytes))
    }

    fn received(&mut self, result: io::Result<usize>, socket: Socket, intake: Buffer, pool: &BufferPool) -> Next {
        let Some((buffer, filled)) = self.receiving.take() else {
            let op = Op::Receive {
                socket,
                buffer: intake,
                filled: 0,
            };
            return Next::Over(Err(lost_track()), op);
        };
        let result = match result {
            Ok(0) => self.session.ended().map(|()| 0).map_err(Into::into),
            Ok(count) => {
                self.session.received(count);
                self.note_fullness(count == intake.len());
                self.intake = Some(intake);
                return self.receive(socket, buffer, filled, pool);
            }
            Err(error) => Err(error),
        };
        self.intake = Some(intake);
        Next::Over(result, Op::Receive { socket, buffer, filled })
    }

    /// A larger intake for who has filled the smaller one twice.
    fn note_fullness(&mut self, is_full: bool) {
        if std::mem::replace(&mut self.was_full, is_full) && is_full {
            self.intake_bytes = INTAKE_BUSY_BYTES;
        }
    }

    fn send(&mut self, socket: Socket, segments: Vec<Segment>, skip: usize, pool: &BufferPool) -> Next {
        if self.sealed.is_none() {
            match self.seal(&segments, skip, pool) {
                Ok(0) => return Next::Over(Ok(0), Op::Send { socket, segments, skip }),
                Ok(_) => {}
                Err(fault) => return Next::Over(Err(fault.into()), Op::Send { socket, segments, skip }),
            }
        }
        self.sending = Some((segments, skip));
        self.send_sealed(socket)
    }

    /// Seal what comes behind the first `skip` bytes; how much of it.
    fn seal(&mut self, segments: &[Segment], skip: usize, pool: &BufferPool) -> Result<usize, TlsFault> {
        let pieces = pieces(segments, skip)?;
        let data: usize = pieces.iter().map(|piece| piece.len()).sum();
        if data == 0 {
            return Ok(0);
        }
        let mut buffer = pool.take(Session::room(data.min(SEAL_MAX)));
        let sealed = self.session.seal(&pieces, buffer.as_mut_slice())?;
        buffer.set_len(sealed.bytes);
        let mut segments = std::mem::take(&mut self.spare);
        segments.push(Segment::Buffer(buffer));
        self.sealed = Some(Sealed {
            segments,
            length: sealed.bytes,
            sent: 0,
            data: sealed.data,
        });
        Ok(sealed.data)
    }

    fn send_sealed(&mut self, socket: Socket) -> Next {
        let (segments, skip) = match &mut self.sealed {
            Some(sealed) => (std::mem::take(&mut sealed.segments), sealed.sent),
            None => (Vec::new(), 0),
        };
        Next::Below(Op::Send { socket, segments, skip })
    }

    fn sent(&mut self, result: io::Result<usize>, socket: Socket, mut sealed_segments: Vec<Segment>) -> Next {
        let (Some((segments, skip)), Some(sealed)) = (self.sending.take(), &mut self.sealed) else {
            let op = Op::Send {
                socket,
                segments: sealed_segments,
                skip: 0,
            };
            return Next::Over(Err(lost_track()), op);
        };
        let result = match result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                sealed.sent += count;
                if sealed.sent < sealed.length {
                    sealed.segments = sealed_segments;
                    self.sending = Some((segments, skip));
                    return self.send_sealed(socket);
                }
                let data = sealed.data;
                self.sealed = None;
                sealed_segments.clear();
                self.spare = sealed_segments;
                Ok(data)
            }
            Err(error) => {
                // Whoever tries again, tries with the same data: it goes on with these bytes.
                sealed.segments = sealed_segments;
                Err(error)
            }
        };
        Next::Over(result, Op::Send { socket, segments, skip })
    }
}

/// What is behind the first `skip` bytes of the segments.
///
/// # Errors
/// Some of it is in a file.
fn pieces(segments: &[Segment], skip: usize) -> io::Result<Vec<IoSlice<'_>>> {
    let mut pieces = Vec::with_capacity(segments.len());
    for (segment, done) in left(segments, skip) {
        let bytes = segment.as_slice().ok_or(io::ErrorKind::Unsupported)?;
        pieces.push(IoSlice::new(&bytes[done..]));
    }
    Ok(pieces)
}

fn lost_track() -> io::Error {
    io::Error::other("an operation on a TLS connection ended that nobody had begun")
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").finish_non_exhaustive()
    }
}
