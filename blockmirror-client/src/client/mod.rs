//! An asynchronous NBD client over one connection, for tools and tests: many requests in flight, long ones split.

mod failover;
mod task;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nbd_proto::{Command, Context, Extent, NbdError};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use failover::{Access, FailoverClient, Patience};
use task::{Answer, Ask, Outgoing, Shared, Waiting};

use crate::connect::{ConnectError, Connected, Server, Wishes, connect};
use crate::pipeline::{Limits, Pipeline, StartError};
use crate::stream::Stream;
use crate::uri::NbdUri;

/// Requests in flight on one connection.
pub const WINDOW: usize = 128;
/// Time allowed to dial and negotiate.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest range of a request that moves no data and may take its time, such as zeroing that is not said to be fast.
const MAX_SLOW_EFFECT: u64 = 1 << 30;

/// One connection. Clones share it; it closes when the last one is dropped (without DISC) or at
/// [`disconnect`](Self::disconnect). Needs a tokio runtime.
#[derive(Clone)]
pub struct Client {
    limits: Limits,
    /// The metadata contexts that were selected.
    contexts: Arc<[Context]>,
    shared: Arc<Shared>,
    /// Requests to the connection's task; their order is the order on the wire.
    outbox: mpsc::Sender<Outgoing>,
    window: Arc<Semaphore>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request cannot be sent to this server.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The range is longer than 64 bits, or than the memory of this machine.
    #[error("{length} bytes at offset {offset} are more than can be asked for")]
    TooLong {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// A metadata context that was not selected, since nobody wished for it or the server has none of that name.
    #[error("the server offers no metadata context {0:?} for this export")]
    NoContext(String),
    /// The server answered with an error.
    #[error("the server answered: {error}{}", message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Server {
        /// Its error.
        error: NbdError,
        /// Its words.
        message: Option<String>,
    },
    /// The connection is gone; whether the request was done is not known.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// None of several nodes has answered.
    #[error("no node has answered within {:.0} s: {last}", after.as_secs_f64())]
    Exhausted {
        /// How long it was tried.
        after: Duration,
        /// What was wrong with each of them, the last time.
        last: String,
    },
}

impl Client {
    /// Dials, negotiates, and starts the connection's task. A URI without a path opens the server's default
    /// export.
    pub async fn connect(uri: &NbdUri) -> Result<Self, ClientError> {
        Self::connect_within(uri, CONNECT_DEADLINE).await
    }

    /// As [`connect`](Self::connect), with a deadline of one's own.
    pub async fn connect_within(uri: &NbdUri, deadline: Duration) -> Result<Self, ClientError> {
        Self::connect_wishing(uri, &Wishes::default(), deadline).await
    }

    /// As [`connect_within`](Self::connect_within), with metadata contexts for [`status`](Self::status), or less than the
    /// server offers.
    pub async fn connect_wishing(uri: &NbdUri, wishes: &Wishes, deadline: Duration) -> Result<Self, ClientError> {
        let export = uri.export.as_deref().unwrap_or_default();
        Self::over(connect(&Server::of(uri)?, export, wishes, deadline).await?)
    }

    /// Takes over a negotiated connection.
    pub fn over(connected: Connected) -> Result<Self, ClientError> {
        let lost = |error: std::io::Error| ClientError::Lost(error.to_string());
        let stream = Stream::from_wire(connected.socket).map_err(lost)?;
        let pipeline = Pipeline::new(&connected.negotiated, WINDOW);
        let limits = *pipeline.limits();
        let shared = Arc::new(Shared::new(pipeline));
        let (outbox, inbox) = mpsc::channel(WINDOW);
        tokio::spawn(task::run(shared.clone(), inbox, stream, connected.unread));
        Ok(Self {
            limits,
            contexts: connected.negotiated.contexts.into(),
            shared,
            outbox,
            window: Arc::new(Semaphore::new(WINDOW)),
        })
    }

    /// What the server permits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The metadata contexts [`status`](Self::status) can ask for.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.limits.size
    }

    /// Reads `length` bytes.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ClientError> {
        let pieces = split(offset, length as u64, u64::from(self.longest_payload()))?;
        let single = pieces.len() == 1;
        let mut data = Vec::with_capacity(if single { 0 } else { length });
        let mut answers = Vec::new();
        for (at, piece) in pieces {
            answers.push(self.submit(Command::Read { df: false }, at, piece).await?);
        }
        for answer in answers {
            let part = self.answered(answer).await?.data.unwrap_or_default();
            if single {
                return Ok(part);
            }
            data.extend_from_slice(&part);
        }
        Ok(data)
    }

    /// Writes `data`; with `fua` it is durable when this returns. Durability falls back to a FLUSH where the server
    /// has no FUA.
    pub async fn write(&self, offset: u64, data: &[u8], fua: bool) -> Result<(), ClientError> {
        let command = Command::Write {
            fua: fua && self.limits.can_fua(),
        };
        let mut answers = Vec::new();
        let mut rest = data;
        for (at, piece) in split(offset, data.len() as u64, u64::from(self.longest_payload()))? {
            let (now, later) = rest.split_at(rest.len().min(piece as usize));
            rest = later;
            answers.push(self.send(plain(command, at, piece), now.to_vec()).await?);
        }
        self.finish(answers, fua).await
    }

    /// Makes everything that was answered before durable.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let answer = self.submit(Command::Flush, 0, 0).await?;
        self.answered(answer).await.map(|_| ())
    }

    /// Says that a range is not needed any more; what it reads as afterwards is the server's choice.
    pub async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ClientError> {
        self.effect(
            Command::Trim {
                fua: fua && self.limits.can_fua(),
            },
            offset,
            length,
            fua,
        )
        .await
    }

    /// Makes a range read as zeroes; with `no_hole` it stays allocated.
    pub async fn zero(&self, offset: u64, length: u64, no_hole: bool, fua: bool) -> Result<(), ClientError> {
        let native_fua = fua && self.limits.can_fua();
        let command = |fast| Command::WriteZeroes {
            fua: native_fua,
            no_hole,
            fast,
        };
        // Where it is fast it need not be cut; where it is not the server says so at once, and nothing has changed.
        if length > MAX_SLOW_EFFECT && self.limits.can_zero_fast() {
            match self.effect(command(true), offset, length, fua).await {
                Err(ClientError::Server {
                    error: NbdError::NotSupported,
                    ..
                }) => {}
                done => return done,
            }
        }
        self.effect(command(false), offset, length, fua).await
    }

    /// What the metadata context `name` says of a range: extents from `offset` on, at least one. The server may tell less
    /// than was asked for, or, in the last of them, more; where it ends, ask again.
    ///
    /// # Errors
    /// [`ClientError::NoContext`]: it was not selected, or the server has none of that name.
    pub async fn status(&self, name: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ClientError> {
        let Some(context) = self.contexts.iter().find(|context| context.name == name) else {
            return Err(ClientError::NoContext(name.to_owned()));
        };
        let mut ask = plain(
            Command::BlockStatus { one: false },
            offset,
            length.min(self.longest_effect(Command::BlockStatus { one: false })),
        );
        if self.contexts.len() > 1 && self.limits.can_filter_status() {
            ask.contexts.push(context.id);
        }
        let answer = self.send(ask, Vec::new()).await?;
        let statuses = self.answered(answer).await?.statuses;
        let found = statuses.into_iter().find(|status| status.context == context.id);
        // The pipeline has made sure that each context was answered.
        Ok(found.map(|status| status.extents).unwrap_or_default())
    }

    /// Asks the server to prefetch a range.
    pub async fn cache(&self, offset: u64, length: u64) -> Result<(), ClientError> {
        self.effect(Command::Cache, offset, length, false).await
    }

    /// Waits for what is in flight, says good-bye, and waits until the server has closed.
    pub async fn disconnect(self) -> Result<(), ClientError> {
        let all = u32::try_from(WINDOW).unwrap_or(u32::MAX);
        let _idle = self.window.acquire_many(all).await.map_err(|_| self.lost())?;
        let (goodbye, closed) = oneshot::channel();
        self.outbox
            .send(Outgoing::Disconnect(goodbye))
            .await
            .map_err(|_| self.lost())?;
        closed.await.unwrap_or_else(|_| Err(self.lost()))
    }

    async fn effect(&self, command: Command, offset: u64, length: u64, fua: bool) -> Result<(), ClientError> {
        let mut answers = Vec::new();
        for (at, piece) in split(offset, length, self.longest_effect(command))? {
            answers.push(self.submit(command, at, piece).await?);
        }
        self.finish(answers, fua).await
    }

    /// Longest range of one request that moves no data, in bytes.
    fn longest_effect(&self, command: Command) -> u64 {
        let longest = self.limits.longest_effect();
        let may_take_time = matches!(command, Command::WriteZeroes { fast: false, .. } | Command::Cache);
        match may_take_time {
            // It is a multiple of every block size.
            true => longest.min(MAX_SLOW_EFFECT),
            false => longest,
        }
    }

    async fn finish(&self, answers: Vec<oneshot::Receiver<Answer>>, fua: bool) -> Result<(), ClientError> {
        for answer in answers {
            self.answered(answer).await?;
        }
        if fua && !self.limits.can_fua() {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Asks for what has no payload.
    async fn submit(
        &self,
        command: Command,
        offset: u64,
        length: u64,
    ) -> Result<oneshot::Receiver<Answer>, ClientError> {
        self.send(plain(command, offset, length), Vec::new()).await
    }

    /// Waits for room in the window, then puts the request on its way.
    async fn send(&self, ask: Ask, payload: Vec<u8>) -> Result<oneshot::Receiver<Answer>, ClientError> {
        self.limits.check(ask.command, ask.offset, ask.length)?;
        let permit = self.window.clone().acquire_owned().await.map_err(|_| self.lost())?;
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting {
            answer,
            _permit: permit,
        };
        let request = Outgoing::Request { ask, payload, waiting };
        self.outbox.send(request).await.map_err(|_| self.lost())?;
        Ok(receiver)
    }

    async fn answered(&self, answer: oneshot::Receiver<Answer>) -> Answer {
        answer.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// The longest payload, as a multiple of the block size.
    fn longest_payload(&self) -> u32 {
        self.limits.maximum_payload / self.limits.minimum_block * self.limits.minimum_block
    }

    fn lost(&self) -> ClientError {
        ClientError::Lost(self.shared.why_lost())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

fn plain(command: Command, offset: u64, length: u64) -> Ask {
    Ask {
        command,
        offset,
        length,
        contexts: Vec::new(),
    }
}

/// The pieces of a range, each at most `longest` bytes.
fn split(offset: u64, length: u64, longest: u64) -> Result<Vec<(u64, u64)>, ClientError> {
    let too_long = || ClientError::TooLong { offset, length };
    let end = offset.checked_add(length).ok_or_else(too_long)?;
    let mut pieces = Vec::new();
    let mut at = offset;
    while at < end {
        let piece = (end - at).min(longest);
        pieces.push((at, piece));
        at += piece;
    }
    Ok(pieces)
}
