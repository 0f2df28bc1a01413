//! Streams over socket pairs: two links, or a link and a peer of a few lines that says what it should not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;
mod hostile;
mod life;
mod traffic;
