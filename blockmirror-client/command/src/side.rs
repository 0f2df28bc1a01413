//! An export that a command reads or writes: on one server, or on whichever node of a resource is Primary.

use std::time::Duration;

use blockmirror_client::client::{Access, Client, ClientError, FailoverClient, Patience};
use blockmirror_client::connect::Wishes;
use blockmirror_client::uri::{NbdUri, UriList};
use nbd_proto::Extent;

use crate::failure::Failure;

/// Time a server has to be reached.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Connections to a server on which a flush of one covers all.
const CONNECTIONS: usize = 4;
/// Bytes that go by one connection before the next has its turn.
const TURN: u64 = 1 << 20;
/// Bytes of zeroes written at once to a server that cannot zero.
const WRITTEN_ZEROES: u64 = 1 << 20;

/// An export that is open.
#[derive(Clone)]
pub struct Side {
    /// As it was named.
    pub uri: String,
    /// Bytes.
    pub size: u64,
    connection: Connection,
}

#[derive(Clone)]
enum Connection {
    /// One server, by as many connections as pay.
    One(Vec<Client>),
    Several(FailoverClient),
}

impl Side {
    /// Opens it.
    pub async fn open(uris: &UriList, access: Access) -> Result<Self, Failure> {
        Self::open_with(uris, access, &[]).await
    }

    /// Opens it, with those of these metadata contexts that it has.
    pub async fn open_with(uris: &UriList, access: Access, contexts: &[&str]) -> Result<Self, Failure> {
        let wishes = Wishes {
            contexts: contexts.iter().map(|&name| name.to_owned()).collect(),
            ..Wishes::default()
        };
        let unreachable = |error: ClientError| Failure::Unreachable(error.to_string());
        let (connection, size) = match uris.as_slice() {
            [only] => {
                let clients = connections(only, &wishes).await.map_err(unreachable)?;
                let size = clients.first().map_or(0, Client::size);
                (Connection::One(clients), size)
            }
            _ => {
                let client = FailoverClient::connect_wishing(uris, access, Patience::default(), wishes)
                    .await
                    .map_err(unreachable)?;
                let size = client.size().await;
                (Connection::Several(client), size)
            }
        };
        Ok(Self {
            uri: uris.to_string(),
            size,
            connection,
        })
    }

    pub async fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Failure> {
        // A piece is small.
        let bytes = length as usize;
        let read = match &self.connection {
            Connection::One(clients) => one(clients, offset)?.read(offset, bytes).await,
            Connection::Several(client) => client.read(offset, bytes).await,
        };
        read.map_err(|error| self.failed("read", offset, length, &error))
    }

    /// What a metadata context says from `offset` on, for at least one byte; `None`: the export does not have it, or the
    /// server does not say.
    pub async fn status(&self, context: &str, offset: u64, length: u64) -> Result<Option<Vec<Extent>>, Failure> {
        let told = match &self.connection {
            Connection::One(clients) => one(clients, offset)?.status(context, offset, length).await,
            Connection::Several(client) => client.status(context, offset, length).await,
        };
        match told {
            Ok(extents) => Ok(Some(extents)),
            Err(ClientError::NoContext(_) | ClientError::Server { .. } | ClientError::Start(_)) => Ok(None),
            Err(error) => Err(self.failed("look at", offset, length, &error)),
        }
    }

    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let written = match &self.connection {
            Connection::One(clients) => one(clients, offset)?.write(offset, data, false).await,
            Connection::Several(client) => client.write(offset, data, false).await,
        };
        written.map_err(|error| self.failed("write", offset, data.len() as u64, &error))
    }

    /// Makes a range read as zeroes, without data on the wire where the server can.
    pub async fn zero(&self, offset: u64, length: u64) -> Result<(), Failure> {
        let zeroed = match &self.connection {
            Connection::One(clients) => one(clients, offset)?.zero(offset, length, false, false).await,
            Connection::Several(client) => client.zero(offset, length, false, false).await,
        };
        match zeroed {
            Ok(()) => Ok(()),
            // It has no WRITE_ZEROES.
            Err(ClientError::Start(_)) => self.write_zeroes(offset, length).await,
            Err(error) => Err(self.failed("zero", offset, length, &error)),
        }
    }

    /// Writes zeroes as data, a piece at a time.
    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), Failure> {
        let zeroes = vec![0; length.min(WRITTEN_ZEROES) as usize];
        let mut done = 0;
        while done < length {
            let piece = zeroes.get(..(length - done) as usize).unwrap_or(&zeroes);
            self.write(offset + done, piece).await?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    pub async fn flush(&self) -> Result<(), Failure> {
        let flushed = match &self.connection {
            Connection::One(clients) => one(clients, 0)?.flush().await,
            Connection::Several(client) => client.flush().await,
        };
        flushed.map_err(|error| Failure::Unreachable(format!("cannot make {} durable: {error}", self.uri)))
    }

    /// Parts from it; how it parts changes nothing of what was done.
    pub async fn close(self) {
        match self.connection {
            Connection::One(clients) => {
                for client in clients {
                    let _ = client.disconnect().await;
                }
            }
            Connection::Several(client) => {
                let _ = client.disconnect().await;
            }
        }
    }

    fn failed(&self, verb: &str, offset: u64, length: u64, error: &ClientError) -> Failure {
        Failure::Unreachable(format!(
            "cannot {verb} {length} bytes at {offset} of {}: {error}",
            self.uri
        ))
    }
}

/// One connection, or several where a flush of one covers all. Those beyond the first may be refused.
async fn connections(uri: &NbdUri, wishes: &Wishes) -> Result<Vec<Client>, ClientError> {
    let first = Client::connect_wishing(uri, wishes, CONNECT_DEADLINE).await?;
    let more = if first.limits().can_multi_conn() {
        CONNECTIONS - 1
    } else {
        0
    };
    let mut clients = vec![first];
    for _ in 0..more {
        let Ok(another) = Client::connect_wishing(uri, wishes, CONNECT_DEADLINE).await else {
            break;
        };
        clients.push(another);
    }
    Ok(clients)
}

/// The connection whose turn it is at this place; there is at least one.
fn one(clients: &[Client], offset: u64) -> Result<&Client, Failure> {
    let place = (offset / TURN) as usize % clients.len().max(1);
    clients
        .get(place)
        .ok_or_else(|| Failure::Unreachable("there is no connection".to_owned()))
}
