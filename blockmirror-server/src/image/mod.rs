//! The local leg of a volume: [`Image`], a regular file, a block device or memory, behind one interface of byte ranges.
//!
//! The image turns an [`ImageRequest`] into operations of the [`Driver`](crate::ring::Driver), one after the other,
//! until it is done: short counts, interruptions, alignment, missing capabilities and durability are its business.
//!
//! **Errors** are by who is at fault: [`OpenError`] is the configuration's or the file's, [`ImageError`] a request's or
//! the storage's. [`ImageError::FlushFailed`] is final: after it nothing can be said about what is durable, and the image
//! answers every later flush and durable change with it.

mod alignment;
mod cached;
mod edges;
mod error;
mod file;
mod grow;
mod leg;
mod open;
mod patch;
mod request;
mod work;
mod zero;

pub use error::{ImageError, OpenError};
pub use file::{Extent, ExtentKind, Image, ImageDone, ImageReport};
pub use open::{ImageOptions, ImagePlace, IoMode};
pub use request::ImageRequest;

#[cfg(test)]
mod tests;
