//! A TLS connection as bytes in and bytes out: [`Session`].

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, Read as _};
use std::ops::Range;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Error, InvalidMessage};

use super::begun::{self, Begun};
use super::fault::TlsFault;
use super::kernel::Handover;
use super::machine::{Look, Machine, Words};
use super::pieces::Pieces;

/// Bytes of data sealed at once, at most.
pub const SEAL_MAX: usize = 256 << 10;
/// Bytes of data in one record, at most (RFC 8446 section 5.1).
pub const FRAGMENT_MAX: usize = 16 << 10;
/// Bytes a record has beside its data, at most: header, explicit nonce, type and tag of the ciphers we have.
const OVERHEAD_MAX: usize = 32;
/// Bytes of what rustls may send before data: alerts and changes of keys.
const ASIDE_MAX: usize = 4 << 10;

/// Both directions of a TLS connection, without I/O.
///
/// Records, keys, their changes and alerts are rustls'. It opens a record where it was received and hands it over as a
/// vector, which is copied to the reader; it seals one into a vector, which is copied to the sender: one at a time.
///
/// What was received lies in memory of the caller. Kept here are a record whose end has not come, and what a reader had
/// no room for of another.
pub struct Session {
    tls: Machine,
    /// What has not been opened of the caller's memory.
    sealed: Range<usize>,
    begun: Begun,
    /// Data that nobody has read.
    opened: VecDeque<u8>,
    /// Messages of rustls, sealed, that nobody has sent.
    outgoing: Vec<u8>,
    /// The other side has said that nothing more comes.
    closed: bool,
    /// What is wrong: nothing is opened or sealed any more.
    fault: Option<Error>,
    /// The secrets may leave rustls.
    may_leave: bool,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// More has to be received: nothing in the caller's memory is needed any more.
    Starved,
    /// The other side has closed in order: this was all.
    Closed,
}

/// What sealing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes of data that were sealed.
    pub data: usize,
    /// Bytes they became.
    pub bytes: usize,
}

impl Session {
    /// A connection whose handshake is to begin. `may_leave`: its secrets may leave rustls.
    pub(super) fn new(tls: Machine, may_leave: bool) -> Self {
        Self {
            tls,
            sealed: 0..0,
            begun: Begun::default(),
            opened: VecDeque::new(),
            outgoing: Vec::new(),
            closed: false,
            fault: None,
            may_leave,
        }
    }

    /// Go on with the handshake. All that was received is taken, also data behind its end.
    pub(super) fn shake_hands(&mut self, received: &mut [u8]) -> Result<(), TlsFault> {
        self.received(received.len());
        while let Look::Again | Look::Data(_) = self.open(received, &mut [])? {}
        Ok(())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.state().is_handshaking()
    }

    /// What rustls wants to be sent.
    pub(super) fn outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// What the other side has shown.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.state().peer_certificates()?.first()
    }

    /// The version and the cipher, in words.
    pub fn describe(&self) -> String {
        let state = self.tls.state();
        let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
        match (state.protocol_version(), suite) {
            (Some(version), Some(suite)) => format!("{version:?}, {suite:?}"),
            _ => "TLS".to_owned(),
        }
    }

    /// Whether the kernel can go on with it: if that was wanted at the handshake ([`for_kernel`](super::for_kernel)), in
    /// TLS 1.3 (1.2 cannot change keys), with AES, and with nothing half done.
    pub fn is_for_kernel(&self) -> bool {
        let suite = self.tls.state().negotiated_cipher_suite().map(|suite| suite.suite());
        let has_aes = matches!(
            suite,
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_AES_256_GCM_SHA384)
        );
        let is_between = self.begun.is_empty() && self.sealed.is_empty() && self.opened.is_empty();
        self.may_leave && has_aes && is_between && !self.closed && self.fault.is_none()
    }

    /// Leave it to the kernel, when it [is for it](Self::is_for_kernel).
    ///
    /// # Errors
    /// It is not.
    pub fn into_kernel(self) -> Result<Handover, TlsFault> {
        Ok(self.tls.into_kernel(self.outgoing)?)
    }

    /// `count` bytes were received to the beginning of the caller's memory, after a read that was starved.
    pub fn received(&mut self, count: usize) {
        debug_assert!(self.sealed.is_empty(), "what was received before has been taken");
        self.sealed = 0..count;
    }

    /// Move plaintext to `into`, opening records in the caller's `memory` as they are needed. With an empty `into`
    /// nothing is read.
    ///
    /// # Errors
    /// What is wrong with what was received; what came before it is read first.
    pub fn read(&mut self, memory: &mut [u8], into: &mut [u8]) -> Result<Read, TlsFault> {
        let mut count = self.take_opened(into);
        while count < into.len() {
            match self.open(memory, &mut into[count..]) {
                Ok(Look::Again) => {}
                Ok(Look::Data(more)) => count += more,
                Ok(Look::Wanting | Look::Closed) => break,
                Err(fault) if count == 0 => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(match count {
            0 if self.closed => Read::Closed,
            0 if !into.is_empty() => Read::Starved,
            count => Read::Bytes(count),
        })
    }

    fn take_opened(&mut self, into: &mut [u8]) -> usize {
        let mut count = 0;
        while let Ok(more @ 1..) = self.opened.read(&mut into[count..]) {
            count += more;
        }
        count
    }

    /// Show rustls the next record, or as much of it as has come. Data that `into` has no room for is kept.
    fn open(&mut self, memory: &mut [u8], into: &mut [u8]) -> Result<Look, TlsFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        if self.closed {
            return Ok(Look::Closed);
        }
        if self.sealed.is_empty() {
            // The memory may be another one now.
            self.sealed = 0..0;
        }
        let looked = if self.begun.is_empty() {
            self.open_there(&mut memory[self.sealed.clone()], into)
        } else {
            self.open_begun(&memory[self.sealed.clone()], into)
        };
        match looked {
            Ok(Look::Wanting) if !self.sealed.is_empty() => Ok(Look::Again),
            Ok(Look::Closed) => {
                self.closed = true;
                // Behind the end there is nothing.
                self.sealed = 0..0;
                Ok(Look::Closed)
            }
            Ok(look) => Ok(look),
            Err(fault) => Err(self.fault.insert(fault).clone().into()),
        }
    }

    /// In the memory it was received to.
    fn open_there(&mut self, fresh: &mut [u8], into: &mut [u8]) -> Result<Look, Error> {
        let whole = begun::length(fresh).filter(|&length| length <= fresh.len());
        let end = whole.unwrap_or(fresh.len());
        let record = &mut fresh[..end];
        let (done, look) = self.tls.look(record, into, &mut self.opened, &mut self.outgoing);
        self.sealed.start += done;
        let look = look?;
        if look == Look::Wanting {
            self.sealed.start += end - done;
            self.begun.keep(&record[done..], whole.is_some());
        }
        Ok(look)
    }

    /// In memory of our own.
    fn open_begun(&mut self, fresh: &[u8], into: &mut [u8]) -> Result<Look, Error> {
        let taken = self.begun.take(fresh).ok_or(InvalidMessage::HandshakePayloadTooLarge)?;
        self.sealed.start += taken;
        let (done, look) = self
            .tls
            .look(self.begun.bytes(), into, &mut self.opened, &mut self.outgoing);
        self.begun.forget(done);
        look
    }

    /// The connection has ended below: an orderly end if the other side has said so before.
    ///
    /// # Errors
    /// It was cut.
    pub fn ended(&self) -> Result<(), TlsFault> {
        if self.closed { Ok(()) } else { Err(TlsFault::Cut) }
    }

    /// Bytes of memory to seal `length` bytes of data in: what they become, what goes before them, and room to put
    /// pieces together.
    pub fn room(length: usize) -> usize {
        length + (length.div_ceil(FRAGMENT_MAX) + 1) * OVERHEAD_MAX + ASIDE_MAX + length.min(FRAGMENT_MAX)
    }

    /// Seal `data`, up to [`SEAL_MAX`] bytes of it, to the beginning of `out`, which has [`room`](Self::room) for it.
    ///
    /// # Errors
    /// The connection is broken, or its keys have sealed all they may.
    pub fn seal(&mut self, data: &[IoSlice<'_>], out: &mut [u8]) -> Result<Sealed, TlsFault> {
        let mut pieces = Pieces::new(data, SEAL_MAX);
        let length = pieces.left;
        let middle = out.len().checked_sub(length.min(FRAGMENT_MAX)).ok_or_else(no_room)?;
        let (out, room) = out.split_at_mut(middle);
        let mut bytes = 0;
        while pieces.left > 0 {
            bytes += self.say(Words::Data(pieces.take(room)), &mut out[bytes..])?;
        }
        Ok(Sealed { data: length, bytes })
    }

    /// Say that nothing more comes; how many bytes of `out` that takes, none the second time. After a fault the other side
    /// is told what it was instead.
    ///
    /// # Errors
    /// `out` has not enough [`room`](Self::room) for nothing.
    pub fn seal_close(&mut self, out: &mut [u8]) -> Result<usize, TlsFault> {
        if self.fault.is_some() {
            return self.take_outgoing(out);
        }
        self.say(Words::Goodbye, out)
    }

    fn say(&mut self, words: Words<'_>, out: &mut [u8]) -> Result<usize, TlsFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        let mut bytes = 0;
        loop {
            bytes += self.take_outgoing(&mut out[bytes..])?;
            let begun = self.begun.bytes();
            if let Some(count) = self.tls.seal(words, begun, &mut out[bytes..], &mut self.outgoing)? {
                return Ok(bytes + count);
            }
        }
    }

    fn take_outgoing(&mut self, out: &mut [u8]) -> Result<usize, TlsFault> {
        let count = self.outgoing.len();
        out.get_mut(..count)
            .ok_or_else(no_room)?
            .copy_from_slice(&self.outgoing);
        self.outgoing.clear();
        Ok(count)
    }
}

fn no_room() -> TlsFault {
    TlsFault::Io(io::ErrorKind::WriteZero.into())
}

impl fmt::Debug for Session {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("tls", &self.describe())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Session {
    /// A change of keys of ours that asks for one of theirs.
    pub(super) fn ask_for_keys(&mut self) -> Result<Vec<u8>, TlsFault> {
        self.tls
            .seal(Words::AskForKeys, self.begun.bytes(), &mut [], &mut self.outgoing)?;
        let mut wire = vec![0; Self::room(0)];
        let length = self.say(Words::Data(&[]), &mut wire)?;
        wire.truncate(length);
        Ok(wire)
    }
}
