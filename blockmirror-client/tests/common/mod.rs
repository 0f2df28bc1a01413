//! An NBD server in memory for the tests, over a Unix socket of its own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod daemon;
pub mod scene;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use blockmirror_client::uri::{Address, NbdUri};
use nbd_proto::reply::simple_reply;
use nbd_proto::server::{Exports, Handshake, Negotiated, Step};
use nbd_proto::{
    BlockSizes, Command, ExportInfo, ReplyFlags, ReplyStyle, ReplyTo, Request, TransmissionFlags, validate,
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
    pub goodbyes: usize,
}

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
        let mut header = [0; Request::LENGTH];
        let mut answers = 0;
        while stream.read_exact(&mut header).await.is_ok() {
            let request = Request::decode(&header).unwrap();
            let mut payload = vec![0; request.payload_length(ReplyStyle::Structured) as usize];
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
        if self.shut.load(Ordering::SeqCst) {
            let text = "it is Secondary now";
            return Some(ReplyTo::structured(request.cookie).error(nbd_proto::NbdError::Shutdown, text, None));
        }
        seen.requests.push(*request);
        let range = request.offset as usize..request.offset as usize + request.length as usize;
        let cookie = request.cookie;
        let command = match validate(request, negotiated) {
            Ok(command) => command,
            Err(refusal) => return Some(ReplyTo::structured(cookie).error(refusal.error, refusal.message, None)),
        };
        let bad = self.fails_at_bad_byte && range.contains(&(BAD_BYTE as usize));
        if bad && matches!(command, Command::Read { .. } | Command::Write { .. }) {
            let bad_byte = matches!(command, Command::Read { .. }).then_some(BAD_BYTE);
            return Some(ReplyTo::structured(cookie).error(nbd_proto::NbdError::Io, "bad sector", bad_byte));
        }
        match command {
            Command::Disconnect => {
                seen.goodbyes += 1;
                return None;
            }
            Command::Read { .. } => {
                let header =
                    ReplyTo::structured(cookie).offset_data(ReplyFlags::DONE, request.offset, request.length as u32);
                return Some([&header[..], &seen.data[range]].concat());
            }
            Command::Write { .. } => seen.data[range].copy_from_slice(payload),
            Command::WriteZeroes { .. } | Command::Trim { .. } => seen.data[range].fill(0),
            Command::Flush => return Some(ReplyTo::structured(cookie).none().to_vec()),
            Command::Cache | Command::BlockStatus { .. } => {}
        }
        Some(simple_reply(cookie, None).to_vec())
    }
}

/// The URI of a toy's export.
pub fn uri(socket: &Path) -> NbdUri {
    NbdUri {
        address: Address::Unix(socket.to_owned()),
        export: Some(EXPORT.to_owned()),
    }
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}
