//! Every number of the protocol that is not a flag, and every limit this crate sets.

/// First eight bytes of every server: `NBDMAGIC`.
pub const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second eight bytes of a newstyle server, and the start of every option: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second eight bytes of an oldstyle server, which cannot be negotiated with.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Starts every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts every request of the transmission phase.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts every request once extended headers were negotiated.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Starts a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Starts a structured reply chunk.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// Starts every reply once extended headers were negotiated.
pub const EXTENDED_CHUNK_MAGIC: u32 = 0x6e8a_278c;

/// Bytes of the server's greeting: two magics and the handshake flags.
pub const GREETING_LENGTH: usize = 18;
/// Bytes of the client flags that answer it.
pub const CLIENT_FLAGS_LENGTH: usize = 4;
/// Bytes of an option's header: magic, option, data length.
pub const OPTION_HEADER_LENGTH: usize = 16;
/// Bytes of an option reply's header: magic, option, reply type, data length.
pub const OPTION_REPLY_HEADER_LENGTH: usize = 20;
/// Size and flags that answer `NBD_OPT_EXPORT_NAME`.
pub const EXPORT_NAME_REPLY_LENGTH: usize = 10;
/// Zeroes that follow them unless both sides agreed on `NO_ZEROES`.
pub const EXPORT_NAME_PADDING: usize = 124;
/// Bytes of a compact request header.
pub const REQUEST_LENGTH: usize = 28;
/// Bytes of an extended request header.
pub const EXTENDED_REQUEST_LENGTH: usize = 32;
/// Bytes of a simple reply header.
pub const SIMPLE_REPLY_LENGTH: usize = 16;
/// Bytes of a structured chunk header.
pub const CHUNK_HEADER_LENGTH: usize = 20;
/// Bytes of an extended chunk header.
pub const EXTENDED_CHUNK_HEADER_LENGTH: usize = 32;

/// Longest string (name, description, error text) the protocol allows, in bytes.
pub const MAX_STRING: usize = 4096;
/// Most bytes of one option's data the server keeps. A longer option is skipped and refused.
///
/// Room for the longest name and more information requests than there are kinds of information.
pub const MAX_OPTION_DATA: usize = 8192;
/// The vendor option by which one blockmirror asks another for a replication stream: `bmrs` as a number. Every other
/// server answers it with `NBD_REP_ERR_UNSUP`.
pub const UPGRADE_OPTION: u32 = 0x626d_7273;
/// The type of the reply that grants it. The handshake is over with it, and with the option's answer nothing else comes.
pub const UPGRADE_REPLY: u32 = 0x626d_7273;
/// Most bytes of what the two say to each other in the option and its reply.
pub const MAX_UPGRADE_DATA: usize = 64 * 1024;
/// Most options one client may send in a handshake before the server gives up on it.
pub const MAX_OPTIONS: u32 = 1024;
/// The server stops reading options once one call has produced this many reply bytes, so that a client which sends
/// many options and reads nothing cannot make the replies pile up.
pub const REPLY_BYTES_PER_CALL: usize = 64 * 1024;
/// Most bytes of one information reply the client keeps.
pub const MAX_INFO_REPLY: usize = 8192;
/// Most replies to one INFO or GO option the client reads before the final one.
pub const MAX_INFO_REPLIES: u32 = 64;
/// Most metadata contexts one connection may select, and most queries one option may carry. A server has a few.
pub const MAX_CONTEXTS: usize = 64;
/// Most bytes of the data of one LIST_META_CONTEXT or SET_META_CONTEXT: an export's name and queries.
pub const MAX_CONTEXT_QUERY: usize = 64 * 1024;
/// Most extents of one block status chunk (the protocol's own number).
pub const MAX_STATUS_EXTENTS: u32 = 1 << 20;
/// Most metadata contexts the client reads from one list: a server with many bitmaps.
pub const MAX_LISTED_CONTEXTS: usize = 1024;
/// Most exports the client reads from one LIST.
pub const MAX_LISTED_EXPORTS: usize = 10_000;
/// Most bytes of names and descriptions the client keeps from one LIST.
pub const MAX_LISTED_BYTES: usize = 8 * 1024 * 1024;
/// Most payload bytes of one error chunk: the fixed fields, the longest text, an offset, and room for kinds of error
/// that are not known yet.
pub const MAX_ERROR_CHUNK: u32 = 8192;

/// Largest minimum block size the protocol allows.
pub const MAX_MINIMUM_BLOCK: u32 = 65_536;
/// Smallest preferred block size the protocol allows.
pub const MIN_PREFERRED_BLOCK: u32 = 512;
/// Payload every server is expected to take when nothing was negotiated: 32 MiB.
pub const DEFAULT_MAXIMUM_PAYLOAD: u32 = 32 * 1024 * 1024;
/// Preferred block size when nothing was negotiated.
pub const DEFAULT_PREFERRED_BLOCK: u32 = 4096;
/// Longest READ whose data still fits one chunk beside its offset.
pub const MAX_READ: u32 = u32::MAX - 8;
/// A maximum payload of this value means the server sets no limit.
pub const UNLIMITED_PAYLOAD: u32 = u32::MAX;

/// Information types of INFO and GO.
pub mod info {
    /// Size and transmission flags. Always sent.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// Human description.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred and maximum sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands of the transmission phase.
pub mod command {
    /// Read a range.
    pub const READ: u16 = 0;
    /// Write a range; the payload follows the header.
    pub const WRITE: u16 = 1;
    /// End the session. Never answered.
    pub const DISCONNECT: u16 = 2;
    /// Make everything answered so far durable.
    pub const FLUSH: u16 = 3;
    /// Contents of the range are no longer needed.
    pub const TRIM: u16 = 4;
    /// Prefetch a range.
    pub const CACHE: u16 = 5;
    /// Make a range read back as zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Describe a range in the metadata contexts that were selected.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Types of structured reply chunks.
pub mod chunk {
    /// No content; ends a reply that succeeded.
    pub const NONE: u16 = 0;
    /// Offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Offset and a length that reads as zeroes.
    pub const OFFSET_HOLE: u16 = 2;
    /// A metadata context and its extents, in 32 bits.
    pub const BLOCK_STATUS: u16 = 5;
    /// A metadata context and its extents, in 64 bits. Only with extended headers.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// Set in every type that reports an error.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// An error and its text.
    pub const ERROR: u16 = ERROR_BIT | 1;
    /// An error, its text, and where it happened.
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
}
