//! md RAID1 and kernel nbd glue: an array with a local leg and a blockmirror leg.
//!
//! mdadm keeps two legs: a local device, and a `/dev/nbd` device attached to a blockmirror export that holds the other
//! copy on another node. This crate will create such an array, watch it, and heal it after link trouble or a restart
//! of the daemon: re-attach the nbd device and re-add the leg, so that md's write-intent bitmap copies the difference
//! and never the whole. It talks to the daemon as any operator does, by the admin API of `blockmirror-client`, and
//! shares no code with the data path.
//!
//! There is nothing in it yet: its work is an issue of its own.
#![forbid(unsafe_code)]
