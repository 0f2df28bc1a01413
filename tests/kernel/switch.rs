//! The private link of the guests: a switch of Ethernet frames, as QEMU's `-netdev stream` sends them over a Unix socket.
//!
//! It can be cut without anybody being told, be slow and be far. A port that has no more room loses frames, as real ones do.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Frames that wait for one port.
const ROOM: usize = 4096;
/// Longer ones are none.
const FRAME_MAX: usize = 128 << 10;

/// The link.
pub struct Switch {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    delay_micros: AtomicU64,
    bytes_per_second: AtomicU64,
    ports: Mutex<Vec<Port>>,
}

/// A guest that listens.
struct Port {
    number: u64,
    frames: SyncSender<(Instant, Arc<Vec<u8>>)>,
    /// When what was sent to it last has left.
    busy_until: Instant,
}

impl Switch {
    /// A link that guests plug into at [`socket`](Self::socket).
    pub fn new(folder: &Path) -> Result<Self> {
        let socket = folder.join("link");
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                plug(&shared, number as u64, stream);
            }
        });
        Ok(Self { socket, state })
    }

    /// Where it is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on no frame arrives, and nobody is told, until [`restore`](Self::restore).
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    /// A good link again.
    pub fn restore(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
        self.slow(Duration::ZERO, 0);
    }

    /// Every frame arrives `delay` later, and each way takes so many bytes per second; 0: no limit.
    pub fn slow(&self, delay: Duration, bytes_per_second: u64) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.state.delay_micros.store(micros, Ordering::SeqCst);
        self.state.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }
}

/// A guest more; it is gone when its stream ends.
fn plug(state: &Arc<State>, number: u64, stream: UnixStream) {
    let Ok(sink) = stream.try_clone() else { return };
    let (frames, queue) = sync_channel(ROOM);
    let port = Port {
        number,
        frames,
        busy_until: Instant::now(),
    };
    state.ports().push(port);
    let state = Arc::clone(state);
    thread::spawn(move || deliver(&queue, sink));
    thread::spawn(move || {
        let _ = collect(&state, number, stream);
        state.ports().retain(|port| port.number != number);
    });
}

/// Frames from a guest to all others.
fn collect(state: &State, number: u64, mut stream: UnixStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > FRAME_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; 4 + bytes];
        frame[..4].copy_from_slice(&length);
        stream.read_exact(&mut frame[4..])?;
        if !state.cut.load(Ordering::SeqCst) {
            state.forward(number, &Arc::new(frame));
        }
    }
}

impl State {
    fn ports(&self) -> std::sync::MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self, from: u64, frame: &Arc<Vec<u8>>) {
        let bytes = frame.len() as u64 - 4;
        let delay = Duration::from_micros(self.delay_micros.load(Ordering::SeqCst));
        let rate = self.bytes_per_second.load(Ordering::SeqCst);
        let takes = Duration::from_nanos((bytes * 1_000_000_000).checked_div(rate).unwrap_or(0));
        for port in self.ports().iter_mut().filter(|port| port.number != from) {
            port.busy_until = port.busy_until.max(Instant::now()) + takes;
            let _ = port.frames.try_send((port.busy_until + delay, Arc::clone(frame)));
        }
    }
}

/// Frames to a guest, each when it is due.
fn deliver(queue: &Receiver<(Instant, Arc<Vec<u8>>)>, mut sink: UnixStream) {
    for (due, frame) in queue {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if sink.write_all(&frame).is_err() {
            return;
        }
    }
}
