//! `blockmirror raid` where there is no md: what is refused, and in which words. What it does to arrays is seen in guests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod stage;

use std::fs;

use serde_json::Value;
use stage::scene::{Outcome, Scene};

const RECORD: &str = r#"
array = "/dev/md/none-such"
uuid = "1:2:3:4"
local = "/dev/vdb"
uris = "nbd://bravo/data"
device = "/dev/nbd9"
connections = 1
answer_timeout = 10
dead_timeout = 5
"#;

async fn raid(scene: &Scene, arguments: &[&str]) -> Outcome {
    let records = scene.directory.path().join("raid").display().to_string();
    scene.run(&[&["raid", "--records", &records], arguments].concat()).await
}

fn with_record() -> Scene {
    let scene = Scene::without_daemon();
    let folder = scene.directory.path().join("raid");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data.toml"), RECORD).unwrap();
    scene
}

#[tokio::test]
async fn without_arrays_it_is_said_how_to_get_one() {
    let scene = Scene::without_daemon();
    let outcome = raid(&scene, &["status"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("blockmirror raid create"), "{}", outcome.stdout);
    for command in [
        &["status", "data"][..],
        &["heal", "data"],
        &["start", "data"],
        &["remove", "data"],
        &["watch", "data"],
    ] {
        let outcome = raid(&scene, command).await;
        assert_eq!(outcome.code, Some(1), "{command:?}");
        assert!(
            outcome.stderr.contains("data is no array of blockmirror's"),
            "{command:?}: {}",
            outcome.stderr
        );
    }
    let outcome = raid(&scene, &["heal", "../data"]).await;
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(!scene.directory.path().join("data.lock").exists());
}

#[tokio::test]
async fn an_array_that_does_not_run_is_shown_and_can_be_forgotten() {
    let scene = with_record();
    let outcome = raid(&scene, &["status"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for words in [
        "data  /dev/md/none-such",
        "does not run",
        "blockmirror raid start",
        "not attached",
    ] {
        assert!(outcome.stdout.contains(words), "{words}: {}", outcome.stdout);
    }
    let outcome = raid(&scene, &["--json", "status", "data"]).await;
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["arrays"][0]["is_running"], false);
    assert_eq!(report["arrays"][0]["uuid"], "1:2:3:4");
    let outcome = raid(&scene, &["remove", "data"]).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
    let outcome = raid(&scene, &["remove", "data", "--forget"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let outcome = raid(&scene, &["status", "data"]).await;
    assert_eq!(outcome.code, Some(1));
}

#[tokio::test]
async fn arrays_are_made_of_devices_under_names_that_are_free() {
    let scene = with_record();
    let file = scene.directory.path().join("disk").display().to_string();
    fs::write(&file, vec![0; 1 << 20]).unwrap();
    let create = |name: &'static str, local: String| {
        let scene = &scene;
        async move {
            let leg = ["nbd://127.0.0.1:1/leg", "/dev/nbd9"];
            raid(scene, &["create", name, "--local", &local, leg[0], leg[1], "--dry-run"]).await
        }
    };
    let outcome = create("data", file.clone()).await;
    assert!(outcome.stderr.contains("data is there already"), "{}", outcome.stderr);
    let outcome = create("more", file.clone()).await;
    assert!(outcome.stderr.contains("is no block device"), "{}", outcome.stderr);
    let outcome = create("more", "/dev/none-such".to_owned()).await;
    assert!(outcome.stderr.contains("/dev/none-such"), "{}", outcome.stderr);
    assert_eq!(fs::read_dir(scene.directory.path().join("raid")).unwrap().count(), 1);
    let outcome = raid(
        &scene,
        &["adopt", "more", "/dev/md/other", "nbd://bravo/leg", "/dev/nbd9"],
    )
    .await;
    assert!(
        outcome.stderr.contains("/dev/md/other does not run"),
        "{}",
        outcome.stderr
    );
    let outcome = raid(&scene, &["watch", "--metrics", "9188"]).await;
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("tcp:127.0.0.1:9188"), "{}", outcome.stderr);
}
