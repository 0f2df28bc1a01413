//! The five flag words of the protocol.

use bitflags::bitflags;

bitflags! {
    /// What the server offers in its greeting.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HandshakeFlags: u16 {
        /// Fixed newstyle: unknown options are answered, not fatal.
        const FIXED_NEWSTYLE = 1 << 0;
        /// The 124 zeroes after `EXPORT_NAME` may be left out.
        const NO_ZEROES = 1 << 1;
    }

    /// What the client takes up of it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ClientFlags: u32 {
        /// The client speaks fixed newstyle.
        const FIXED_NEWSTYLE = 1 << 0;
        /// The client wants no zeroes after `EXPORT_NAME`.
        const NO_ZEROES = 1 << 1;
    }

    /// What an export can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransmissionFlags: u16 {
        /// Always set: this word carries flags.
        const HAS_FLAGS = 1 << 0;
        /// Nothing may be changed.
        const READ_ONLY = 1 << 1;
        /// FLUSH is served.
        const SEND_FLUSH = 1 << 2;
        /// The FUA command flag is served, on every command.
        const SEND_FUA = 1 << 3;
        /// A hint: seeks are expensive.
        const ROTATIONAL = 1 << 4;
        /// TRIM is served.
        const SEND_TRIM = 1 << 5;
        /// WRITE_ZEROES and its NO_HOLE flag are served.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// The DF command flag is served. Only with structured replies or extended headers.
        const SEND_DF = 1 << 7;
        /// A flush on one connection covers all of them.
        const CAN_MULTI_CONN = 1 << 8;
        /// Experimental: RESIZE is served.
        const SEND_RESIZE = 1 << 9;
        /// CACHE is served.
        const SEND_CACHE = 1 << 10;
        /// The FAST_ZERO command flag is served.
        const SEND_FAST_ZERO = 1 << 11;
        /// BLOCK_STATUS takes a payload that names the contexts wanted. Only with extended headers.
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
    }

    /// Modifiers of one request.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// Durable before the reply.
        const FUA = 1 << 0;
        /// WRITE_ZEROES: leave the range provisioned.
        const NO_HOLE = 1 << 1;
        /// READ: at most one content chunk.
        const DF = 1 << 2;
        /// BLOCK_STATUS: one extent only.
        const REQ_ONE = 1 << 3;
        /// WRITE_ZEROES: fail unless it is faster than writing.
        const FAST_ZERO = 1 << 4;
        /// Extended headers: the length is that of a payload.
        const PAYLOAD_LEN = 1 << 5;
    }

    /// Flags of a structured reply chunk.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ReplyFlags: u16 {
        /// The last chunk of this reply.
        const DONE = 1 << 0;
    }
}
