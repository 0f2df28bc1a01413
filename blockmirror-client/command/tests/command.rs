//! The `blockmirror` command: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod stage;

use blockmirror_client::admin::{ConnectionState, PeerStatus, ReplicationState, ResyncStatus, StatusReport};
use common::{Toy, pattern, uri};
use stage::daemon::{bravo, report};
use stage::scene::Scene;

const MIB: u64 = 1 << 20;

fn established() -> PeerStatus {
    bravo(ConnectionState::Connected, ReplicationState::Established)
}

fn resync(done: u64, eta_seconds: Option<f64>) -> ResyncStatus {
    ResyncStatus {
        dirty_at_start_bytes: 100 * MIB,
        done_bytes: done * MIB,
        copied_bytes: done * MIB,
        zeroed_bytes: 0,
        remaining_bytes: (100 - done) * MIB,
        elapsed_seconds: 2.0,
        bytes_per_second: 50.0 * MIB as f64,
        eta_seconds,
        equal_bytes: 0,
        limit: None,
    }
}

fn syncing(done: u64) -> PeerStatus {
    let dirty_bytes = (100 - done) * MIB;
    let resync = Some(resync(done, Some(1.0)));
    PeerStatus {
        dirty_bytes,
        resync,
        ..bravo(ConnectionState::Connected, ReplicationState::SyncSource)
    }
}

#[tokio::test]
async fn status() {
    let scene = Scene::new(vec![established()], None);
    let people = scene.run(&["status"]).await;
    assert_eq!((people.code, people.stderr.as_str()), (Some(0), ""));
    assert!(
        people.stdout.contains("bravo  sync  Connected   Established  UpToDate"),
        "{}",
        people.stdout
    );
    assert!(!people.stdout.contains('\x1b'), "no colour where no terminal is");
    let programs = scene.run(&["status", "--json"]).await;
    assert_eq!(
        serde_json::from_str::<StatusReport>(&programs.stdout).unwrap(),
        report(established())
    );
}

#[tokio::test]
async fn a_resync_is_waited_for() {
    let connecting = PeerStatus {
        last_error: Some("connection refused".to_owned()),
        attempts: 2,
        ..bravo(ConnectionState::Connecting, ReplicationState::Off)
    };
    let done = PeerStatus {
        last_resync: Some(resync(100, None)),
        ..established()
    };
    let scene = Scene::new(vec![established(), connecting, syncing(40), syncing(90), done], None);
    let outcome = scene.run(&["resync", "db", "bravo", "--full", "--wait"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(
        outcome.stdout,
        "resync of peer bravo of db: 100 MiB dirty, done in 2.0 s (copied 100 MiB, zeroed 0 B)\n"
    );
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines[0], "bravo: Connecting, attempt 2: connection refused");
    assert_eq!(
        lines[1],
        "bravo: 40 %: 40 MiB of 100 MiB dirty, 50 MiB/s, 1.0 s left (copied 40 MiB, zeroed 0 B)"
    );
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("bravo: 100 %: 100 MiB dirty, done in 2.0 s"),
        "{}",
        outcome.stderr
    );
    assert_eq!(scene.asked(), ["POST /v1/volumes/db/peers/bravo/resync?full=true"]);
}

#[tokio::test]
async fn nothing_to_resync() {
    let old = PeerStatus {
        last_resync: Some(resync(100, None)),
        ..established()
    };
    let scene = Scene::new(vec![old], None);
    let outcome = scene.run(&["resync", "db", "bravo", "--wait"]).await;
    assert_eq!(outcome.stdout, "peer bravo of db is Established: nothing was dirty\n");
    assert_eq!(scene.asked(), ["POST /v1/volumes/db/peers/bravo/resync"]);
}

#[tokio::test]
async fn connect_waits_for_established_and_gives_up_when_told() {
    let stand_alone = bravo(ConnectionState::StandAlone, ReplicationState::Off);
    let scene = Scene::new(vec![stand_alone.clone(), syncing(1), established()], None);
    let outcome = scene.run(&["connect", "db", "bravo", "--wait"]).await;
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "peer bravo of db is Established\n")
    );
    assert_eq!(scene.asked(), ["POST /v1/volumes/db/peers/bravo/connect"]);

    let scene = Scene::new(vec![syncing(1)], None);
    let outcome = scene.run(&["connect", "db", "bravo", "--wait", "--timeout", "0"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("not Established but SyncSource, with 99 MiB dirty"),
        "{}",
        outcome.stderr
    );

    let misfit = PeerStatus {
        last_error: Some("its size is 5 bytes".to_owned()),
        ..stand_alone
    };
    let scene = Scene::new(vec![misfit], None);
    let outcome = scene.run(&["connect", "db", "bravo", "--wait"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("is StandAlone (last error: its size is 5 bytes)"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn names_are_encoded_in_paths() {
    let scene = Scene::new(vec![established()], None);
    let outcome = scene.run(&["disconnect", "a/b c?", "é"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(scene.asked(), ["POST /v1/volumes/a%2Fb%20c%3F/peers/%C3%A9/disconnect"]);
}

#[tokio::test]
async fn refusals_are_quoted_and_harmless() {
    let scene = Scene::new(
        vec![established()],
        Some((404, r#"{"error": "no volume \"x\"; there are: db\u001b[2J"}"#)),
    );
    let outcome = scene.run(&["disconnect", "x", "bravo"]).await;
    assert_eq!(
        (outcome.code, outcome.stderr.as_str()),
        (Some(1), "blockmirror: no volume \"x\"; there are: db?[2J\n")
    );
    let outcome = scene.run(&["connect", "x", "bravo"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("no volume or resource \"x\" with a peer \"bravo\""),
        "{}",
        outcome.stderr
    );
    assert_eq!(scene.asked().len(), 1, "what the report does not have is not asked for");
    let scene = Scene::new(vec![established()], Some((500, "oops")));
    let outcome = scene.run(&["disconnect", "db", "bravo"]).await;
    assert!(
        outcome.code == Some(1) && outcome.stderr.contains("answered 500"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn nobody_to_ask() {
    let scene = Scene::without_daemon();
    let outcome = scene.run(&["status"]).await;
    assert_eq!(outcome.code, Some(3));
    assert!(
        outcome.stderr.contains("alpha.sock: is blockmirror-server running"),
        "{}",
        outcome.stderr
    );
    drop(std::os::unix::net::UnixListener::bind(scene.socket()).unwrap());
    let outcome = scene.run(&["status"]).await;
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stderr.contains("nobody listens"), "{}", outcome.stderr);
}

#[tokio::test]
async fn wrong_usage() {
    let scene = Scene::without_daemon();
    for arguments in [
        &[][..],
        &["status", "more"],
        &["connect", "db"],
        &["connect", "db", "bravo", "--timeout", "5"],
        &["--admin", "a", "status", "--config", "b"],
        &["compare", "nbd://h/", "http://h/"],
        &["promote", "db", "--accept", "a1"],
        &["resize", "db", "20G"],
        &["verify", "db", "--stop", "--wait"],
        &["branch"],
    ] {
        assert_eq!(scene.run(arguments).await.code, Some(2), "{arguments:?}");
    }
    let outcome = scene.run(&["compare", "nbd://h/", "http://h/"]).await;
    assert!(
        outcome.stderr.contains("bad NBD URI \"http://h/\""),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn compare() {
    let scene = Scene::without_daemon();
    let size = 5 * MIB + 123;
    let data = pattern(size as usize);
    let path = |name: &str| scene.directory.path().join(name);
    let serve = |name: &str, data: Vec<u8>| {
        let toy = Toy {
            size: data.len() as u64,
            ..Toy::default()
        };
        toy.serve(&path(name), data);
        uri(&path(name)).to_string()
    };
    let mut other = data.clone();
    other[3 * MIB as usize + 17] ^= 1;
    other[size as usize - 1] ^= 1;
    let (left, same) = (serve("a", data.clone()), serve("b", data.clone()));
    let (other, longer) = (serve("c", other), serve("d", [&data[..], &[0; 7]].concat()));

    let outcome = scene.run(&["compare", &left, &same]).await;
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "identical: 5 MiB (5243003 bytes)\n")
    );
    let outcome = scene.run(&["compare", &left, &other]).await;
    assert_eq!(outcome.code, Some(1));
    let expected = "different: 2 of 5243003 bytes differ, the first at offset 3145745\n";
    assert!(outcome.stderr.ends_with(expected), "{}", outcome.stderr);
    let outcome = scene.run(&["compare", &left, &longer]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("the sizes are 5243003 and 5243010 bytes; what both have is identical"),
        "{}",
        outcome.stderr
    );
    let outcome = scene.run(&["compare", &left, &uri(&path("nowhere")).to_string()]).await;
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
}
