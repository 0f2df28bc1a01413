//! The end of a connection, and the next one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mirror_core::ByteRange;
use mirror_core::event::RequestId;
use mirror_core::resource::event::Loss;
use mirror_core::stream::{Control, Request};

use super::super::{StreamLost, StreamReply, StreamWork};
use super::ends::{Setting, pair, run, run_one, settings, tapped};

const TICK: Duration = Duration::from_millis(250);

fn write(at: u64) -> Request {
    Request::Write {
        range: ByteRange::new(at * 4096, 4096),
        fua: false,
    }
}

#[test]
fn two_idle_ends_keep_each_other_alive() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        for _ in 0..80 {
            for end in [&mut a, &mut b] {
                end.pass(TICK);
            }
            for _ in 0..20 {
                a.step();
                b.step();
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        assert_eq!((&a.lost, &b.lost), (&None, &None));
        assert!(a.port.round_trip().is_some() && b.port.round_trip().is_some());
        assert!(a.events.is_empty() && b.events.is_empty());
    }
}

#[test]
fn a_peer_that_falls_silent_is_lost() {
    let (mut a, _silent) = pair(&Setting::default());
    a.ask(write(0), Some(&[1; 4096]), StreamWork::Mutation(RequestId(5)));
    a.step();
    let mut passed = Duration::ZERO;
    while a.lost.is_none() {
        a.pass(TICK);
        a.step();
        passed += TICK;
    }
    assert!(matches!(a.lost, Some(StreamLost::Silent(_))));
    assert_eq!(passed, Duration::from_secs(3));
    assert_eq!(a.port.unanswered(), 1);
    assert!(a.port.lose().is_some());
    assert!(a.port.lose().is_none());
    assert_eq!(a.port.unanswered(), 0);
}

#[test]
fn a_request_left_unanswered_while_later_ones_are_answered_ends_the_link() {
    let (mut a, mut b) = pair(&Setting::default());
    a.ask(write(0), Some(&[1; 4096]), StreamWork::Mutation(RequestId(0)));
    let mut waited = Duration::ZERO;
    let mut stuck = Vec::new();
    while a.lost.is_none() && waited < Duration::from_secs(60) {
        a.ask(write(1), Some(&[2; 4096]), StreamWork::Mutation(RequestId(1)));
        run(&mut a, &mut b, "an answer", |a, b| {
            for (started, request, _) in b.take_requests() {
                if request == write(0) {
                    stuck.push(started);
                } else {
                    b.port.finished(started, StreamReply::Done);
                }
            }
            !a.take_answers().is_empty() || a.lost.is_some()
        });
        a.pass(TICK);
        b.pass(TICK);
        waited += TICK;
    }
    assert!(matches!(a.lost, Some(StreamLost::Silent(_))), "{:?}", a.lost);
    assert!(waited >= Duration::from_secs(20), "{waited:?}");
    assert_eq!(stuck.len(), 1);
}

#[test]
fn what_the_peer_had_asked_and_never_came_is_the_loss() {
    let (mut a, mut b) = pair(&Setting::default());
    for at in 0..10 {
        a.ask(write(at), Some(&[1; 4096]), StreamWork::Flush);
    }
    a.ask(Request::Flush, None, StreamWork::Flush);
    a.ask(Request::Barrier, None, StreamWork::Barrier);
    a.ask(write(10), Some(&[1; 4096]), StreamWork::Flush);
    a.pass(TICK);
    run(&mut a, &mut b, "everything is there", |_, b| b.events.len() == 11);
    drop(a);
    run_one(&mut b, "the end", |b| b.lost.is_some());
    let remains = b.port.lose().unwrap();
    // The one behind the barrier came, but is never carried out.
    assert_eq!((remains.loss.bytes, remains.loss.flushes), (4096, 0));
    // Whoever sends barriers may have acknowledged more since its last heartbeat.
    assert!(remains.loss.unknown);
}

#[test]
fn nothing_is_lost_of_a_peer_that_waits_for_answers_and_whose_every_request_came() {
    let (mut a, mut b) = pair(&Setting::default());
    a.ask(write(0), Some(&[1; 4096]), StreamWork::Flush);
    a.ask(Request::Flush, None, StreamWork::Flush);
    a.pass(TICK);
    run(&mut a, &mut b, "everything is there", |_, b| b.events.len() == 2);
    drop(a);
    run_one(&mut b, "the end", |b| b.lost.is_some());
    assert_eq!(b.port.lose().unwrap().loss, Loss::default());
}

/// I11: a request of an older connection never lands after one of a newer connection.
#[test]
fn the_next_connection_is_held_until_all_of_the_one_before_has_ended() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        for at in 0..3 {
            a.ask(write(at), Some(&[1; 4096]), StreamWork::Flush);
        }
        run(&mut a, &mut b, "everything is there", |_, b| b.events.len() == 3);
        let old: Vec<_> = b.take_requests().into_iter().map(|(started, ..)| started).collect();
        assert!(a.port.lose().is_some());
        run_one(&mut b, "the end", |b| b.lost.is_some());
        assert!(b.port.lose().is_some());
        let (near, far) = UnixStream::pair().unwrap();
        a.attach(2, &setting, near, true);
        b.attach(2, &setting, far, false);
        a.port.open(&a.turn).unwrap();
        a.port.control(&Control::AskDemote);
        for started in old {
            assert!(b.port.is_held() && !b.port.is_quiet());
            for _ in 0..20 {
                a.step();
                b.step();
            }
            assert!(b.events.is_empty(), "nothing comes out of a link that is held");
            b.port.finished(started, StreamReply::Done);
        }
        assert!(b.port.is_quiet());
        b.port.open(&b.turn).unwrap();
        run(&mut a, &mut b, "the first word", |_, b| !b.take_controls().is_empty());
        a.ask(write(7), Some(&[3; 4096]), StreamWork::Flush);
        run(&mut a, &mut b, "the request", |_, b| b.events.len() == 1);
        assert!(
            a.take_answers().is_empty(),
            "answers of the old connection are not sent on the new one"
        );
    }
}

#[test]
fn a_close_in_good_order_delivers_what_was_said_and_nothing_that_was_not_sent() {
    for setting in settings() {
        let (mut a, mut b) = pair(&setting);
        b.ask(Request::Flush, None, StreamWork::Flush);
        run(&mut a, &mut b, "the request", |a, _| !a.events.is_empty());
        let (started, ..) = a.take_requests().pop().unwrap();
        a.port.finished(started, StreamReply::Done);
        a.port.control(&Control::Demoted);
        a.port.close(&a.turn, "as wished");
        a.ask(write(0), Some(&[1; 4096]), StreamWork::Mutation(RequestId(9)));
        run(&mut a, &mut b, "the end at the peer", |_, b| b.lost.is_some());
        assert_eq!((b.take_answers().len(), b.take_controls().len()), (1, 1));
        assert!(b.take_requests().is_empty());
        assert!(matches!(b.lost, Some(StreamLost::Closed(_))));
        assert!(b.port.lose().is_some());
        run_one(&mut a, "the end here", |a| a.lost.is_some());
        assert_eq!(a.lost, Some(StreamLost::Ended("as wished".to_owned())));
        assert_eq!(a.port.unanswered(), 1);
    }
}

#[test]
fn a_peer_that_does_not_close_its_side_is_not_waited_for_for_ever() {
    let (mut peer, mut a) = tapped(&Setting::default());
    a.port.close(&a.turn, "as wished");
    run_one(&mut a, "the end of the stream", {
        peer.set_nonblocking(true).unwrap();
        move |_| matches!(peer.read(&mut [0; 64]), Ok(0))
    });
    for _ in 0..11 {
        a.pass(TICK);
        assert_eq!(a.lost, None);
    }
    a.pass(TICK);
    assert!(matches!(a.lost, Some(StreamLost::Ended(_))));
}

#[test]
fn a_link_that_is_lost_throws_away_what_it_has_not_sent() {
    let (listener, address) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let near = std::net::TcpStream::connect(address).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let (_, mut a) = tapped(&Setting::default());
    assert!(a.port.lose().is_some());
    a.attach_any(2, &Setting::default(), near.into(), true);
    a.port.open(&a.turn).unwrap();
    for at in 0..32 {
        let range = ByteRange::new(at << 20, 1 << 20);
        a.ask(Request::CopyWrite { range }, Some(&vec![1; 1 << 20]), StreamWork::Flush);
    }
    for _ in 0..10 {
        a.step();
    }
    assert!(a.port.lose().is_some());
    drop(a);
    let (mut total, mut bytes) = (0, vec![0; 1 << 20]);
    let end = loop {
        match far.read(&mut bytes) {
            Ok(0) => break None,
            Ok(count) => total += count,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset), "after {total} bytes");
    assert!(total < 32 << 20);
    assert!(far.write(&[0]).is_err());
}
