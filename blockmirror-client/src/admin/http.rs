//! HTTP over a Unix socket, one connection per request: an operator's command, not a data path.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::order::encoded;
use super::{
    BRANCHES_PATH, BranchReport, ErrorBody, NeedsAccept, Order, OrderDone, PeerCommand, RELOAD_PATH, ReloadReport,
    STATUS_PATH, StatusReport, WhyReport,
};

/// Longest answer read, in bytes.
pub const MAX_RESPONSE: usize = 16 << 20;
/// Longest wait for one answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for an order to be carried out: a switchover drains what is in flight, a resize asks every node.
const ORDER_DEADLINE: Duration = Duration::from_secs(180);

/// Asks a daemon over its admin socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

/// Why the daemon gave no answer, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no socket.
    #[error("no admin socket at {}: is blockmirror-server running, and is this the `admin` of its configuration?", .0.display())]
    NoSocket(PathBuf),
    /// The socket is there and nobody listens.
    #[error("nobody listens on the admin socket {}: blockmirror-server is not running (it left the socket behind); start it", .0.display())]
    NotRunning(PathBuf),
    /// The user may not open it.
    #[error("no permission to open the admin socket {}: run as root or as the daemon's user", .0.display())]
    Permission(PathBuf),
    /// The path is longer than the system permits, names something else than a socket, and so on.
    #[error("cannot open the admin socket {}: {source}", socket.display())]
    Open {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the daemon at {} did not answer within {} s: see its log", socket.display(), after.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long we waited.
        after: Duration,
    },
    /// The connection broke, or what listens does not speak HTTP.
    #[error("no proper answer from {} ({problem}): is it the admin socket, and what does the daemon's log say?", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        problem: String,
    },
    /// An answer that is not the admin API's.
    #[error("the daemon at {} sent an answer this version does not understand ({problem}); use the blockmirror command of the daemon's version", socket.display())]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The daemon refuses.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        error: String,
        /// It would be done if this were quoted back.
        needs_accept: Option<Box<NeedsAccept>>,
    },
}

impl AdminError {
    /// Whether there is no daemon to talk to (and not: one that said no).
    pub fn is_unreachable(&self) -> bool {
        !matches!(self, AdminError::Refused { .. } | AdminError::NotUnderstood { .. })
    }
}

impl AdminClient {
    /// A client for the daemon listening at `socket`; connects for each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket it asks.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's whole state.
    pub async fn status(&self) -> Result<StatusReport, AdminError> {
        self.request(Method::GET, STATUS_PATH).await
    }

    /// Asks something of the peer `peer` of the volume exported as `volume`; returns when the daemon has accepted it.
    pub async fn command(&self, volume: &str, peer: &str, command: PeerCommand) -> Result<(), AdminError> {
        let path = format!(
            "/v1/volumes/{}/peers/{}/{}",
            encoded(volume),
            encoded(peer),
            command.path()
        );
        self.request::<serde_json::Value>(Method::POST, &path).await.map(|_| ())
    }

    /// Gives an order; returns when it has been carried out, or could not be.
    pub async fn order(&self, order: &Order) -> Result<OrderDone, AdminError> {
        self.within(Method::POST, &order.path(), ORDER_DEADLINE).await
    }

    /// The reasons behind the present state of `resource`.
    pub async fn why(&self, resource: &str) -> Result<WhyReport, AdminError> {
        let path = format!("/v1/resources/{}/why", encoded(resource));
        self.request(Method::GET, &path).await
    }

    /// What was saved before it was overwritten.
    pub async fn branches(&self) -> Result<BranchReport, AdminError> {
        self.request(Method::GET, BRANCHES_PATH).await
    }

    /// Has the configuration read again.
    pub async fn reload(&self) -> Result<ReloadReport, AdminError> {
        self.within(Method::POST, RELOAD_PATH, ORDER_DEADLINE).await
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, AdminError> {
        self.within(method, path, REQUEST_DEADLINE).await
    }

    async fn within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        deadline: Duration,
    ) -> Result<T, AdminError> {
        let (status, body) = tokio::time::timeout(deadline, self.exchange(method, path))
            .await
            .map_err(|_| AdminError::Timeout {
                socket: self.socket.clone(),
                after: deadline,
            })??;
        if !status.is_success() {
            // A proxy or another program may answer something else than our JSON: show what it says, not how it failed.
            let body = serde_json::from_slice::<ErrorBody>(&body)
                .unwrap_or_else(|_| ErrorBody::new(format!("the daemon answered {status}")));
            return Err(AdminError::Refused {
                status: status.as_u16(),
                error: body.error,
                needs_accept: body.needs_accept.map(Box::new),
            });
        }
        let body = if body.is_empty() { &b"null"[..] } else { &body[..] };
        serde_json::from_slice(body).map_err(|error| AdminError::NotUnderstood {
            socket: self.socket.clone(),
            problem: error.to_string(),
        })
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), AdminError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| self.open_error(source))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "blockmirror")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error));
        let answer = match response {
            Ok(response) => {
                let status = response.status();
                let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
                body.map(|body| (status, body.to_bytes()))
                    .map_err(|error| self.broken(error))
            }
            Err(error) => Err(error),
        };
        driver.abort();
        answer
    }

    fn open_error(&self, source: io::Error) -> AdminError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => AdminError::NoSocket(socket),
            io::ErrorKind::ConnectionRefused => AdminError::NotRunning(socket),
            io::ErrorKind::PermissionDenied => AdminError::Permission(socket),
            _ => AdminError::Open { socket, source },
        }
    }

    fn broken(&self, problem: impl ToString) -> AdminError {
        AdminError::Broken {
            socket: self.socket.clone(),
            problem: problem.to_string(),
        }
    }
}
