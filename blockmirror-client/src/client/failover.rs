//! A client that follows the Primary: of several nodes it uses the one that grants the export, and when that one is lost
//! or refuses, the next.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nbd_proto::{Extent, NbdError};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Client, ClientError};
use crate::connect::Wishes;
use crate::uri::{NbdUri, UriList};

/// After the round in which nobody granted the export, the next begins after this, then twice this, and so on,
const ROUND_WAIT_FIRST: Duration = Duration::from_millis(10);
/// up to this: a switchover is not to be prolonged by the client.
const ROUND_WAIT_LONGEST: Duration = Duration::from_millis(200);
/// Time one node has to answer before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(150);
/// Nodes that have not answered when all others have refused are waited for this long, and no longer: who refused may
/// grant it any moment now, and a node that stands still must not keep that from being seen.
const STRAGGLERS_FIRST: Duration = Duration::from_millis(250);
/// Time one node has to grant the export. The wait for stragglers doubles from round to round up to this, since they may
/// be merely slow.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);

/// What is asked of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It grants writes: it is the Primary.
    ReadWrite,
    /// One that grants writes is preferred, one that does not is good enough.
    ReadOnly,
}

/// How much is put up with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// An answer that takes longer means that the node hangs, and the next one is tried.
    pub answer: Duration,
    /// A request fails when it has not been answered by any node for this long.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            total: Duration::from_secs(120),
        }
    }
}

/// A client of one export on several nodes. Clones share its connection.
///
/// A request that was not answered is repeated on the next connection, and block I/O can be: done twice it comes to the
/// same, and who has not been answered does not build on it. A request that was answered is never repeated. What a mode
/// promises about answered writes is the resource's part; with `mode = "async"` a takeover may lose what was not flushed,
/// as a power cut may.
#[derive(Clone)]
pub struct FailoverClient {
    shared: Arc<Shared>,
}

struct Shared {
    uris: UriList,
    access: Access,
    patience: Patience,
    wishes: Wishes,
    present: Mutex<Present>,
}

/// The connection of the moment.
struct Present {
    client: Option<Client>,
    /// Counts connections: who has seen one fail does not take a newer one for it.
    number: u64,
    /// Where it goes; the first to be tried next time.
    at: usize,
    /// The size that was first seen: a node with a smaller export has another one.
    size: u64,
}

impl FailoverClient {
    /// Connects to the first node that grants the export.
    ///
    /// # Errors
    /// None did within the patience.
    pub async fn connect(uris: &UriList, access: Access, patience: Patience) -> Result<Self, ClientError> {
        Self::connect_wishing(uris, access, patience, Wishes::default()).await
    }

    /// As [`connect`](Self::connect), with metadata contexts for [`status`](Self::status).
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn connect_wishing(
        uris: &UriList,
        access: Access,
        patience: Patience,
        wishes: Wishes,
    ) -> Result<Self, ClientError> {
        let shared = Shared {
            uris: uris.clone(),
            access,
            patience,
            wishes,
            present: Mutex::new(Present {
                client: None,
                number: 0,
                at: 0,
                size: 0,
            }),
        };
        let client = Self {
            shared: Arc::new(shared),
        };
        client.present(Instant::now() + patience.total).await?;
        Ok(client)
    }

    /// Size of the export in bytes, as it was when it was first opened.
    pub async fn size(&self) -> u64 {
        self.shared.present.lock().await.size
    }

    /// The node that is used.
    pub async fn uri(&self) -> NbdUri {
        let present = self.shared.present.lock().await;
        self.shared.uris.as_slice()[present.at].clone()
    }

    /// How many connections there have been.
    pub async fn connections(&self) -> u64 {
        self.shared.present.lock().await.number
    }

    /// As [`Client::read`].
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ClientError> {
        self.repeat(|client: Client| async move { client.read(offset, length).await })
            .await
    }

    /// As [`Client::write`].
    pub async fn write(&self, offset: u64, data: &[u8], fua: bool) -> Result<(), ClientError> {
        self.repeat(|client: Client| async move { client.write(offset, data, fua).await })
            .await
    }

    /// As [`Client::status`].
    pub async fn status(&self, context: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ClientError> {
        self.repeat(|client: Client| async move { client.status(context, offset, length).await })
            .await
    }

    /// As [`Client::flush`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.repeat(|client: Client| async move { client.flush().await }).await
    }

    /// As [`Client::trim`].
    pub async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ClientError> {
        self.repeat(|client: Client| async move { client.trim(offset, length, fua).await })
            .await
    }

    /// As [`Client::zero`].
    pub async fn zero(&self, offset: u64, length: u64, no_hole: bool, fua: bool) -> Result<(), ClientError> {
        self.repeat(|client: Client| async move { client.zero(offset, length, no_hole, fua).await })
            .await
    }

    /// As [`Client::disconnect`], when there is a connection.
    pub async fn disconnect(self) -> Result<(), ClientError> {
        let client = self.shared.present.lock().await.client.take();
        match client {
            Some(client) => client.disconnect().await,
            None => Ok(()),
        }
    }

    /// Ask until somebody has answered.
    async fn repeat<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let patience = self.shared.patience;
        let deadline = Instant::now() + patience.total;
        loop {
            let (client, number) = self.present(deadline).await?;
            let until = (Instant::now() + patience.answer).min(deadline);
            let problem = match timeout_at(until, ask(client)).await {
                Ok(Err(error)) if is_of_the_node(&error) => error.to_string(),
                Ok(answer) => return answer,
                Err(_) => format!("no answer within {:.1} s", patience.answer.as_secs_f64()),
            };
            self.give_up(number).await;
            if Instant::now() >= deadline {
                return Err(self.exhausted(problem));
            }
        }
    }

    /// Forget connection `number`, unless a newer one is there.
    async fn give_up(&self, number: u64) {
        let mut present = self.shared.present.lock().await;
        if present.number == number {
            present.client = None;
        }
    }

    /// The connection, a new one if there is none.
    async fn present(&self, deadline: Instant) -> Result<(Client, u64), ClientError> {
        let mut present = self.shared.present.lock().await;
        let (mut wait, mut stragglers) = (ROUND_WAIT_FIRST, STRAGGLERS_FIRST);
        let mut told = None;
        loop {
            if let Some(client) = &present.client {
                return Ok((client.clone(), present.number));
            }
            let problem = match self.round(&present, stragglers, deadline).await {
                Ok((at, client)) => {
                    present.at = at;
                    present.number += 1;
                    present.size = present.size.max(client.size());
                    present.client = Some(client);
                    continue;
                }
                Err(problem) => problem,
            };
            // The round that time runs out in does not hear of every node: the one before it tells more.
            let problem = match told.take() {
                Some(fuller) if Instant::now() >= deadline => fuller,
                _ => problem,
            };
            if Instant::now() + wait >= deadline {
                return Err(self.exhausted(problem));
            }
            told = Some(problem);
            sleep(wait).await;
            wait = (wait * 2).min(ROUND_WAIT_LONGEST);
            stragglers = (stragglers * 2).min(ATTEMPT_DEADLINE);
        }
    }

    /// Try every node once, the last one used first; a node that is slow to answer does not hold up the next.
    async fn round(
        &self,
        present: &Present,
        stragglers: Duration,
        deadline: Instant,
    ) -> Result<(usize, Client), String> {
        let uris = self.shared.uris.as_slice();
        let size = present.size;
        let mut order = (0..uris.len()).map(|step| (present.at + step) % uris.len());
        let mut attempts = JoinSet::new();
        let mut problems = Vec::new();
        let mut second_best = None;
        loop {
            let next = order.next();
            if let Some(at) = next {
                let (uri, wishes) = (uris[at].clone(), self.shared.wishes.clone());
                attempts.spawn(async move { (at, open(&uri, &wishes, size).await) });
            }
            let patience = if next.is_some() {
                Instant::now() + HEAD_START
            } else if problems.is_empty() {
                deadline
            } else {
                deadline.min(Instant::now() + stragglers)
            };
            match timeout_at(patience, attempts.join_next()).await {
                Ok(Some(Ok((at, Ok(client))))) if is_writable(&client) => return Ok((at, client)),
                Ok(Some(Ok((at, Ok(client))))) => {
                    problems.push(format!("{} grants no writes", uris[at]));
                    second_best.get_or_insert((at, client));
                }
                Ok(Some(Ok((_, Err(problem))))) => problems.push(problem),
                // An attempt that was cut short says nothing.
                Ok(Some(Err(_))) => {}
                Ok(None) => break,
                Err(_) if next.is_some() => {}
                Err(_) => break,
            }
        }
        match second_best {
            Some(found) if self.shared.access == Access::ReadOnly => Ok(found),
            _ => Err(problems.join("; ")),
        }
    }

    fn exhausted(&self, last: String) -> ClientError {
        ClientError::Exhausted {
            after: self.shared.patience.total,
            last,
        }
    }
}

impl fmt::Debug for FailoverClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverClient")
            .field("uris", &self.shared.uris)
            .finish_non_exhaustive()
    }
}

async fn open(uri: &NbdUri, wishes: &Wishes, size: u64) -> Result<Client, String> {
    let client = Client::connect_wishing(uri, wishes, ATTEMPT_DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    if client.size() < size {
        return Err(format!(
            "{uri} has {} bytes, and the export that was opened first has {size}: it is another one",
            client.size()
        ));
    }
    Ok(client)
}

fn is_writable(client: &Client) -> bool {
    !client.limits().read_only()
}

/// Whether another node, or the same one later, may do better.
fn is_of_the_node(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Lost(_)
            | ClientError::Connect(_)
            | ClientError::Server {
                error: NbdError::Shutdown,
                ..
            }
    )
}
