//! Records of TLS 1.2 and 1.3 (RFC 5246 section 6.2.3.3, RFC 8446 section 5): one direction of a connection whose
//! handshake is over.
//!
//! rustls has no interface that seals into memory of ours or opens in place: it copies every record and allocates for
//! it. Keys, handshake and certificates are its; here is only what happens to every byte.

use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

use super::fault::TlsFault;

/// Bytes of the header of a record.
pub(super) const HEADER_BYTES: usize = 5;
/// Bytes of plaintext in one record, at most.
pub(super) const FRAGMENT_MAX: usize = 16 << 10;
/// Bytes a record may have beside its plaintext: RFC 8446 permits 256, RFC 5246 2048.
const OVERHEAD_MAX: usize = 2048;
/// Bytes of the longest record, with its header.
pub(super) const RECORD_MAX: usize = HEADER_BYTES + FRAGMENT_MAX + OVERHEAD_MAX;
const TAG_BYTES: usize = 16;
/// The part of the nonce that TLS 1.2 sends with every record of AES-GCM.
const EXPLICIT_BYTES: usize = 8;
/// What TLS 1.3 calls itself in the header of a record, and TLS 1.2 is.
const WIRE_VERSION: [u8; 2] = [3, 3];
/// Records sealed with one AES-GCM key, at most: half of what RFC 8446 section 5.5 allows for the longest ones.
const GCM_RECORDS_MAX: u64 = 1 << 23;

/// Types of records.
pub(super) mod kind {
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
    pub(crate) const DATA: u8 = 23;
}

/// The keys of one direction.
pub(super) struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    form: Form,
    /// Number of the next record.
    sequence: u64,
    records_max: u64,
}

/// What a record looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// TLS 1.3: its type is inside.
    Tls13,
    /// TLS 1.2 with AES-GCM: a part of the nonce is in front.
    Explicit,
    /// TLS 1.2 with ChaCha20-Poly1305.
    Implicit,
}

impl Keys {
    /// As the handshake has left them.
    pub(super) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, TlsFault> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsFault::Keys),
        };
        let is_gcm = algorithm != &CHACHA20_POLY1305;
        let form = match version {
            ProtocolVersion::TLSv1_3 => Form::Tls13,
            ProtocolVersion::TLSv1_2 if is_gcm => Form::Explicit,
            ProtocolVersion::TLSv1_2 => Form::Implicit,
            _ => return Err(TlsFault::Keys),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| TlsFault::Keys)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| TlsFault::Keys)?,
            form,
            sequence,
            records_max: if is_gcm { GCM_RECORDS_MAX } else { u64::MAX },
        })
    }

    /// New keys are due: these have sealed as much as they may.
    pub(super) fn are_worn(&self) -> bool {
        self.sequence >= self.records_max
    }

    /// Bytes of a record with `length` bytes of plaintext.
    pub(super) fn sealed_bytes(&self, length: usize) -> usize {
        HEADER_BYTES + self.front() + length + self.inner_type() + TAG_BYTES
    }

    /// Where the plaintext of a record lies within it.
    pub(super) fn plaintext_at(&self) -> usize {
        HEADER_BYTES + self.front()
    }

    /// Seal the `length` bytes that lie at [`plaintext_at`](Self::plaintext_at) of `record`, which is as long as
    /// [`sealed_bytes`](Self::sealed_bytes) says.
    pub(super) fn seal(&mut self, kind: u8, length: usize, record: &mut [u8]) -> Result<(), TlsFault> {
        debug_assert_eq!(record.len(), self.sealed_bytes(length));
        let (outer, body) = match self.form {
            Form::Tls13 => (kind::DATA, length + 1 + TAG_BYTES),
            Form::Explicit | Form::Implicit => (kind, self.front() + length + TAG_BYTES),
        };
        let header = header(outer, body);
        let nonce = self.nonce();
        let at = self.plaintext_at();
        if self.form == Form::Explicit {
            record[HEADER_BYTES..at].copy_from_slice(&nonce[NONCE_LEN - EXPLICIT_BYTES..]);
        }
        if self.form == Form::Tls13 {
            record[at + length] = kind;
        }
        record[..HEADER_BYTES].copy_from_slice(&header);
        let (plaintext, tag) = record[at..].split_at_mut(length + self.inner_type());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match self.form {
            Form::Tls13 => self.key.seal_in_place_separate_tag(nonce, Aad::from(header), plaintext),
            Form::Explicit | Form::Implicit => {
                let data = Aad::from(self.additional(kind, length));
                self.key.seal_in_place_separate_tag(nonce, data, plaintext)
            }
        };
        tag.copy_from_slice(sealed.map_err(|_| TlsFault::Keys)?.as_ref());
        self.count()
    }

    /// Open a whole record in place: its type, and where its plaintext is now.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), TlsFault> {
        let outer = record[0];
        let front = self.front();
        let length = (record.len() - HEADER_BYTES)
            .checked_sub(front + TAG_BYTES)
            .ok_or(TlsFault::Damaged)?;
        let mut nonce = self.nonce();
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&record[..HEADER_BYTES]);
        let body = &mut record[HEADER_BYTES..];
        if self.form == Form::Explicit {
            nonce[NONCE_LEN - EXPLICIT_BYTES..].copy_from_slice(&body[..EXPLICIT_BYTES]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = match self.form {
            Form::Tls13 if outer != kind::DATA => return Err(TlsFault::Unexpected(outer)),
            Form::Tls13 => self.key.open_within(nonce, Aad::from(header), body, front..),
            Form::Explicit | Form::Implicit => {
                let data = Aad::from(self.additional(outer, length));
                self.key.open_within(nonce, data, body, front..)
            }
        };
        let plaintext: &[u8] = opened.map_err(|_| TlsFault::Damaged)?;
        let (kind, length) = match self.form {
            Form::Tls13 => split_type(plaintext).ok_or(TlsFault::Damaged)?,
            Form::Explicit | Form::Implicit => (outer, plaintext.len()),
        };
        if length > FRAGMENT_MAX {
            return Err(TlsFault::TooLong);
        }
        self.count()?;
        Ok((kind, HEADER_BYTES..HEADER_BYTES + length))
    }

    fn front(&self) -> usize {
        if self.form == Form::Explicit { EXPLICIT_BYTES } else { 0 }
    }

    fn inner_type(&self) -> usize {
        usize::from(self.form == Form::Tls13)
    }

    /// The initial vector and the number of the record (RFC 8446 section 5.3); unique for TLS 1.2 as well.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, of) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of;
        }
        nonce
    }

    /// What TLS 1.2 authenticates beside the plaintext (RFC 5246 section 6.2.3.3).
    fn additional(&self, kind: u8, length: usize) -> [u8; 13] {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8] = kind;
        data[9..11].copy_from_slice(&WIRE_VERSION);
        data[11..].copy_from_slice(&(length as u16).to_be_bytes());
        data
    }

    fn count(&mut self) -> Result<(), TlsFault> {
        self.sequence = self.sequence.checked_add(1).ok_or(TlsFault::Worn)?;
        Ok(())
    }
}

/// Bytes of the record that begins with these, its header included. `None`: more are needed to say.
pub(super) fn length_of(bytes: &[u8]) -> Result<Option<usize>, TlsFault> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[1] != WIRE_VERSION[0] {
        return Err(TlsFault::NotTls);
    }
    if length > RECORD_MAX {
        return Err(TlsFault::TooLong);
    }
    Ok(Some(length))
}

fn header(kind: u8, body: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = (body as u16).to_be_bytes();
    [kind, WIRE_VERSION[0], WIRE_VERSION[1], high, low]
}

/// The type behind the plaintext of a TLS 1.3 record, and the bytes before it: behind it is padding of zeroes.
fn split_type(plaintext: &[u8]) -> Option<(u8, usize)> {
    let at = plaintext.iter().rposition(|byte| *byte != 0)?;
    Some((plaintext[at], at))
}

#[cfg(test)]
impl Keys {
    pub(super) fn wear_out(&mut self) {
        self.records_max = self.sequence;
    }
}
