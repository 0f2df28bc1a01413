//! The errors a reply can carry.

/// An error on the wire. The values are the protocol's own; raw errno never goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
pub enum NbdError {
    /// `NBD_EPERM`: the export is read-only.
    #[error("operation not permitted (EPERM)")]
    Perm = 1,
    /// `NBD_EIO`: the device failed.
    #[error("input/output error (EIO)")]
    Io = 5,
    /// `NBD_ENOMEM`: no memory for this request.
    #[error("out of memory (ENOMEM)")]
    NoMem = 12,
    /// `NBD_EINVAL`: the request makes no sense; also stands for every value that is not known.
    #[error("invalid request (EINVAL)")]
    Invalid = 22,
    /// `NBD_ENOSPC`: past the end, or the device is full.
    #[error("no space left (ENOSPC)")]
    NoSpace = 28,
    /// `NBD_EOVERFLOW`: too long to be answered in one piece.
    #[error("too long for one reply (EOVERFLOW)")]
    Overflow = 75,
    /// `NBD_ENOTSUP`: zeroing would not be fast.
    #[error("not supported (ENOTSUP)")]
    NotSupported = 95,
    /// `NBD_ESHUTDOWN`: the server is going down.
    #[error("the server is shutting down (ESHUTDOWN)")]
    Shutdown = 108,
}

impl NbdError {
    /// Every error the protocol knows.
    pub const ALL: [Self; 8] = [
        Self::Perm,
        Self::Io,
        Self::NoMem,
        Self::Invalid,
        Self::NoSpace,
        Self::Overflow,
        Self::NotSupported,
        Self::Shutdown,
    ];

    /// The error a wire value means. A value the protocol does not know counts as [`NbdError::Invalid`].
    ///
    /// Zero is not an error; callers have dealt with it before.
    pub fn from_wire(value: u32) -> Self {
        Self::ALL
            .into_iter()
            .find(|error| error.to_wire() == value)
            .unwrap_or(Self::Invalid)
    }

    /// The value that goes out.
    pub fn to_wire(self) -> u32 {
        self as u32
    }
}
