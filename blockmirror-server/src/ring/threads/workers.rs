//! A few threads that execute file operations: [`Workers`].

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::ring::inline::execute_file;
use crate::ring::{Completion, Op, Waker};

/// Threads. Buffered writes to one file are serialised by the file system; reads and flushes run beside them.
pub(super) const WORKERS: usize = 4;

/// The threads, their queue, and what they have done. The queue is bounded by the driver's operations in flight.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    in_flight: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    ended: Mutex<Vec<Completion>>,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Op)>,
    stopping: bool,
}

impl Workers {
    /// Starts the threads; `waker` is woken when an operation has ended.
    pub(super) fn start(waker: Waker) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            ended: Mutex::default(),
            waker,
        });
        let mut workers = Self {
            shared,
            threads: Vec::new(),
            in_flight: 0,
        };
        for number in 0..WORKERS {
            let shared = Arc::clone(&workers.shared);
            let builder = Builder::new().name(format!("file-io-{number}"));
            workers.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(workers)
    }

    /// Hands over an operation on a file.
    pub(super) fn give(&mut self, token: u64, op: Op) {
        self.in_flight += 1;
        lock(&self.shared.queue).waiting.push_back((token, op));
        self.shared.work.notify_one();
    }

    /// Appends what has ended.
    pub(super) fn take_ended(&mut self, out: &mut Vec<Completion>) {
        let mut ended = lock(&self.shared.ended);
        self.in_flight -= ended.len();
        out.append(&mut ended);
    }

    /// Operations given and not taken back.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Workers {
    /// Operations not started are dropped; those under way are waited for, since they use their buffers.
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.stopping = true;
        let waiting = mem::take(&mut queue.waiting);
        drop(queue);
        drop(waiting);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has nothing left to give back.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some((token, mut op)) = self.next() {
            let result = execute_file(&mut op);
            lock(&self.ended).push(Completion { token, result, op });
            self.waker.wake();
        }
    }

    /// The next operation, or `None` when the driver is gone.
    fn next(&self) -> Option<(u64, Op)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
