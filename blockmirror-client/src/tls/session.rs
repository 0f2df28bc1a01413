//! A TLS connection whose handshake is over, as bytes in and bytes out: [`Session`].

use std::fmt;
use std::io::{self, IoSlice, Read as _, Write};
use std::ops::Range;

use rustls::Connection;

use super::fault::TlsFault;

/// Bytes of data sealed at once, at most.
pub const SEAL_MAX: usize = 256 << 10;
/// Bytes of data in one record, at most (RFC 8446 section 5.1).
pub(super) const FRAGMENT_MAX: usize = 16 << 10;
/// Bytes a record has beside its data, at most: header, explicit nonce, type and tag of the ciphers we have.
const OVERHEAD_MAX: usize = 32;
/// Bytes of what rustls may send before data: alerts and changes of keys.
const ASIDE_MAX: usize = 4 << 10;

/// Both directions of a TLS connection after its handshake, without I/O.
///
/// Records, keys, their changes and alerts are rustls'. It copies what is received to memory of its own, a record at
/// most, and keeps there what a caller has not read of it; for every record it allocates a vector, in either direction,
/// and copies out of it. At one time it holds [`SEAL_MAX`] bytes that are sealed.
///
/// Received bytes lie in memory of the caller until rustls takes them; the session knows which are left.
pub struct Session {
    tls: Connection,
    /// What rustls has not taken yet of the caller's memory.
    sealed: Range<usize>,
    /// The other side has said that nothing more comes.
    closed: bool,
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

impl Session {
    /// A connection whose handshake is over.
    pub(super) fn new(mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(SEAL_MAX));
        Self {
            tls,
            sealed: 0..0,
            closed: false,
        }
    }

    /// The version and the cipher, in words.
    pub fn describe(&self) -> String {
        let suite = self.tls.negotiated_cipher_suite().map(|suite| suite.suite());
        match (self.tls.protocol_version(), suite) {
            (Some(version), Some(suite)) => format!("{version:?}, {suite:?}"),
            _ => "TLS".to_owned(),
        }
    }

    /// `count` bytes were received to the beginning of the caller's memory, after a read that was starved.
    pub fn received(&mut self, count: usize) {
        debug_assert!(self.sealed.is_empty(), "what was received before has been taken");
        self.sealed = 0..count;
    }

    /// Move plaintext to `into`, opening records out of the caller's `memory` as they are needed. With an empty `into`
    /// nothing is read.
    ///
    /// # Errors
    /// What is wrong with what was received; what came before it is read first.
    pub fn read(&mut self, memory: &[u8], into: &mut [u8]) -> Result<Read, TlsFault> {
        let mut count = 0;
        loop {
            count += self.take_opened(&mut into[count..])?;
            if count == into.len() {
                return Ok(Read::Bytes(count));
            }
            match self.tls.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => continue,
                Ok(state) => self.closed |= state.peer_has_closed(),
                // What came before the fault is good; rustls tells the fault again.
                Err(fault) => {
                    count += self.take_opened(&mut into[count..])?;
                    if count == 0 {
                        return Err(fault.into());
                    }
                    break;
                }
            }
            if self.closed || self.sealed.is_empty() {
                break;
            }
            self.take_sealed(memory)?;
        }
        Ok(match count {
            0 if self.closed => Read::Closed,
            0 => Read::Starved,
            count => Read::Bytes(count),
        })
    }

    /// Plaintext that was opened before.
    fn take_opened(&mut self, into: &mut [u8]) -> Result<usize, TlsFault> {
        match self.tls.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => Ok(read?),
        }
    }

    /// Give rustls some of what was received: as much as it wants at once, less than a record.
    fn take_sealed(&mut self, memory: &[u8]) -> Result<(), TlsFault> {
        let taken = self.tls.read_tls(&mut &memory[self.sealed.clone()])?;
        if taken == 0 {
            return Err(TlsFault::NotTls);
        }
        self.sealed.start += taken;
        Ok(())
    }

    /// The connection has ended below: an orderly end if the other side has said so before.
    ///
    /// # Errors
    /// It was cut.
    pub fn ended(&self) -> Result<(), TlsFault> {
        if self.closed { Ok(()) } else { Err(TlsFault::Cut) }
    }

    /// Bytes that `length` bytes of data become, at most, with what goes before them.
    pub fn sealed_bytes(length: usize) -> usize {
        length + (length.div_ceil(FRAGMENT_MAX) + 1) * OVERHEAD_MAX + ASIDE_MAX
    }

    /// Seal `data` into `out`, which has room for [`sealed_bytes`](Self::sealed_bytes); how many bytes of it: up to
    /// [`SEAL_MAX`], with a change of keys before them a few less.
    ///
    /// # Errors
    /// The connection is broken, or its keys have sealed all they may.
    pub fn seal(&mut self, data: &[IoSlice<'_>], out: &mut dyn Write) -> Result<usize, TlsFault> {
        let length = self.tls.writer().write_vectored(data)?;
        // rustls says goodbye instead of sealing more with worn keys.
        if self.take_outgoing(out)? < length {
            return Err(TlsFault::Worn);
        }
        Ok(length)
    }

    /// Say that nothing more comes. Once only: nothing is written the second time.
    ///
    /// # Errors
    /// `out` has not enough room: it needs [`sealed_bytes`](Self::sealed_bytes) of nothing.
    pub fn seal_close(&mut self, out: &mut dyn Write) -> Result<(), TlsFault> {
        self.tls.send_close_notify();
        self.take_outgoing(out).map(|_| ())
    }

    fn take_outgoing(&mut self, out: &mut dyn Write) -> Result<usize, TlsFault> {
        let mut written = 0;
        while self.tls.wants_write() {
            match self.tls.write_tls(out)? {
                0 => return Err(TlsFault::Io(io::ErrorKind::WriteZero.into())),
                count => written += count,
            }
        }
        Ok(written)
    }
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
        self.tls.refresh_traffic_keys()?;
        let mut wire = Vec::new();
        self.take_outgoing(&mut wire)?;
        Ok(wire)
    }
}
