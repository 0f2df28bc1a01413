use std::io::{Read, Write};
use std::thread;

use super::*;

fn receive(socket: &Socket, buffer: Buffer, filled: usize) -> Op {
    Op::Receive {
        socket: socket.clone(),
        buffer,
        filled,
    }
}

#[test]
fn receives_behind_what_is_kept_and_sees_the_end() {
    with_each_way(|mut driver| {
        let (socket, mut other) = socket_pair();
        let mut buffer = driver.pool().take(100);
        buffer.as_mut_slice()[..3].copy_from_slice(b"abc");
        assert!(driver.submit(1, receive(&socket, buffer, 3)).is_none());
        other.write_all(b"defg").unwrap();
        let completion = collect(&mut *driver, 1).remove(0);
        assert_eq!(completion.result.unwrap(), 4);
        let Op::Receive { buffer, filled: 3, .. } = completion.op else {
            panic!("{:?}", completion.op)
        };
        assert_eq!(&buffer.as_slice()[..7], b"abcdefg");

        assert!(!socket.has_hung_up());
        drop(other);
        assert!(socket.has_hung_up());
        let end = execute(&mut *driver, 2, receive(&socket, buffer, 0));
        assert_eq!(end.result.unwrap(), 0);
    });
}

#[test]
fn sends_every_kind_of_segment_in_order() {
    with_each_way(|mut driver| {
        let (socket, mut other) = socket_pair();
        let pool = driver.pool().clone();
        let mut buffer = pool.take(2);
        buffer.as_mut_slice().copy_from_slice(b"gh");
        let segments = vec![
            Segment::copy_of(b"abc"),
            Segment::Bytes(b"de".to_vec()),
            Segment::Bytes(Vec::new()),
            Segment::Payload(pool.payload_of(b"xxf").slice(2..)),
            Segment::Buffer(buffer),
        ];
        let sent = execute(
            &mut *driver,
            9,
            Op::Send {
                socket,
                segments,
                skip: 4,
            },
        );
        assert_eq!(sent.result.unwrap(), 4);
        drop(sent.op);
        let mut received = String::new();
        other.read_to_string(&mut received).unwrap();
        assert_eq!(received, "efgh");
    });
}

#[test]
fn a_large_send_goes_through_a_small_socket_buffer() {
    with_each_way(|mut driver| {
        let (socket, mut other) = socket_pair();
        let wanted = pattern(5 << 20, 3);
        let pool = driver.pool().clone();
        let body = pool.payload_of(&wanted);
        // More pieces than one gather takes.
        let pieces = 1500;
        let step = wanted.len() / pieces;
        let segments = (0..pieces)
            .map(|piece| {
                let to = if piece + 1 == pieces {
                    wanted.len()
                } else {
                    (piece + 1) * step
                };
                Segment::Payload(body.slice(piece * step..to))
            })
            .collect();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            other.read_to_end(&mut received).unwrap();
            received
        });
        let mut op = Op::Send {
            socket,
            segments,
            skip: 0,
        };
        let mut sent = 0;
        while sent < wanted.len() {
            let completion = execute(&mut *driver, 5, op);
            let count = completion.result.unwrap();
            assert!(count > 0);
            sent += count;
            op = completion.op;
            let Op::Send { skip, .. } = &mut op else {
                panic!("{op:?}")
            };
            *skip = sent;
        }
        drop(op);
        assert_eq!(reader.join().unwrap(), wanted);
    });
}

#[test]
fn sending_to_a_closed_socket_is_an_error_and_no_signal() {
    with_each_way(|mut driver| {
        let (socket, other) = socket_pair();
        drop(other);
        let segments = vec![Segment::copy_of(b"x")];
        let sent = execute(
            &mut *driver,
            1,
            Op::Send {
                socket,
                segments,
                skip: 0,
            },
        );
        assert_eq!(sent.result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let Op::Send { segments, .. } = sent.op else {
            panic!("another operation came back")
        };
        assert_eq!(segments[0].as_slice(), Some(&b"x"[..]));
    });
}

#[test]
fn shutting_down_ends_a_receive() {
    with_each_way(|mut driver| {
        let (socket, mut other) = socket_pair();
        assert!(driver.submit(1, receive(&socket, driver.pool().take(10), 0)).is_none());
        let mut nothing = Vec::new();
        driver.wait(Some(Duration::ZERO), &mut nothing).unwrap();
        assert!(nothing.is_empty());
        assert_eq!(driver.in_flight(), 1);
        socket.shutdown_both().unwrap();
        let end = collect(&mut *driver, 1).remove(0);
        assert_eq!(end.result.unwrap(), 0);
        assert_eq!(driver.in_flight(), 0);
        let mut received = Vec::new();
        assert_eq!(other.read_to_end(&mut received).unwrap(), 0);
    });
}

#[test]
fn both_directions_of_many_sockets_work_at_once() {
    with_each_way(|mut driver| {
        const SOCKETS: usize = 24;
        const BYTES: usize = 400 << 10;
        let mut echoes = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let (socket, mut other) = socket_pair();
            sockets.push(socket);
            echoes.push(thread::spawn(move || {
                let mut received = vec![0; BYTES];
                other.read_exact(&mut received).unwrap();
                other.write_all(&received).unwrap();
            }));
        }
        let mut left = SOCKETS * 2;
        let mut done = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        for (index, socket) in sockets.iter().enumerate() {
            let payload = driver.pool().payload_of(&pattern(BYTES, index as u8));
            let segments = vec![Segment::Payload(payload)];
            let send = Op::Send {
                socket: socket.clone(),
                segments,
                skip: 0,
            };
            done.extend(driver.submit(index as u64, send));
            let buffer = driver.pool().take(BYTES);
            done.extend(driver.submit((SOCKETS + index) as u64, receive(socket, buffer, 0)));
        }
        while left > 0 {
            let Some(Completion { token, result, op }) = done.pop() else {
                // It may wake up for nothing.
                assert!(Instant::now() < deadline, "{left} operations never end");
                driver.wait(Some(PATIENCE), &mut done).unwrap();
                continue;
            };
            let count = result.unwrap();
            match op {
                Op::Receive { socket, buffer, filled } if filled + count < BYTES => {
                    done.extend(driver.submit(token, receive(&socket, buffer, filled + count)));
                    continue;
                }
                Op::Receive { buffer, .. } => {
                    assert_eq!(buffer.as_slice(), pattern(BYTES, (token as usize - SOCKETS) as u8));
                }
                _ => assert_eq!(count, BYTES, "a send that waits is finished by the engine"),
            }
            left -= 1;
        }
        echoes.into_iter().for_each(|echo| echo.join().unwrap());
    });
}
