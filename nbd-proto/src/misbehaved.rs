//! What a peer can do against the protocol: one variant per rule.

use alloc::string::String;

use crate::constants::{
    CHUNK_MAGIC, EXTENDED_CHUNK_MAGIC, EXTENDED_REQUEST_MAGIC, GREETING_MAGIC, MAX_LISTED_BYTES, MAX_LISTED_EXPORTS,
    MAX_OPTIONS, MAX_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC,
};
use crate::option::OptionCode;

/// The other end broke a rule after which the connection cannot go on. It must be closed.
///
/// Nothing of this is our fault, and nothing of it can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    // A client, during the handshake.
    /// A client flag that is unknown or was not offered.
    #[error("the client set flags {0:#x}, which were not offered; it may speak a newer protocol or not NBD at all")]
    UnknownClientFlags(u32),
    /// An option did not start with its magic.
    #[error("an option starts with {0:#018x} instead of {OPTION_MAGIC:#018x}: the client lost its place")]
    BadOptionMagic(u64),
    /// A client that negotiates without end.
    #[error("more than {MAX_OPTIONS} options in one handshake")]
    TooManyOptions,
    /// EXPORT_NAME for an export that is not there. Only closing can answer that option.
    #[error("there is no export {0:?}, and EXPORT_NAME leaves no other answer than closing")]
    NoSuchExport(String),
    /// EXPORT_NAME for an export that may not be opened now. Only closing can answer that option.
    #[error("{0}; EXPORT_NAME leaves no other answer than closing")]
    NotAdmitted(String),
    /// EXPORT_NAME with a name that is too long. Only closing can answer that option.
    #[error("EXPORT_NAME carries a name of {0} bytes; the limit is {MAX_STRING}")]
    ExportNameTooLong(u32),
    /// EXPORT_NAME outside TLS where only TLS serves. Only closing can answer that option.
    #[error("EXPORT_NAME came outside TLS for what is served inside it only, and leaves no other answer than closing")]
    ExportNameOutsideTls,
    /// EXPORT_NAME after EXTENDED_HEADERS, which need GO. Only closing can answer that option.
    #[error("EXPORT_NAME came after EXTENDED_HEADERS, which go with GO only, and leaves no other answer than closing")]
    ExportNameWithExtendedHeaders,
    /// A client that could not ask for TLS where nothing goes without.
    #[error("the client does not speak fixed newstyle, so it cannot start TLS, without which nothing is served here")]
    TlsNeedsFixedNewstyle,
    /// EXPORT_NAME while the server goes down. Only closing can answer that option.
    #[error("EXPORT_NAME came while the server is shutting down, and leaves no other answer than closing")]
    ExportNameAtShutdown,

    // A server, during the handshake.
    /// The first bytes are not NBD's.
    #[error("the server greets with {0:#018x} instead of {GREETING_MAGIC:#018x}: this is not an NBD server")]
    BadGreetingMagic(u64),
    /// The server speaks the protocol of before 2011.
    #[error("the server offers only the oldstyle handshake, which cannot name an export; configure newstyle there")]
    OldstyleServer,
    /// The second magic of the greeting is wrong.
    #[error("the greeting goes on with {0:#018x} instead of {OPTION_MAGIC:#018x}")]
    BadNewstyleMagic(u64),
    /// The server cannot be asked: its newstyle is not the fixed one.
    #[error("the server does not offer fixed newstyle, so it cannot be asked for {0}")]
    NotFixedNewstyle(OptionCode),
    /// A reply to an option did not start with its magic.
    #[error("an option reply starts with {0:#018x} instead of {OPTION_REPLY_MAGIC:#018x}")]
    BadOptionReplyMagic(u64),
    /// The reply names another option than the one that was sent.
    #[error("the server answered {got} while {expected} was asked")]
    ReplyToOtherOption {
        /// The option that was sent.
        expected: OptionCode,
        /// The option the reply names.
        got: OptionCode,
    },
    /// A reply type that does not belong to this option.
    #[error("reply type {reply:#x} does not answer {option}")]
    UnexpectedReplyType {
        /// The option that was sent.
        option: OptionCode,
        /// The type that came.
        reply: u32,
    },
    /// A reply longer than its type can be.
    #[error("a reply to {option} announces {length} bytes; the limit is {limit}")]
    OptionReplyTooLong {
        /// The option that was sent.
        option: OptionCode,
        /// Bytes announced.
        length: u32,
        /// Most bytes this type may have.
        limit: u32,
    },
    /// An acknowledgement has no data.
    #[error("the acknowledgement of {option} carries {length} bytes; it must carry none")]
    AckWithData {
        /// The option that was sent.
        option: OptionCode,
        /// Bytes announced.
        length: u32,
    },
    /// Something came in the clear behind the answer that grants TLS: the server's fault, or somebody else's words.
    #[error("{0} bytes came in the clear behind the answer to STARTTLS; somebody may be changing what the server says")]
    PlaintextBehindStartTls(usize),
    /// A listed export whose name does not fit its reply.
    #[error("a listed export of {length} bytes is too short for the name it announces")]
    ServerReplyTruncated {
        /// Bytes of the reply.
        length: usize,
    },
    /// A list without end.
    #[error("the server lists more than {MAX_LISTED_EXPORTS} exports or {MAX_LISTED_BYTES} bytes of names")]
    ListTooLong,
    /// Information replies without end.
    #[error("too many information replies to {0}")]
    TooManyReplies(OptionCode),
    /// An information reply too short for its own type.
    #[error("an information reply of {length} bytes has no room for its type")]
    InfoWithoutType {
        /// Bytes of the reply.
        length: usize,
    },
    /// An information reply of the wrong length.
    #[error("information type {info} cannot have {length} bytes")]
    WrongInfoLength {
        /// Type of the information.
        info: u16,
        /// Bytes of the reply, type included.
        length: usize,
    },
    /// INFO or GO was acknowledged before size and flags were told.
    #[error("the server acknowledged {0} without telling size and flags")]
    NoExportInfo(OptionCode),
    /// The export's flags do not say that they are flags.
    #[error("the export's flags {0:#06x} lack HAS_FLAGS")]
    NoHasFlags(u16),
    /// Block sizes against the rules.
    #[error(
        "block sizes minimum {minimum}, preferred {preferred}, maximum payload {maximum_payload} break the rules: \
         minimum a power of two up to 65536, preferred a power of two from 512 and the minimum up, maximum a multiple \
         of the minimum and not below the preferred"
    )]
    BadBlockSizes {
        /// As the server told it.
        minimum: u32,
        /// As the server told it.
        preferred: u32,
        /// As the server told it.
        maximum_payload: u32,
    },
    /// A metadata context too short for its own fields.
    #[error("a metadata context of {length} bytes has no room for its number and a name")]
    ContextTruncated {
        /// Bytes of the reply.
        length: usize,
    },
    /// A metadata context was selected that nobody asked for.
    #[error("the server selected metadata context {0:?}, which was not asked for")]
    ContextUnasked(String),
    /// Two metadata contexts under one number.
    #[error("the server selected two metadata contexts under number {0}")]
    ContextTwice(u32),
    /// A string longer than the protocol allows.
    #[error("{what} of {length} bytes; the limit is {MAX_STRING}")]
    StringTooLong {
        /// Which string.
        what: &'static str,
        /// Its bytes.
        length: usize,
    },
    /// A string that is not UTF-8 or has a NUL in it.
    #[error("{what} is not UTF-8 text, or has a NUL in it")]
    NotText {
        /// Which string.
        what: &'static str,
    },

    // A client, in the transmission phase.
    /// A request did not start with its magic.
    #[error("a request starts with {0:#010x} instead of {REQUEST_MAGIC:#010x}: the client lost its place")]
    BadRequestMagic(u32),
    /// An extended request did not start with its magic.
    #[error(
        "a request starts with {0:#010x} instead of {EXTENDED_REQUEST_MAGIC:#010x}, which extended headers ask for: \
         the client lost its place"
    )]
    BadExtendedRequestMagic(u32),
    /// A payload longer than anything that was offered.
    #[error("a request announces a payload of {length} bytes; the limit is {limit}")]
    PayloadTooLong {
        /// Bytes announced.
        length: u64,
        /// Most bytes a payload may have.
        limit: u64,
    },

    // A server, in the transmission phase.
    /// Neither a simple reply nor a chunk.
    #[error(
        "a reply starts with {0:#010x} instead of {SIMPLE_REPLY_MAGIC:#010x}, {CHUNK_MAGIC:#010x} or \
         {EXTENDED_CHUNK_MAGIC:#010x}"
    )]
    BadReplyMagic(u32),
    /// A chunk though structured replies were not negotiated.
    #[error("a structured reply came, but structured replies were not negotiated")]
    StructuredNotNegotiated,
    /// An extended chunk though extended headers were not negotiated.
    #[error("an extended reply came, but extended headers were not negotiated")]
    ExtendedNotNegotiated,
    /// Extended headers were negotiated, and a reply came without one.
    #[error("a compact reply came, but extended headers were negotiated")]
    CompactReply,
    /// An extended reply repeats another offset than its request's.
    #[error("a reply repeats offset {got}, and its request was for {asked}")]
    OtherOffset {
        /// As the reply has it.
        got: u64,
        /// As it was asked for.
        asked: u64,
    },
    /// A READ was answered simply though structured replies were negotiated.
    #[error("a READ was answered with a simple reply, but structured replies were negotiated")]
    SimpleReplyToRead,
    /// A chunk type that is not known and not an error.
    #[error("chunk type {0} is unknown")]
    UnknownChunkType(u16),
    /// A chunk whose length does not fit its type.
    #[error("chunk type {kind:#x} cannot have {length} bytes")]
    WrongChunkLength {
        /// Type on the wire.
        kind: u16,
        /// Bytes announced.
        length: u64,
    },
    /// An empty chunk that is not the last of its reply.
    #[error("a chunk without content must be the last of its reply")]
    NoneChunkNotDone,
    /// An error chunk whose text does not fit.
    #[error("an error chunk of {length} bytes has no room for the text of {announced} bytes it announces")]
    ErrorTextTruncated {
        /// Bytes of the chunk.
        length: usize,
        /// Bytes of text announced.
        announced: usize,
    },
    /// An error chunk with bytes after its last field.
    #[error("an error chunk has {0} bytes after its last field")]
    ErrorChunkTooLong(usize),
    /// An error chunk that reports success.
    #[error("an error chunk carries error 0")]
    ErrorChunkWithoutError,
    /// A block status whose number of extents is not the one it announces.
    #[error("a block status announces {announced} extents and carries {carried}")]
    WrongExtentCount {
        /// As its own field says.
        announced: u32,
        /// As its length says.
        carried: usize,
    },
    /// An extent of no length.
    #[error("a block status has an extent of length 0")]
    EmptyExtent,
    /// A block status for a context that was not asked for, or that was answered before.
    #[error("a block status for metadata context {0}, which was not asked for or has been answered")]
    UnexpectedContext(u32),
    /// The reply to a BLOCK_STATUS ended without one of the contexts.
    #[error("the reply to a BLOCK_STATUS ended without metadata context {0}")]
    ContextMissing(u32),
    /// A block status with an extent that begins behind the range, or more extents than were asked for.
    #[error("a block status goes on behind the {length} bytes at {offset} that were asked for")]
    ExtentsTooMany {
        /// First byte that was asked for.
        offset: u64,
        /// Bytes that were asked for.
        length: u64,
    },
    /// A block status that goes on behind the end of the export.
    #[error("a block status of {described} bytes from {offset} on goes beyond the end of the export")]
    ExtentsBeyondEnd {
        /// First byte that was asked for.
        offset: u64,
        /// Bytes of all extents.
        described: u64,
    },
    /// A hole of no length.
    #[error("a hole chunk of length 0")]
    EmptyHole,
    /// A reply to nothing that was asked.
    #[error("a reply for cookie {0:#x}, which is not in flight")]
    UnknownCookie(u64),
    /// Content for a command that has none.
    #[error("a content chunk (type {kind:#x}) answers a request that reads nothing")]
    UnexpectedContent {
        /// Type on the wire.
        kind: u16,
    },
    /// Content that lies outside the range that was asked.
    #[error("a chunk for {length} bytes at {offset} lies outside the request")]
    ContentOutsideRequest {
        /// Start, in bytes from the start of the export.
        offset: u64,
        /// Bytes of the chunk.
        length: u64,
    },
    /// Two chunks for the same bytes.
    #[error("a chunk for {length} bytes at {offset} overlaps one that came before")]
    ContentOverlaps {
        /// Start, in bytes from the start of the export.
        offset: u64,
        /// Bytes of the chunk.
        length: u64,
    },
    /// A reply that ended before the whole range was there.
    #[error("the reply to a READ ended with {missing} of {length} bytes missing")]
    ContentMissing {
        /// Bytes that never came.
        missing: u64,
        /// Bytes asked.
        length: u64,
    },
    /// More than one content chunk though the request said not to fragment.
    #[error("a READ with DF was answered in more than one content chunk")]
    Fragmented,
}
