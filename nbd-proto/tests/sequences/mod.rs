//! Sequences of operations on the handshake machines, each held against a model of what was agreed.
//!
//! The fuzz targets in `fuzz/` and the replay of the corpus in `tests/corpus.rs` run the same functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod server;
mod wire;

use arbitrary::{Arbitrary, Unstructured};

/// Options of a client, to the server's end.
pub fn server_sequence(data: &[u8]) {
    if let Ok(scene) = server::Scene::arbitrary_take_rest(Unstructured::new(data)) {
        server::play(&scene);
    }
}

/// Our client and our server.
pub fn both_ends(data: &[u8]) {
    let mut u = Unstructured::new(data);
    if let (Ok(wishes), Ok(mode)) = (u.arbitrary(), u.arbitrary()) {
        client::meet(&wishes, mode);
    }
}

/// Our client and a server that says whatever it likes.
pub fn client_sequence(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let (Ok(wishes), Ok(flags)) = (u.arbitrary(), u.arbitrary::<u16>()) else {
        return;
    };
    // Mostly fixed newstyle, which is what most of it is about.
    let flags = if flags & 0xf0 == 0 { flags } else { flags | 1 };
    let mut replies = Vec::new();
    while let (false, Ok(reply)) = (u.is_empty() || replies.len() > 200, u.arbitrary()) {
        replies.push(reply);
    }
    client::endure(&wishes, flags, &replies);
}
