//! A link between two Unix sockets that writes down what goes through, and can damage it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Somebody on the way who writes everything down.
pub struct Recorder {
    socket: PathBuf,
    state: Arc<Mutex<Recorded>>,
}

#[derive(Default)]
struct Recorded {
    bytes: Vec<u8>,
    /// Flip a bit once that many bytes were seen.
    damage_after: Option<usize>,
}

impl Recorder {
    /// Connections made to `socket` reach the server at `target`.
    pub fn new(socket: PathBuf, target: &Path) -> Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let state = Arc::new(Mutex::new(Recorded::default()));
        let (shared, target) = (Arc::clone(&state), target.to_owned());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = UnixStream::connect(&target) else {
                    continue;
                };
                if let (Ok(back), Ok(forth)) = (near.try_clone(), far.try_clone()) {
                    let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
                    thread::spawn(move || pump(near, far, &one));
                    thread::spawn(move || pump(forth, back, &other));
                }
            }
        });
        Ok(Self { socket, state })
    }

    /// Where to connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn recorded<T>(&self, with: impl FnOnce(&mut Recorded) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these bytes went through, in one piece of either direction.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.recorded(|recorded| recorded.bytes.windows(bytes.len()).any(|window| window == bytes))
    }

    /// How many went through.
    pub fn bytes(&self) -> usize {
        self.recorded(|recorded| recorded.bytes.len())
    }

    /// Forget them.
    pub fn forget(&self) {
        self.recorded(|recorded| recorded.bytes.clear());
    }

    /// Flip one bit behind so many bytes.
    pub fn damage_after(&self, bytes: usize) {
        self.recorded(|recorded| recorded.damage_after = Some(bytes));
    }
}

fn pump(mut from: UnixStream, mut to: UnixStream, state: &Mutex<Recorded>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let Some(piece) = buffer.get_mut(..count) else { break };
        let mut recorded = state.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.bytes.extend_from_slice(piece);
        if recorded.damage_after.is_some_and(|after| recorded.bytes.len() > after) {
            recorded.damage_after = None;
            if let Some(byte) = piece.get_mut(count / 2) {
                *byte ^= 1;
            }
        }
        drop(recorded);
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
