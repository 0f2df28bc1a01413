//! The kernel's nbd devices: made and let go by [`netlink`], looked at by [`sysfs`].

mod below;
pub mod netlink;
pub mod sysfs;
#[cfg(test)]
pub(crate) mod tests;

pub use netlink::{DeadLinks, Device, Nbd, NbdError};
