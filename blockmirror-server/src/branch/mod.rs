//! Branch files: what a volume held before another history overwrote it. See `docs/BRANCHES.md`.
//!
//! ```text
//!   header (4096)   record [data]   record [data]   ...   end record
//! ```
//! Every record says which range it is of and has checksums of itself and of its data, so a file that a crash cut short is
//! read up to the last whole record. The first record of a block is the one that counts: it holds what was there before.
//!
//! **I12** A block of a volume with an open branch is overwritten only after what it held is durable in the branch file.

mod date;
mod file;
mod format;
mod index;
mod list;
mod replay;

pub(crate) use file::Saved;
pub use file::{BranchFile, BranchPlace};
pub use format::Header;
pub(crate) use format::PIECE_BYTES;
pub use index::{Index, Piece, Source};
pub use list::{BranchInfo, list, load, remove};
pub use replay::{BranchError, Replayed, replay};

#[cfg(test)]
mod tests;
