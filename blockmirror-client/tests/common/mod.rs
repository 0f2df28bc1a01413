//! An NBD server in memory for the tests, over a Unix socket of its own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use blockmirror_client::uri::{Address, NbdUri};
use nbd_proto::constants::command;
use nbd_proto::reply::simple_reply;
use nbd_proto::server::{Exports, Handshake, Negotiated, Step};
use nbd_proto::{
    BlockSizes, Command, ExportInfo, Extent, NbdError, Refusal, ReplyFlags, ReplyTo, Request, TransmissionFlags,
    has_filter, validate, validate_filtered,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

pub const EXPORT: &str = "toy";
/// Any READ or WRITE that touches this byte fails.
pub const BAD_BYTE: u64 = 77_777;

/// What a toy can be made to do.
#[derive(Clone)]
pub struct Toy {
    pub size: u64,
    pub flags: TransmissionFlags,
    pub block_sizes: BlockSizes,
    pub fails_at_bad_byte: bool,
    /// Zeroing that has to be fast is refused.
    pub is_slow: bool,
    /// Metadata contexts; each says that of every two grains the second is a hole and reads as zeroes.
    pub contexts: &'static [&'static str],
    /// Bytes of a grain.
    pub grain: u64,
    /// After so many answers the last one is sent again.
    pub repeats_after: Option<usize>,
    /// After so many answers the connection is dropped.
    pub drops_after: Option<usize>,
    /// It is Secondary: clients are refused, and requests are answered with ESHUTDOWN.
    pub shut: Arc<AtomicBool>,
}

/// What a toy has seen and holds.
#[derive(Default)]
pub struct Seen {
    pub data: Vec<u8>,
    pub requests: Vec<Request>,
    /// The contexts each BLOCK_STATUS asked for, by their places.
    pub filters: Vec<u64>,
    pub goodbyes: usize,
}

/// Error, text, and where.
type Refused = (NbdError, &'static str, Option<u64>);

pub type Shared = Arc<Mutex<Seen>>;

impl Default for Toy {
    fn default() -> Self {
        Self {
            size: 1 << 20,
            flags: TransmissionFlags::all() - TransmissionFlags::READ_ONLY,
            block_sizes: BlockSizes {
                minimum: 1,
                preferred: 4096,
                maximum_payload: 4096,
            },
            fails_at_bad_byte: false,
            is_slow: false,
            contexts: &[],
            grain: 1024,
            repeats_after: None,
            drops_after: None,
            shut: Arc::default(),
        }
    }
}

impl Exports for Toy {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name.is_empty() || name == EXPORT).then(|| ExportInfo {
            name: EXPORT.to_owned(),
            description: "a toy".to_owned(),
            size: self.size,
            flags: self.flags,
            block_sizes: self.block_sizes,
        })
    }

    fn admit(&self, _export: &ExportInfo) -> Result<(), String> {
        if self.shut.load(Ordering::SeqCst) {
            return Err("the Primary is another node".to_owned());
        }
        Ok(())
    }

    fn contexts(&self, _export: &str) -> Vec<String> {
        self.contexts.iter().map(|&name| name.to_owned()).collect()
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![
            (EXPORT.to_owned(), "a toy".to_owned()),
            ("other".to_owned(), String::new()),
        ]
    }
}

impl Toy {
    /// Listens on `socket` until the runtime ends; the export holds `data`.
    pub fn serve(self, socket: &Path, data: Vec<u8>) -> Shared {
        let shared = Arc::new(Mutex::new(Seen {
            data,
            ..Seen::default()
        }));
        let listener = UnixListener::bind(socket).unwrap();
        let (toy, seen) = (self, shared.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(toy.clone().session(stream, seen.clone()));
            }
        });
        shared
    }

    async fn session(self, mut stream: UnixStream, seen: Shared) {
        let mut handshake = Handshake::default();
        stream.write_all(&handshake.greeting()).await.unwrap();
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let negotiated = loop {
            let (taken, step) = handshake.handle(&input, &self, &mut output);
            input.drain(..taken);
            stream.write_all(&output).await.unwrap();
            output.clear();
            match step {
                Step::Ready(negotiated) => break negotiated,
                Step::NeedMore if taken > 0 && !input.is_empty() => {}
                Step::NeedMore if stream.read_buf(&mut input).await.unwrap_or(0) > 0 => {}
                _ => return,
            }
        };
        self.transmit(stream, negotiated, &seen).await;
    }

    async fn transmit(self, mut stream: UnixStream, negotiated: Negotiated, seen: &Shared) {
        let style = negotiated.replies;
        let mut header = vec![0; style.request_length()];
        let mut answers = 0;
        while stream.read_exact(&mut header).await.is_ok() {
            let request = Request::read(style, &header).unwrap().unwrap();
            let mut payload = vec![0; request.payload_length(style) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            let Some(reply) = self.answer(&request, &payload, &negotiated, seen) else {
                return;
            };
            answers += 1;
            stream.write_all(&reply).await.unwrap();
            if self.repeats_after == Some(answers) {
                stream.write_all(&reply).await.unwrap();
            }
            if self.drops_after == Some(answers) {
                return;
            }
        }
    }

    /// The bytes of the reply; `None` after DISC.
    fn answer(&self, request: &Request, payload: &[u8], negotiated: &Negotiated, seen: &Shared) -> Option<Vec<u8>> {
        let mut seen = seen.lock().unwrap();
        if request.command == command::DISCONNECT {
            seen.goodbyes += 1;
            return None;
        }
        if self.shut.load(Ordering::SeqCst) {
            let reply = ReplyTo {
                style: negotiated.replies,
                cookie: request.cookie,
                offset: request.offset,
            };
            return Some(reply.error(NbdError::Shutdown, "it is Secondary now", None));
        }
        seen.requests.push(*request);
        let reply = ReplyTo {
            style: negotiated.replies,
            cookie: request.cookie,
            offset: request.offset,
        };
        let has_chunks = negotiated.replies.has_chunks();
        match self.carry_out(request, payload, negotiated, reply, &mut seen) {
            Ok(answer) => answer,
            Err((error, text, offset)) if has_chunks => Some(reply.error(error, text, offset)),
            Err((error, ..)) => Some(simple_reply(reply.cookie, Some(error)).to_vec()),
        }
    }

    fn carry_out(
        &self,
        request: &Request,
        payload: &[u8],
        negotiated: &Negotiated,
        reply: ReplyTo,
        seen: &mut Seen,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let refused = |refusal: Refusal| (refusal.error, refusal.message, None);
        if has_filter(request, negotiated) {
            let filtered = validate_filtered(request, payload, negotiated).map_err(refused)?;
            seen.filters.push(filtered.contexts);
            return Ok(Some(self.statuses(
                filtered.length,
                filtered.contexts,
                negotiated,
                reply,
            )));
        }
        let command = validate(request, negotiated).map_err(refused)?;
        let range = request.offset as usize..(request.offset + request.length) as usize;
        let bad = self.fails_at_bad_byte && range.contains(&(BAD_BYTE as usize));
        if bad && matches!(command, Command::Read { .. } | Command::Write { .. }) {
            let bad_byte = matches!(command, Command::Read { .. }).then_some(BAD_BYTE);
            return Err((NbdError::Io, "bad sector", bad_byte));
        }
        match command {
            Command::Disconnect => return Ok(None),
            Command::Read { .. } => {
                let header = match negotiated.replies.has_chunks() {
                    true => reply.offset_data(ReplyFlags::DONE, request.offset, request.length as u32),
                    false => reply.success(),
                };
                return Ok(Some([&header[..], &seen.data[range]].concat()));
            }
            Command::Write { .. } => seen.data[range].copy_from_slice(payload),
            Command::WriteZeroes { fast: true, .. } if self.is_slow => {
                return Err((NbdError::NotSupported, "it would take its time", None));
            }
            // A toy that is larger than what it holds is all zeroes behind that.
            Command::WriteZeroes { .. } | Command::Trim { .. } => {
                let held = seen.data.len();
                seen.data[range.start.min(held)..range.end.min(held)].fill(0);
            }
            Command::Flush if negotiated.replies.has_chunks() => return Ok(Some(reply.none().to_vec())),
            Command::BlockStatus { .. } => {
                seen.filters.push(0);
                return Ok(Some(self.statuses(request.length, u64::MAX, negotiated, reply)));
            }
            Command::Flush | Command::Cache => {}
        }
        Ok(Some(reply.success().to_vec()))
    }

    /// At most three extents of each context at once.
    fn statuses(&self, length: u64, contexts: u64, negotiated: &Negotiated, reply: ReplyTo) -> Vec<u8> {
        let mut extents = Vec::new();
        let (mut at, end) = (reply.offset, reply.offset + length);
        while at < end && extents.len() < 3 {
            let stop = ((at / self.grain + 1) * self.grain).min(self.size);
            extents.push(Extent {
                length: stop - at,
                flags: at / self.grain % 2 * 3,
            });
            at = stop;
        }
        let mut bytes = Vec::new();
        for (place, context) in negotiated.contexts.iter().enumerate() {
            if contexts >> place & 1 == 1 {
                reply.put_status(ReplyFlags::empty(), context.id, &extents, &mut bytes);
            }
        }
        bytes.extend_from_slice(&reply.none());
        bytes
    }
}

/// The URI of a toy's export.
pub fn uri(socket: &Path) -> NbdUri {
    NbdUri {
        address: Address::Unix(socket.to_owned()),
        export: Some(EXPORT.to_owned()),
        tls: None,
    }
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}
