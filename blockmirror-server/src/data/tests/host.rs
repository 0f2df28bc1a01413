//! A host: the client's end of a connection, one byte stream, no cleverness.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nbd_proto::reply::{ReplyHeader, decode_hole};
use nbd_proto::{
    BlockSizes, ChunkKind, Command, ErrorChunk, ExportInfo, NbdError, ReplyFlags, ReplyStyle, Request,
    TransmissionFlags,
};

/// How long a test waits for what has to come; reaching it fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client's end of a connection.
pub(super) struct Host {
    pub(super) stream: UnixStream,
    /// How requests go out. Replies say themselves what they are.
    pub(super) style: ReplyStyle,
}

/// A reply: cookie, and the data or the error (with its text when structured).
pub(super) type Answer = (u64, Result<Vec<u8>, (NbdError, String)>);

impl Host {
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            style: ReplyStyle::Simple,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn ask(&mut self, command: Command, cookie: u64, offset: u64, length: u64) {
        self.send_request(Request::new(command, cookie, offset, length).in_style(self.style));
    }

    /// A header as it is, with all its mistakes.
    pub(super) fn send_request(&mut self, request: Request) {
        match self.style {
            ReplyStyle::Extended => self.send(&request.encode_extended()),
            ReplyStyle::Simple | ReplyStyle::Structured => self.send(&request.encode()),
        }
    }

    pub(super) fn ask_write(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        let command = Command::Write { fua: false };
        self.ask(command, cookie, offset, data.len() as u64);
        self.send(data);
    }

    /// The next reply. `read_length`: the length of the READ with this cookie, for a simple reply does not say.
    pub(super) fn answer(&mut self, read_length: impl Fn(u64) -> u32) -> Answer {
        let mut header = [0; 32];
        self.stream.read_exact(&mut header[..16]).unwrap();
        if let Some((ReplyHeader::Simple { cookie, error }, _)) = ReplyHeader::decode(&header[..16]).unwrap() {
            if let Some(error) = error {
                return (cookie, Err((error, String::new())));
            }
            return (cookie, Ok(self.exactly(read_length(cookie) as usize)));
        }
        let whole = self.style.chunk_header_length();
        self.stream.read_exact(&mut header[16..whole]).unwrap();
        let mut data = Vec::new();
        loop {
            let (chunk, _) = ReplyHeader::decode(&header[..whole]).unwrap().unwrap();
            let ReplyHeader::Chunk {
                flags,
                kind,
                cookie,
                length,
                offset,
            } = chunk
            else {
                panic!("{chunk:?}")
            };
            assert_eq!(offset.is_some(), self.style == ReplyStyle::Extended);
            let payload = self.exactly(length as usize);
            match kind {
                ChunkKind::None => {}
                ChunkKind::OffsetData => data.extend_from_slice(&payload[8..]),
                ChunkKind::OffsetHole => {
                    let (_, length) = decode_hole(payload[..].try_into().unwrap()).unwrap();
                    data.resize(data.len() + length as usize, 0);
                }
                kind => {
                    let chunk = ErrorChunk::decode(kind, &payload).unwrap();
                    return (cookie, Err((chunk.error, chunk.message)));
                }
            }
            if flags.contains(ReplyFlags::DONE) {
                return (cookie, Ok(data));
            }
            self.stream.read_exact(&mut header[..whole]).unwrap();
        }
    }

    pub(super) fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        self.ask(Command::Read { df: false }, 77, offset, u64::from(length));
        let (cookie, outcome) = self.answer(|_| length);
        assert_eq!(cookie, 77);
        outcome.unwrap()
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.ask_write(78, offset, data);
        self.expect_ok(78);
    }

    /// A read that fails: with what.
    pub(super) fn read_error(&mut self, offset: u64, length: u32) -> NbdError {
        self.ask(Command::Read { df: false }, 80, offset, u64::from(length));
        self.answer(|_| length).1.unwrap_err().0
    }

    /// A write that fails: with what.
    pub(super) fn write_error(&mut self, offset: u64, data: &[u8]) -> NbdError {
        self.ask_write(81, offset, data);
        self.answer(|_| 0).1.unwrap_err().0
    }

    pub(super) fn flush(&mut self) {
        self.ask(Command::Flush, 79, 0, 0);
        self.expect_ok(79);
    }

    pub(super) fn expect_ok(&mut self, cookie: u64) {
        assert_eq!(self.answer(|_| 0), (cookie, Ok(vec![])));
    }

    /// Nothing more comes, not even an error.
    pub(super) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "nothing but the end of the stream");
    }

    /// The end of the stream, whatever came before it.
    pub(super) fn read_to_end(&mut self) -> usize {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.stream.read_to_end(&mut rest);
        rest.len()
    }

    pub(super) fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).unwrap();
        data
    }
}

/// A WRITE as it goes over the wire.
pub(super) fn write_request(cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let header = Request::new(Command::Write { fua: false }, cookie, offset, data.len() as u64).encode();
    [&header, data].concat()
}

/// What an export of `size` bytes promises.
pub(super) fn export(size: u64, minimum: u32) -> ExportInfo {
    ExportInfo {
        name: "test".to_owned(),
        description: String::new(),
        size,
        flags: TransmissionFlags::HAS_FLAGS
            | TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_TRIM
            | TransmissionFlags::SEND_WRITE_ZEROES
            | TransmissionFlags::SEND_FAST_ZERO
            | TransmissionFlags::BLOCK_STATUS_PAYLOAD
            | TransmissionFlags::SEND_DF
            | TransmissionFlags::SEND_CACHE
            | TransmissionFlags::CAN_MULTI_CONN,
        block_sizes: BlockSizes {
            minimum,
            preferred: 4096,
            maximum_payload: 32 << 20,
        },
    }
}

/// Tells writers to end when it goes, also when what they write beside has failed.
pub(super) struct Ending<'a>(pub(super) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
