//! The kernel's nbd devices: made and let go by [`netlink`], looked at by [`sysfs`].

pub mod netlink;
pub mod sysfs;

pub use netlink::{DeadLinks, Device, Nbd, NbdError};
