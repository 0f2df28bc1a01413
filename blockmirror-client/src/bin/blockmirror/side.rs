//! An export that a command reads or writes: on one server, or on whichever node of a resource is Primary.

use std::time::Duration;

use blockmirror_client::client::{Access, Client, ClientError, FailoverClient, Patience};
use blockmirror_client::connect::Wishes;
use blockmirror_client::uri::UriList;
use nbd_proto::Extent;

use crate::failure::Failure;

/// Time a server has to be reached.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
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
    One(Client),
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
                let client = Client::connect_wishing(only, &wishes, CONNECT_DEADLINE)
                    .await
                    .map_err(unreachable)?;
                let size = client.size();
                (Connection::One(client), size)
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
            Connection::One(client) => client.read(offset, bytes).await,
            Connection::Several(client) => client.read(offset, bytes).await,
        };
        read.map_err(|error| self.failed("read", offset, length, &error))
    }

    /// What a metadata context says from `offset` on, for at least one byte; `None`: the export does not have it, or the
    /// server does not say.
    pub async fn status(&self, context: &str, offset: u64, length: u64) -> Result<Option<Vec<Extent>>, Failure> {
        let told = match &self.connection {
            Connection::One(client) => client.status(context, offset, length).await,
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
            Connection::One(client) => client.write(offset, data, false).await,
            Connection::Several(client) => client.write(offset, data, false).await,
        };
        written.map_err(|error| self.failed("write", offset, data.len() as u64, &error))
    }

    /// Makes a range read as zeroes, without data on the wire where the server can.
    pub async fn zero(&self, offset: u64, length: u64) -> Result<(), Failure> {
        let zeroed = match &self.connection {
            Connection::One(client) => client.zero(offset, length, false, false).await,
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
            Connection::One(client) => client.flush().await,
            Connection::Several(client) => client.flush().await,
        };
        flushed.map_err(|error| Failure::Unreachable(format!("cannot make {} durable: {error}", self.uri)))
    }

    /// Parts from it; how it parts changes nothing of what was done.
    pub async fn close(self) {
        let _ = match self.connection {
            Connection::One(client) => client.disconnect().await,
            Connection::Several(client) => client.disconnect().await,
        };
    }

    fn failed(&self, verb: &str, offset: u64, length: u64, error: &ClientError) -> Failure {
        Failure::Unreachable(format!(
            "cannot {verb} {length} bytes at {offset} of {}: {error}",
            self.uri
        ))
    }
}
