//! Other people's clients and servers against ours: what the interop tests and the matrix (`scripts/interop`) share.
//!
//! - [`programs`]: nbdinfo, nbdcopy, QEMU's tools, fio and nbdkit's nbd plugin, each against an export of ours.
//! - [`libnbd`]: every method of libnbd's handle, by its Python module.
//! - [`legs`]: our initiator on other people's servers.
//! - [`ways`]: programs that start our server themselves.
//! - [`table`]: what it all came to.

pub mod legs;
pub mod libnbd;
pub mod programs;
pub mod table;
pub mod ways;
