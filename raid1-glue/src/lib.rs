//! md RAID1 and kernel nbd glue: an export as a block device of the kernel, and an array with a blockmirror leg.
//!
//! [`attach`] makes a `/dev/nbdN` of an export and keeps it alive when the daemon is started again, or another node becomes
//! Primary. An array of md has two legs: a local device, and such a device whose export holds the other copy on another node.
//! This crate talks to servers by `blockmirror-client`, to the kernel by netlink, to md by mdadm, and shares no code with the
//! data path.
#![forbid(unsafe_code)]

pub mod attach;
pub mod md;
pub mod nbd;
