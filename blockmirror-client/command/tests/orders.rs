//! The `blockmirror` command: orders to resources and volumes, and copying.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod stage;

use blockmirror_client::admin::{ConnectionState, DiskState, PeerStatus, ReplicationState, ResyncStatus};
use common::{Toy, pattern, uri};
use stage::daemon::bravo;
use stage::scene::Scene;

const MIB: u64 = 1 << 20;

fn established() -> PeerStatus {
    bravo(ConnectionState::Connected, ReplicationState::Established)
}

#[tokio::test]
async fn a_copy_over_a_list_of_nodes() {
    let scene = Scene::without_daemon();
    let path = |name: &str| scene.directory.path().join(name);
    let serve = |name: &str, shut: bool, data: Vec<u8>| {
        let toy = Toy {
            size: data.len() as u64,
            ..Toy::default()
        };
        toy.shut.store(shut, std::sync::atomic::Ordering::SeqCst);
        toy.serve(&path(name), data);
        uri(&path(name)).to_string()
    };
    let mut data = pattern(3 * MIB as usize + 4096);
    data[MIB as usize..2 * MIB as usize].fill(0);
    let size = data.len();
    let from = serve("from", false, data);
    let (shut, to) = (serve("a", true, vec![9; size]), serve("b", false, vec![9; size]));
    let nodes = format!("{shut},{to}");
    let outcome = scene.run(&["copy", &from, &nodes]).await;
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "copied: 3 MiB (1 MiB of it zeroes)\n"),
        "{}",
        outcome.stderr
    );
    let outcome = scene.run(&["compare", "--json", &nodes, &from]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&report["identical"], &report["right_bytes"]),
        (&true.into(), &size.into())
    );
    let small = serve("small", false, vec![0; 4096]);
    let outcome = scene.run(&["copy", &from, &small]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("make it larger"), "{}", outcome.stderr);
}

#[tokio::test]
async fn every_order_asks_what_it_says() {
    for (arguments, asked, said) in [
        (&["promote", "db"][..], "/v1/resources/db/promote", "db is Primary here"),
        (
            &["promote", "--force", "--accept", "a1", "db"],
            "/v1/resources/db/promote?force=true&accept=a1",
            "db is Primary here",
        ),
        (&["demote", "db"], "/v1/resources/db/demote", "db is Secondary here"),
        (
            &["invalidate", "db", "bravo"],
            "/v1/resources/db/invalidate?peer=bravo",
            "it comes from bravo",
        ),
        (
            &["connect", "db", "bravo", "--discard-my-data"],
            "/v1/volumes/db/peers/bravo/connect?discard_my_data=true",
            "may connect",
        ),
        (
            &["verify", "db", "--repair"],
            "/v1/volumes/db/verify?repair=true",
            "has begun",
        ),
        (
            &["verify", "db", "bravo", "--stop"],
            "/v1/volumes/db/verify-stop?peer=bravo",
            "is stopped",
        ),
        (
            &["resize", "db", "20GiB", "--assume-clean"],
            "/v1/volumes/db/resize?size=21474836480&assume_clean=true",
            "volume db has 20 GiB on every node",
        ),
        (
            &["attach", "db", "--replaced"],
            "/v1/volumes/db/attach?replaced=true",
            "is attached",
        ),
        (&["detach", "db"], "/v1/volumes/db/detach", "is detached"),
        (
            &["branch", "unexport", "db-1"],
            "/v1/branches/db%2D1/unexport",
            "db-1 is served no longer",
        ),
        (
            &["branch", "export", "db-1"],
            "/v1/branches/db%2D1/export",
            "is served read-only",
        ),
        (
            &["branch", "expire", "db-1"],
            "/v1/branches/db%2D1/expire",
            "db-1 is removed",
        ),
    ] {
        let scene = Scene::new(vec![established()], None);
        let outcome = scene.run(arguments).await;
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stdout.contains(said), "{arguments:?}: {}", outcome.stdout);
        assert_eq!(scene.asked(), [format!("POST {asked}")]);
        let with_json = [arguments, &["--json"]].concat();
        let outcome = scene.run(&with_json).await;
        let answer: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(answer["done"], true, "{with_json:?}");
    }
}

#[tokio::test]
async fn programs_are_told_of_every_refusal_on_stdout_once() {
    let body = r#"{"error": "there is no such thing"}"#;
    for arguments in [
        &["why", "nope"][..],
        &["reload"],
        &["branch", "list"],
        &["demote", "nope"],
        &["attach", "nope"],
    ] {
        let scene = Scene::new(vec![established()], Some((404, body)));
        let outcome = scene.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(outcome.code, Some(1), "{arguments:?}");
        let said: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(
            (&said["done"], &said["status"], &said["error"]),
            (&false.into(), &404.into(), &"there is no such thing".into()),
            "{arguments:?}"
        );
        let scene = Scene::new(vec![established()], Some((404, body)));
        let outcome = scene.run(arguments).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn what_is_copied_after_an_order_is_waited_for() {
    let resync = ResyncStatus {
        dirty_at_start_bytes: MIB,
        done_bytes: MIB / 4,
        ..ResyncStatus::default()
    };
    let copying = PeerStatus {
        resync: Some(resync),
        ..bravo(ConnectionState::Connected, ReplicationState::SyncSource)
    };
    for (arguments, here) in [
        (&["promote", "db", "--wait"][..], DiskState::UpToDate),
        (&["invalidate", "db", "--wait"], DiskState::Inconsistent),
        (&["attach", "db", "--wait"], DiskState::Outdated),
    ] {
        let scene = Scene::new(vec![copying.clone(), established()], None);
        scene.change_first(|report| report.resources[0].volumes[0].disk_state = Some(here));
        let outcome = scene.run(arguments).await;
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stdout.ends_with("\ndb has everything\n"), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("25 %: 256 KiB of 1 MiB"), "{}", outcome.stderr);
        // Without the word nothing is waited for.
        let scene = Scene::new(vec![copying.clone()], None);
        let outcome = scene.run(&arguments[..2]).await;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    }
    let alone = bravo(ConnectionState::StandAlone, ReplicationState::Off);
    let scene = Scene::new(vec![alone], None);
    let outcome = scene.run(&["promote", "db", "--wait"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("`blockmirror connect db bravo`"),
        "{}",
        outcome.stderr
    );
    let scene = Scene::new(vec![copying], None);
    let outcome = scene.run(&["promote", "db", "--wait", "--timeout", "0"]).await;
    assert!(outcome.stderr.contains("is not Established"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_forced_promotion_tells_what_would_be_lost() {
    let body = r#"{"error": "its Primary did not hand over", "needs_accept": {"token": "c0ffee", "loss": {"age_seconds": 1.5,
        "bytes": 1048576, "flushes": 3, "inconsistent_bytes": 0, "unknown": true}}}"#;
    let scene = Scene::new(vec![established()], Some((409, body)));
    let outcome = scene.run(&["promote", "--force", "db"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    for part in [
        "its Primary did not hand over",
        "1 MiB of writes and 3 flushes",
        "1.5 s old",
        "\n    blockmirror promote --force --accept c0ffee db\n",
    ] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let outcome = scene.run(&["promote", "--force", "--json", "db"]).await;
    let answer: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&answer["done"], outcome.code), (&false.into(), Some(1)));
    assert_eq!(answer["needs_accept"]["token"], "c0ffee");
}
