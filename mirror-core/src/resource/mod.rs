//! The resource: roles, handshakes and everything else that concerns all volumes of a resource together.

pub mod event;
