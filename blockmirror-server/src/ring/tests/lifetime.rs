use std::io::Write;
use std::thread;

use nix::libc;

use super::*;

#[test]
fn a_wake_ends_a_wait_before_and_during_it() {
    with_each_engine(|mut driver| {
        let waker = driver.waker();
        let mut out = Vec::new();
        for _ in 0..3 {
            waker.wake();
            waker.wake();
            driver.wait(Some(PATIENCE), &mut out).unwrap();
        }
        let thread = thread::spawn({
            let waker = waker.clone();
            move || waker.wake()
        });
        // Ends only because of the wake: there is nothing else, and no time limit.
        driver.wait(None, &mut out).unwrap();
        thread.join().unwrap();
        assert!(out.is_empty());
    });
}

#[test]
fn a_wait_ends_when_its_time_is_up() {
    with_each_engine(|mut driver| {
        let mut out = Vec::new();
        driver.wait(Some(Duration::from_millis(5)), &mut out).unwrap();
        driver.wait(Some(Duration::ZERO), &mut out).unwrap();
        assert!(out.is_empty());
    });
}

#[test]
fn dropping_a_driver_ends_what_is_in_flight() {
    with_each_engine(|mut driver| {
        let pool = driver.pool().clone();
        let (socket, mut other) = socket_pair();
        let (full, _held) = socket_pair();
        let (file, _) = file_of(&[]);
        let before = pool.take(4096).into_payload();
        assert!(
            driver
                .submit(
                    1,
                    Op::Receive {
                        socket: socket.clone(),
                        buffer: pool.take(4096),
                        filled: 0
                    }
                )
                .is_none()
        );
        let segments = vec![Segment::Payload(pool.take_zeroed(8 << 20).into_payload())];
        assert!(
            driver
                .submit(
                    2,
                    Op::Send {
                        socket: full,
                        segments,
                        skip: 0
                    }
                )
                .is_none()
        );
        for token in 0..50 {
            let write = Op::Write {
                file: file.clone(),
                payload: before.clone(),
                offset: token,
                durable: true,
            };
            assert!(driver.submit(10 + token, write).is_none());
        }
        driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        assert!(driver.in_flight() >= 2);
        drop(driver);
        // Every operation has given back what it owned: no other view is left, the buffers are in the pool, and the
        // socket is closed.
        assert!(before.into_buffer().is_ok());
        assert_eq!(pool.cached_bytes(), 4096 + 4096 + (8 << 20));
        drop(socket);
        assert_eq!(other.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn engines_say_what_they_are() {
    assert_eq!(open_driver(EngineChoice::Uring).unwrap().describe().name, "io_uring");
    let threads = open_driver(EngineChoice::Threads).unwrap().describe();
    assert_eq!(threads.name, "threads");
    assert_eq!(threads.to_string(), "threads (4 workers; chosen by configuration)");
}

#[test]
fn where_io_uring_is_forbidden_threads_take_over_and_say_why() {
    // A thread of its own: the filter stays with it.
    thread::spawn(|| {
        forbid_io_uring();
        let error = open_driver(EngineChoice::Uring).err().expect("io_uring is forbidden");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let mut driver = open_driver(EngineChoice::Auto).unwrap();
        let report = driver.describe();
        assert_eq!(report.name, "threads");
        assert!(report.detail.contains("Operation not permitted"), "{}", report.detail);
        let (file, _) = file_of(b"abc");
        let read = Op::Read {
            file,
            buffer: driver.pool().take(3),
            filled: 0,
            offset: 0,
        };
        assert_eq!(execute(&mut *driver, 1, read).result.unwrap(), 3);
    })
    .join()
    .unwrap();
}

/// Makes `io_uring_setup` of this thread fail with EPERM, as container runtimes do.
fn forbid_io_uring() {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
            )
        },
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the calls have returned, and nothing else is passed.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            0
        );
    }
}
