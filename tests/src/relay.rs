//! A link between two Unix sockets that can be cut, stalled, delayed and throttled.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Pieces that may be under way in one direction of one connection.
const PIECES: usize = 256;
const PIECE: usize = 64 << 10;
const TICK: Duration = Duration::from_millis(5);

/// The link. Connections made to [`Relay::socket`] reach the target while it is up. Everything ends when dropped.
pub struct Relay {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ended: AtomicBool,
    refusing: AtomicBool,
    stalled: AtomicBool,
    delay_micros: AtomicU64,
    bytes_per_second: AtomicU64,
    forwarded: AtomicU64,
    open: Mutex<Vec<UnixStream>>,
}

impl Relay {
    /// A link to the server at `target`, which need not run yet.
    pub fn new(folder: &Path, target: &Path) -> Result<Self> {
        let socket = folder.join(format!(
            "relay-{}.nbd",
            target.file_stem().unwrap_or_default().to_string_lossy()
        ));
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let (shared, target) = (Arc::clone(&state), target.to_owned());
        thread::spawn(move || accept(&listener, &target, &shared));
        Ok(Self { socket, state })
    }

    /// Where to connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Close every connection, and refuse new ones until [`Relay::restore`].
    pub fn cut(&self) {
        self.state.refusing.store(true, Ordering::SeqCst);
        self.state.close_all();
    }

    /// Close every connection; new ones are welcome.
    pub fn cut_once(&self) {
        self.state.close_all();
    }

    /// Half-open: connections stay, new ones are taken, and not a byte moves until [`Relay::restore`].
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// A good link again.
    pub fn restore(&self) {
        self.state.refusing.store(false, Ordering::SeqCst);
        self.state.stalled.store(false, Ordering::SeqCst);
        self.delay(Duration::ZERO);
        self.throttle(0);
    }

    /// Every byte arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.state
            .delay_micros
            .store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// At most this many bytes per second and direction; 0 for no limit.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.state.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Bytes forwarded so far, both directions.
    pub fn forwarded(&self) -> u64 {
        self.state.forwarded.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.close_all();
    }
}

impl State {
    fn open(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        for stream in self.open().drain(..) {
            // Fails only when it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn accept(listener: &UnixListener, target: &Path, state: &Arc<State>) {
    while !state.ended() {
        match listener.accept() {
            Ok((client, _)) if !state.refusing.load(Ordering::SeqCst) => {
                // A target that is not there: the client sees its connection closed.
                if let Ok(server) = UnixStream::connect(target) {
                    let _ = join(client, server, state);
                }
            }
            Ok(_) => {}
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn join(client: UnixStream, server: UnixStream, state: &Arc<State>) -> Result<()> {
    client.set_nonblocking(false)?;
    state.open().extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let (sender, receiver) = sync_channel(PIECES);
        let (reading, writing) = (Arc::clone(state), Arc::clone(state));
        thread::spawn(move || read_side(from, &sender, &reading));
        thread::spawn(move || write_side(to, &receiver, &writing));
    }
    Ok(())
}

type Piece = (Instant, Vec<u8>);

fn read_side(mut from: UnixStream, sender: &SyncSender<Piece>, state: &State) {
    let mut buffer = vec![0; PIECE];
    // Woken now and then to see that the link has ended.
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    while !state.ended() {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if sender.send((Instant::now(), buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn write_side(mut to: UnixStream, receiver: &Receiver<Piece>, state: &State) {
    while let Ok((read_at, piece)) = receiver.recv() {
        let due = read_at + Duration::from_micros(state.delay_micros.load(Ordering::SeqCst));
        while Instant::now() < due || state.stalled.load(Ordering::SeqCst) {
            if state.ended() {
                return;
            }
            thread::sleep(
                TICK.min(
                    due.saturating_duration_since(Instant::now())
                        .max(Duration::from_micros(50)),
                ),
            );
        }
        match state.bytes_per_second.load(Ordering::SeqCst) {
            0 => {}
            rate => thread::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)),
        }
        if to.write_all(&piece).is_err() {
            break;
        }
        state.forwarded.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    // The reader saw the end: pass it on.
    let _ = to.shutdown(Shutdown::Write);
}
