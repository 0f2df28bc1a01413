//! What can go wrong in the transmission phase on our side; the server's faults are [`nbd_proto::PeerMisbehaved`].

/// We asked for something that cannot be sent. Nothing was sent, the connection is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The window is full: wait for an answer.
    #[error("{window} requests are in flight, which is the window: wait for an answer")]
    WindowFull {
        /// The window.
        window: usize,
    },
    /// The range is not within the export.
    #[error("{length} bytes at offset {offset} are not within the export of {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Size of the export.
        size: u64,
    },
    /// A request for no bytes; what servers do with it is not specified.
    #[error("the request is for no bytes")]
    Empty,
    /// Not a multiple of the server's minimum block size.
    #[error("{length} bytes at offset {offset}: the server takes only multiples of {block} bytes")]
    Misaligned {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The server's minimum block size.
        block: u32,
    },
    /// More payload than the server takes, or a longer range than there is room for in the header: split it.
    #[error("{length} bytes at once, and {maximum} at most can be asked for: split the request")]
    TooLong {
        /// Bytes.
        length: u64,
        /// The maximum, for this command on this connection.
        maximum: u64,
    },
    /// The server did not offer this.
    #[error("the server does not offer {0}")]
    NotOffered(&'static str),
    /// The server refuses every change.
    #[error("the server exports it read-only")]
    ReadOnly,
    /// A metadata context that was not selected.
    #[error("metadata context {0} was not selected")]
    NoSuchContext(u32),
    /// DISC is not a request with an answer: use [`Pipeline::disconnect`](super::Pipeline::disconnect).
    #[error("DISC is not a request with an answer")]
    Disconnect,
    /// The connection is closing or broken: nothing more can be started.
    #[error("the connection is closing")]
    Closing,
}
