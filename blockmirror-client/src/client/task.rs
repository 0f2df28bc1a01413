//! The task of one connection: sends and receives.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nbd_proto::reply::Encoded;
use nbd_proto::{Command, NbdError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::ClientError;
use crate::pipeline::{Event, Pipeline, Status};
use crate::stream::Stream;

/// Time allowed for the server to close after DISC.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Why nothing more can be asked of a server that answers ESHUTDOWN.
const GOING_DOWN: &str = "the server is shutting down";
/// Bytes read from the socket at once.
const READ_SIZE: usize = 256 << 10;

/// What the task and all clones of a client share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The server is going down: good-bye has to be said.
    going_down: Notify,
    started: Instant,
}

struct State {
    pipeline: Pipeline<Waiting>,
    /// Why the connection is gone.
    lost: Option<String>,
}

/// Somebody waits for an answer; dropping it frees the place in the window.
pub(super) struct Waiting {
    pub answer: oneshot::Sender<Answer>,
    pub _permit: OwnedSemaphorePermit,
}

/// What came of a request that was done.
pub(super) struct Answered {
    /// The bytes of a READ.
    pub data: Option<Vec<u8>>,
    /// What a BLOCK_STATUS tells.
    pub statuses: Vec<Status>,
}

pub(super) type Answer = Result<Answered, ClientError>;

/// Somebody waits for the connection to end.
pub(super) type Goodbye = oneshot::Sender<Result<(), ClientError>>;

/// What is asked of the server, but for a payload.
pub(super) struct Ask {
    pub command: Command,
    pub offset: u64,
    pub length: u64,
    /// The contexts a BLOCK_STATUS is for; none stands for all that are selected.
    pub contexts: Vec<u32>,
}

/// What the clones of a client hand to the task.
pub(super) enum Outgoing {
    Request {
        ask: Ask,
        payload: Vec<u8>,
        waiting: Waiting,
    },
    Disconnect(Goodbye),
}

impl Shared {
    pub fn new(pipeline: Pipeline<Waiting>) -> Self {
        Self {
            state: Mutex::new(State { pipeline, lost: None }),
            going_down: Notify::new(),
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by a panic in here: every change of the state is one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection is gone.
    pub fn why_lost(&self) -> String {
        self.lock().lost.clone().unwrap_or_else(|| "it was closed".to_owned())
    }

    /// The server has answered ESHUTDOWN: nothing more is asked of it, what is in flight is still answered.
    fn end_softly(&self) {
        self.lock().lost.get_or_insert_with(|| GOING_DOWN.to_owned());
        self.going_down.notify_one();
    }

    /// The connection is gone: everyone who waits is told. The first reason counts.
    fn fail(&self, reason: &str) {
        let (waiting, reason) = {
            let mut state = self.lock();
            let reason = state.lost.get_or_insert_with(|| reason.to_owned()).clone();
            (state.pipeline.drain(), reason)
        };
        for Waiting { answer, .. } in waiting {
            // Nobody may be waiting any more: an abandoned request is nobody's business.
            let _ = answer.send(Err(ClientError::Lost(reason.clone())));
        }
    }
}

/// Starts a request: header and payload. `None` when nobody waits for it any more, or it cannot be sent.
fn start(shared: &Shared, ask: Ask, payload: Vec<u8>, waiting: Waiting) -> Option<(Encoded, Vec<u8>)> {
    if waiting.answer.is_closed() {
        return None;
    }
    let Ask {
        command,
        offset,
        length,
        contexts,
    } = ask;
    let mut state = shared.lock();
    let verdict = match &state.lost {
        Some(reason) => Err(ClientError::Lost(reason.clone())),
        None => state.pipeline.check(command, offset, length).map_err(ClientError::from),
    };
    if let Err(error) = verdict {
        // The asker may have stopped waiting.
        let _ = waiting.answer.send(Err(error));
        return None;
    }
    let (pipeline, now) = (&mut state.pipeline, shared.started.elapsed());
    match command {
        Command::BlockStatus { one } if !contexts.is_empty() => pipeline
            .start_filtered(now, one, (offset, length), &contexts, waiting)
            .ok(),
        _ => {
            let header = pipeline.start(now, command, offset, length, waiting).ok()?;
            Some((header, payload))
        }
    }
}

/// How sending came to its end.
enum Ended {
    /// DISC is sent; somebody waits for the server to close.
    Goodbye(Goodbye),
    /// DISC is sent, since the server is going down.
    GoingDown,
    /// The last client was dropped.
    Dropped,
    /// The connection broke.
    Failed(String),
}

/// The connection's task: sends and receives at the same time, so that neither can hold up the other.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Outgoing>, stream: Stream, unread: Vec<u8>) {
    let (reader, mut writer) = stream.into_split();
    let mut reading = pin!(read_replies(&shared, reader, unread));
    let ended = tokio::select! {
        ended = write_requests(&shared, &mut inbox, &mut writer) => ended,
        () = &mut reading => Ended::Dropped,
    };
    match ended {
        Ended::Dropped => shared.fail("it was closed"),
        Ended::Failed(reason) => {
            // What the server answered before it went may still be on its way; it ends with an end or an error.
            let _ = tokio::time::timeout(CLOSE_DEADLINE, reading).await;
            shared.fail(&reason);
        }
        Ended::GoingDown => {
            let _ = tokio::time::timeout(CLOSE_DEADLINE, reading).await;
            shared.fail(GOING_DOWN);
        }
        Ended::Goodbye(answer) => {
            let closed = tokio::time::timeout(CLOSE_DEADLINE, reading).await;
            shared.fail("it was closed");
            let seconds = CLOSE_DEADLINE.as_secs();
            let late = |_| ClientError::Lost(format!("the server did not close within {seconds} s of DISC"));
            // The asker may have stopped waiting.
            let _ = answer.send(closed.map_err(late));
        }
    }
}

/// Sends until there is nothing more to send.
async fn write_requests(
    shared: &Shared,
    inbox: &mut mpsc::Receiver<Outgoing>,
    writer: &mut (dyn AsyncWrite + Send + Unpin),
) -> Ended {
    loop {
        let outgoing = tokio::select! {
            outgoing = inbox.recv() => outgoing,
            () = shared.going_down.notified() => return goodbye(shared, writer).await,
        };
        let Some(outgoing) = outgoing else {
            return Ended::Dropped;
        };
        let (header, payload, goodbye) = match outgoing {
            Outgoing::Disconnect(goodbye) => (shared.lock().pipeline.disconnect(), Vec::new(), Some(goodbye)),
            Outgoing::Request { ask, payload, waiting } => {
                let Some((header, payload)) = start(shared, ask, payload, waiting) else {
                    continue;
                };
                (header, payload, None)
            }
        };
        let sent = async {
            writer.write_all(&header).await?;
            writer.write_all(&payload).await?;
            writer.flush().await
        };
        if let Err(error) = sent.await {
            return Ended::Failed(format!("sending failed: {error}"));
        }
        if let Some(goodbye) = goodbye {
            return Ended::Goodbye(goodbye);
        }
    }
}

/// Leaves a server that is going down, as the protocol wants it.
async fn goodbye(shared: &Shared, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> Ended {
    let header = shared.lock().pipeline.disconnect();
    match writer.write_all(&header).await {
        Ok(()) => Ended::GoingDown,
        Err(error) => Ended::Failed(format!("sending failed: {error}")),
    }
}

/// Receives until the connection ends.
async fn read_replies(shared: &Shared, mut reader: Box<dyn AsyncRead + Send + Unpin>, unread: Vec<u8>) {
    let mut buffer = unread;
    let mut events = Vec::new();
    loop {
        let result = shared.lock().pipeline.receive(&buffer, &mut events);
        for Event::Done {
            tag,
            outcome,
            message,
            data,
            statuses,
        } in events.drain(..)
        {
            if outcome == Err(NbdError::Shutdown) {
                shared.end_softly();
            }
            let answer = outcome
                .map(|()| Answered { data, statuses })
                .map_err(|error| ClientError::Server { error, message });
            // The asker may have stopped waiting.
            let _ = tag.answer.send(answer);
        }
        if let Err(misbehaved) = result {
            return shared.fail(&misbehaved.to_string());
        }
        buffer.clear();
        buffer.reserve(READ_SIZE);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return shared.fail("the server closed it"),
            Ok(_) => {}
            Err(error) => return shared.fail(&format!("receiving failed: {error}")),
        }
    }
}
