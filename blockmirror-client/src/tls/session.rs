//! A TLS connection whose handshake is over, as bytes in and bytes out: [`Session`].

use std::fmt;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion};

use super::fault::TlsFault;
use super::record::{self, FRAGMENT_MAX, Keys, kind};

/// Bytes of memory a session needs to receive at all.
pub const INTAKE_MIN: usize = record::RECORD_MAX;
/// Records without data that are taken one after another.
const IDLE_RECORDS_MAX: u32 = 32;
/// Bytes of a handshake message behind the handshake, at most: a ticket.
const MESSAGE_MAX: usize = 64 << 10;
/// Bytes of an alert, and of a message that changes keys.
const ALERT_BYTES: usize = 2;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const CLOSE_NOTIFY: [u8; ALERT_BYTES] = [1, 0];
const USER_CANCELED: u8 = 90;
const KEY_UPDATE_TYPE: u8 = 24;
const TICKET_TYPE: u8 = 4;
const MESSAGE_HEADER: usize = 4;

/// Both directions of a TLS connection after its handshake, without I/O.
///
/// Received bytes lie in memory of the caller, whose use the session keeps account of: `[..opened]` was consumed,
/// `opened` is plaintext not yet read, and what follows up to the end is still sealed. See [`Session::read`].
pub struct Session {
    sealing: Keys,
    opening: Keys,
    version: ProtocolVersion,
    kernel: Kernel,
    /// Plaintext in the caller's memory.
    opened: Range<usize>,
    /// The first sealed byte there, and the end of them.
    sealed: Range<usize>,
    /// The other side has said that nothing more comes.
    closed: bool,
    close_sent: bool,
    /// The other side wants us to change keys.
    update_owed: bool,
    idle_records: u32,
    /// A handshake message that came in pieces.
    message: Vec<u8>,
    /// What was wrong behind the plaintext that was read last.
    fault: Option<TlsFault>,
    /// Something was wrong: nothing is opened any more.
    broken: bool,
}

/// rustls' part: it knows how keys change.
enum Kernel {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// More has to be received.
    Starved,
    /// The other side has closed in order: this was all.
    Closed,
}

impl Session {
    /// Our end as the server.
    pub(super) fn server(
        secrets: ExtractedSecrets,
        kernel: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, TlsFault> {
        Self::new(secrets, kernel.protocol_version(), Kernel::Server(kernel))
    }

    /// Our end as the client.
    pub(super) fn client(
        secrets: ExtractedSecrets,
        kernel: KernelConnection<ClientConnectionData>,
    ) -> Result<Self, TlsFault> {
        Self::new(secrets, kernel.protocol_version(), Kernel::Client(kernel))
    }

    fn new(secrets: ExtractedSecrets, version: ProtocolVersion, kernel: Kernel) -> Result<Self, TlsFault> {
        Ok(Self {
            sealing: Keys::new(version, secrets.tx)?,
            opening: Keys::new(version, secrets.rx)?,
            version,
            kernel,
            opened: 0..0,
            sealed: 0..0,
            closed: false,
            close_sent: false,
            update_owed: false,
            idle_records: 0,
            message: Vec::new(),
            fault: None,
            broken: false,
        })
    }

    /// The version and the cipher, in words.
    pub fn describe(&self) -> String {
        let suite = match &self.kernel {
            Kernel::Server(kernel) => kernel.negotiated_cipher_suite(),
            Kernel::Client(kernel) => kernel.negotiated_cipher_suite(),
        };
        format!("{:?}, {:?}", self.version, suite.suite())
    }

    /// Whether plaintext or a sealed byte waits in the caller's memory.
    pub fn holds_bytes(&self) -> bool {
        !self.opened.is_empty() || !self.sealed.is_empty()
    }

    /// What waits was copied to the front of other memory: all the bytes from the first that is still needed, in
    /// `memory`, are now at its beginning. Returns where the next received byte goes.
    pub fn make_room(&mut self, memory: &mut [u8]) -> usize {
        let from = if self.opened.is_empty() {
            self.sealed.start
        } else {
            self.opened.start
        };
        if from > 0 {
            memory.copy_within(from..self.sealed.end, 0);
            self.shift(from);
        }
        self.sealed.end
    }

    /// The bytes of `memory` that are still needed.
    pub fn held<'a>(&self, memory: &'a [u8]) -> &'a [u8] {
        let from = if self.opened.is_empty() {
            self.sealed.start
        } else {
            self.opened.start
        };
        &memory[from..self.sealed.end]
    }

    /// The [`held`](Self::held) bytes lie at the beginning of new memory.
    pub fn moved(&mut self) {
        let from = if self.opened.is_empty() {
            self.sealed.start
        } else {
            self.opened.start
        };
        self.shift(from);
    }

    /// `count` more bytes were received behind those that are there.
    pub fn received(&mut self, count: usize) {
        self.sealed.end += count;
    }

    fn shift(&mut self, by: usize) {
        if self.opened.is_empty() {
            self.opened = 0..0;
        } else {
            self.opened = self.opened.start - by..self.opened.end - by;
        }
        self.sealed = self.sealed.start - by..self.sealed.end - by;
    }

    /// Move plaintext to `into`, opening records as they are needed. With an empty `into` nothing is read.
    pub fn read(&mut self, memory: &mut [u8], into: &mut [u8]) -> Result<Read, TlsFault> {
        let mut count = 0;
        while count < into.len() {
            if self.opened.is_empty() {
                match self.open_next(memory) {
                    Ok(true) => continue,
                    Ok(false) => break,
                    // What came before the fault is good.
                    Err(fault) if count > 0 => {
                        self.fault = Some(fault);
                        break;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            let length = self.opened.len().min(into.len() - count);
            let from = self.opened.start;
            into[count..count + length].copy_from_slice(&memory[from..from + length]);
            self.opened.start += length;
            count += length;
        }
        if count > 0 || into.is_empty() {
            return Ok(Read::Bytes(count));
        }
        Ok(if self.closed { Read::Closed } else { Read::Starved })
    }

    /// The connection has ended below: an orderly end if the other side has said so before.
    pub fn ended(&self) -> Result<(), TlsFault> {
        if self.closed { Ok(()) } else { Err(TlsFault::Cut) }
    }

    /// Open one record. False: none is there, or none is taken any more.
    fn open_next(&mut self, memory: &mut [u8]) -> Result<bool, TlsFault> {
        if self.closed {
            return Ok(false);
        }
        if self.broken {
            return Err(self.fault.take().unwrap_or(TlsFault::Damaged));
        }
        let opened = self.open_record(memory);
        self.broken = opened.is_err();
        opened
    }

    fn open_record(&mut self, memory: &mut [u8]) -> Result<bool, TlsFault> {
        let sealed = &mut memory[self.sealed.clone()];
        let Some(length) = record::length_of(sealed)?.filter(|length| *length <= sealed.len()) else {
            return Ok(false);
        };
        let (kind, plaintext) = self.opening.open(&mut sealed[..length])?;
        let start = self.sealed.start;
        self.sealed.start += length;
        let at = start + plaintext.start..start + plaintext.end;
        if kind == kind::DATA && !at.is_empty() {
            self.idle_records = 0;
            self.opened = at;
            return Ok(true);
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(TlsFault::Idle);
        }
        match kind {
            kind::DATA => {}
            kind::ALERT => self.take_alert(&memory[at])?,
            kind::HANDSHAKE => self.take_messages(&memory[at])?,
            other => return Err(TlsFault::Unexpected(other)),
        }
        Ok(true)
    }

    fn take_alert(&mut self, alert: &[u8]) -> Result<(), TlsFault> {
        match *alert {
            [_, 0] => self.closed = true,
            [_, USER_CANCELED] => {}
            [_, other] => return Err(TlsFault::Alert(other)),
            _ => return Err(TlsFault::Damaged),
        }
        Ok(())
    }

    /// Handshake messages behind the handshake: tickets, which are not used, and changes of keys.
    fn take_messages(&mut self, bytes: &[u8]) -> Result<(), TlsFault> {
        if self.version != ProtocolVersion::TLSv1_3 {
            return Err(TlsFault::UnexpectedHandshake(
                bytes.first().copied().unwrap_or_default(),
            ));
        }
        self.message.extend_from_slice(bytes);
        while let Some(header) = self.message.first_chunk::<MESSAGE_HEADER>() {
            let length = MESSAGE_HEADER + u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if length > MESSAGE_MAX {
                return Err(TlsFault::TooLong);
            }
            let kind = header[0];
            if self.message.len() < length {
                break;
            }
            let last = self.message.get(MESSAGE_HEADER).copied();
            let alone = self.message.len() == length;
            match (kind, &self.kernel) {
                (KEY_UPDATE_TYPE, _) if alone && length == KEY_UPDATE.len() => {
                    self.update_owed |= last == Some(1);
                    self.opening = self.next_keys(true)?;
                }
                (TICKET_TYPE, Kernel::Client(_)) => {}
                (other, _) => return Err(TlsFault::UnexpectedHandshake(other)),
            }
            self.message.drain(..length);
        }
        Ok(())
    }

    fn next_keys(&mut self, opening: bool) -> Result<Keys, TlsFault> {
        let next: Result<(u64, ConnectionTrafficSecrets), rustls::Error> = match (&mut self.kernel, opening) {
            (Kernel::Server(kernel), true) => kernel.update_rx_secret(),
            (Kernel::Server(kernel), false) => kernel.update_tx_secret(),
            (Kernel::Client(kernel), true) => kernel.update_rx_secret(),
            (Kernel::Client(kernel), false) => kernel.update_tx_secret(),
        };
        Keys::new(self.version, next?)
    }

    /// Bytes that `length` bytes of data become, at most: with a change of keys before them.
    pub fn sealed_bytes(&self, length: usize) -> usize {
        let records = length.div_ceil(FRAGMENT_MAX);
        let overhead = self.sealing.sealed_bytes(0);
        length + (records + 1) * overhead + KEY_UPDATE.len()
    }

    /// Seal the next `length` bytes of data: `fill` is asked for them piece by piece, in order. Returns the bytes
    /// written to `out`, which has room for [`sealed_bytes`](Self::sealed_bytes).
    pub fn seal(&mut self, length: usize, out: &mut [u8], mut fill: impl FnMut(&mut [u8])) -> Result<usize, TlsFault> {
        let mut written = self.change_keys(out)?;
        let mut left = length;
        while left > 0 {
            let piece = left.min(FRAGMENT_MAX);
            let (at, total) = (self.sealing.plaintext_at(), self.sealing.sealed_bytes(piece));
            let record = &mut out[written..written + total];
            fill(&mut record[at..at + piece]);
            self.sealing.seal(kind::DATA, piece, record)?;
            written += total;
            left -= piece;
        }
        Ok(written)
    }

    /// Say that nothing more comes; bytes written to `out`. Once only: nothing the second time, and `out` has to have
    /// room for [`sealed_bytes`](Self::sealed_bytes) of nothing.
    pub fn seal_close(&mut self, out: &mut [u8]) -> Result<usize, TlsFault> {
        if std::mem::replace(&mut self.close_sent, true) {
            return Ok(0);
        }
        self.seal_small(kind::ALERT, &CLOSE_NOTIFY, out)
    }

    /// Change our keys before the next data, when that is due.
    fn change_keys(&mut self, out: &mut [u8]) -> Result<usize, TlsFault> {
        let worn = self.sealing.are_worn();
        if worn && self.version != ProtocolVersion::TLSv1_3 {
            return Err(TlsFault::Worn);
        }
        if !worn && !self.update_owed {
            return Ok(0);
        }
        self.update_owed = false;
        let written = self.seal_small(kind::HANDSHAKE, &KEY_UPDATE, out)?;
        self.sealing = self.next_keys(false)?;
        Ok(written)
    }

    fn seal_small(&mut self, kind: u8, bytes: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        let (at, total) = (self.sealing.plaintext_at(), self.sealing.sealed_bytes(bytes.len()));
        let record = &mut out[..total];
        record[at..at + bytes.len()].copy_from_slice(bytes);
        self.sealing.seal(kind, bytes.len(), record)?;
        Ok(total)
    }
}

impl fmt::Debug for Session {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Session {
    /// As if the keys had sealed all they may.
    pub(super) fn wear_out(&mut self) {
        self.sealing.wear_out();
    }

    /// A change of keys of ours that asks for one of theirs.
    pub(super) fn ask_for_keys(&mut self) -> Vec<u8> {
        let mut request = KEY_UPDATE;
        request[MESSAGE_HEADER] = 1;
        let mut wire = vec![0; self.sealed_bytes(0)];
        let written = self
            .seal_small(kind::HANDSHAKE, &request, &mut wire)
            .unwrap_or_default();
        wire.truncate(written);
        if let Ok(keys) = self.next_keys(false) {
            self.sealing = keys;
        }
        wire
    }
}
