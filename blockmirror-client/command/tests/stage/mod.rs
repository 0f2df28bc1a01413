//! The command beside a daemon with canned answers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod daemon;
pub mod scene;
