//! The whole daemon in this process: started from a configuration text, used by clients and the admin API, stopped.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use blockmirror_client::admin::{AdminError, PeerCommand, PeerStatus, ReplicationState, StatusReport};
use blockmirror_client::client::Client;
use blockmirror_client::uri::NbdUri;
use blockmirror_server::control::RunError;
use common::{PATIENCE, start, text, try_start};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

fn plain(export: &str, image: &str, size: &str) -> String {
    format!(
        "[[resource]]\nname = \"{export}\"\nmirror = false\n[[resource.volume]]\nexport = \"{export}\"\nimage = \"{image}\"\nsize = \"{size}\"\n"
    )
}

fn mirrored(dir: &Path, peer: &str) -> String {
    let dir = dir.display();
    format!(
        "[[resource]]\nname = \"db\"\n[[resource.volume]]\nexport = \"db\"\nimage = \"{dir}/db.img\"\nsize = \"16MiB\"\n{peer}"
    )
}

fn bravo(dir: &Path) -> String {
    let dir = dir.display();
    format!("[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd+unix:///db?socket={dir}/bravo.nbd\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_reports_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let more = plain("one", "memory:", "1MiB") + &plain("two", "memory:", "2MiB");
    let daemon = start(dir.path(), &text(dir.path(), "alpha", &more)).await;
    let tcp = daemon.addresses[1].strip_prefix("tcp:127.0.0.1:").unwrap();
    assert_ne!(tcp, "0", "the port that was chosen is told");
    let uri: NbdUri = format!("nbd://127.0.0.1:{tcp}/two").parse().unwrap();
    let remote = Client::connect(&uri).await.unwrap();
    assert_eq!(remote.size(), 2 << 20);
    remote.write(4096, b"over TCP", true).await.unwrap();
    let local = daemon.client("alpha", "two").await;
    assert_eq!(local.read(4096, 8).await.unwrap(), b"over TCP");
    let report = daemon.admin("alpha").status().await.unwrap();
    let exports: Vec<&str> = report
        .resources
        .iter()
        .map(|resource| resource.volumes[0].export.as_str())
        .collect();
    assert_eq!((report.name.as_str(), exports), ("alpha", vec!["one", "two"]));
    let volume = &report.resources[1].volumes[0];
    assert_eq!(
        (volume.connections, volume.size_bytes, volume.image.as_str()),
        (2, 2 << 20, "memory:")
    );
    drop((remote, local));
    daemon.stop().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["alpha.toml"], "socket files are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gets_every_write_and_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let leg = format!("{}/leg.img", dir.path().display());
    let remote = start(dir.path(), &text(dir.path(), "bravo", &plain("db", &leg, "16MiB"))).await;
    let primary = mirrored(dir.path(), &bravo(dir.path()));
    let primary = start(dir.path(), &text(dir.path(), "alpha", &primary)).await;
    let established = |peer: &PeerStatus| peer.replication_state == ReplicationState::Established;
    primary.peer("alpha", "db", "bravo", established).await;
    let client = primary.client("alpha", "db").await;
    client.write(0, &[1; 8192], false).await.unwrap();
    client.flush().await.unwrap();
    let admin = primary.admin("alpha");
    admin.command("db", "bravo", PeerCommand::Disconnect).await.unwrap();
    client.write(1 << 20, &[2; 8192], true).await.unwrap();
    let gone = primary.peer("alpha", "db", "bravo", |peer| peer.dirty_bytes > 0).await;
    assert_eq!(gone.dirty_bytes, 8192);
    admin.command("db", "bravo", PeerCommand::Connect).await.unwrap();
    let back = primary
        .peer("alpha", "db", "bravo", |peer| {
            established(peer) && peer.dirty_bytes == 0
        })
        .await;
    assert_eq!(
        back.last_resync.unwrap().copied_bytes,
        8192,
        "what it missed, and nothing else"
    );
    client.disconnect().await.unwrap();
    primary.stop().await.unwrap();
    remote.stop().await.unwrap();
    let here = std::fs::read(dir.path().join("db.img")).unwrap();
    assert_eq!(here[0..8192], [1; 8192]);
    assert!(here == std::fs::read(leg).unwrap(), "both legs are identical");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_fit_is_told_and_the_volume_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let remote = start(dir.path(), &text(dir.path(), "bravo", &plain("db", "memory:", "1MiB"))).await;
    let primary = mirrored(dir.path(), &bravo(dir.path()));
    let primary = start(dir.path(), &text(dir.path(), "alpha", &primary)).await;
    let misfit = primary
        .peer("alpha", "db", "bravo", |peer| peer.last_error.is_some())
        .await;
    let error = misfit.last_error.unwrap();
    assert!(error.contains("1048576") && error.contains("16777216"), "{error}");
    let client = primary.client("alpha", "db").await;
    client.write(0, b"alone", true).await.unwrap();
    assert_eq!(client.read(0, 5).await.unwrap(), b"alone");
    drop(client);
    primary.stop().await.unwrap();
    remote.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_asks_wrongly_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let primary = mirrored(dir.path(), &bravo(dir.path()));
    let primary = start(dir.path(), &text(dir.path(), "alpha", &primary)).await;
    let admin = primary.admin("alpha");
    for (export, peer, known) in [("nope", "bravo", "volumes: db"), ("db", "nope", "its peers: bravo")] {
        match admin.command(export, peer, PeerCommand::Connect).await {
            Err(AdminError::Refused { status: 404, error, .. }) => assert!(error.contains(known), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    primary.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_a_limit_are_refused_and_others_go_on() {
    for key in ["max_connections", "max_connections_per_export"] {
        let dir = tempfile::tempdir().unwrap();
        let more = format!("[limits]\n{key} = 1\n{}", plain("db", "memory:", "1MiB"));
        let daemon = start(dir.path(), &text(dir.path(), "alpha", &more)).await;
        let first = daemon.client("alpha", "db").await;
        let socket = dir.path().join("alpha.nbd");
        let uri: NbdUri = format!("nbd+unix:///db?socket={}", socket.display()).parse().unwrap();
        if let Ok(second) = Client::connect(&uri).await {
            assert!(second.read(0, 1).await.is_err(), "{key}");
        }
        first.write(0, b"still", false).await.unwrap();
        first.disconnect().await.unwrap();
        let again = async {
            while let Err(_) | Ok(Err(_)) = match Client::connect(&uri).await {
                Ok(client) => Ok(client.read(0, 5).await),
                Err(error) => Err(error),
            } {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.unwrap();
        daemon.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_negotiates_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        "[limits]\nhandshake_timeout = \"100ms\"\n{}",
        plain("db", "memory:", "1MiB")
    );
    let daemon = start(dir.path(), &text(dir.path(), "alpha", &more)).await;
    let mut silent = UnixStream::connect(dir.path().join("alpha.nbd")).await.unwrap();
    let mut received = Vec::new();
    silent.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 18, "the greeting, then the end");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), &text(dir.path(), "alpha", &plain("db", "memory:", "1MiB"))).await;
    let port = first.addresses[1].clone();
    let other = format!(
        "name = \"b\"\nlisten = [\"{port}\"]\n{}",
        plain("db", "memory:", "1MiB")
    );
    let taken = try_start(dir.path(), &other, &[]).await.err().unwrap().to_string();
    assert!(taken.contains("in use") && taken.contains(&port), "{taken}");
    first.stop().await.unwrap();

    let volume = mirrored(dir.path(), "");
    let once = start(dir.path(), &text(dir.path(), "alpha", &volume)).await;
    let copy = volume.replace("db.img\"", "db.img\"\nmetadata = \"/nonexistent/m\"");
    let locked = try_start(dir.path(), &text(dir.path(), "beta", &copy), &[])
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(locked.contains("db.img"), "{locked}");
    once.stop().await.unwrap();

    // The image is gone: nobody else has what was in it, and no empty one is made in its place.
    let image = dir.path().join("db.img");
    std::fs::rename(&image, dir.path().join("old.img")).unwrap();
    for adopt in [&[][..], &["db"][..]] {
        let gone = try_start(dir.path(), &text(dir.path(), "alpha", &volume), adopt).await;
        let gone = gone.err().unwrap().to_string();
        assert!(
            gone.contains("is gone") && gone.contains("Bring the image back"),
            "{gone}"
        );
        assert!(!image.exists());
    }

    // It is replaced by another of the same size.
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let replaced = try_start(dir.path(), &text(dir.path(), "alpha", &volume), &[])
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        replaced.contains("another image") && replaced.contains("--adopt db"),
        "{replaced}"
    );
    let unknown = try_start(dir.path(), &text(dir.path(), "alpha", &volume), &["dd"])
        .await
        .err()
        .unwrap();
    assert!(unknown.to_string().contains("--adopt dd"), "{unknown}");
    let adopted = try_start(dir.path(), &text(dir.path(), "alpha", &volume), &["db"])
        .await
        .unwrap();
    adopted.stop().await.unwrap();
    start(dir.path(), &text(dir.path(), "alpha", &volume))
        .await
        .stop()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_too_large_to_be_mirrored_is_refused() {
    // Few filesystems have room for the length alone; this one does.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = std::fs::File::create(dir.path().join("db.img")).unwrap();
    image.set_len(2 << 50).unwrap();
    let volume = mirrored(dir.path(), "").replace("size = \"16MiB\"\n", "");
    let refused = try_start(dir.path(), &text(dir.path(), "alpha", &volume), &[]).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("db.img") && refused.contains("1 PiB"), "{refused}");
    let plain = volume.replace("name = \"db\"", "name = \"db\"\nmirror = false");
    start(dir.path(), &text(dir.path(), "alpha", &plain))
        .await
        .stop()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_word_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let suspended = bravo(dir.path()) + "on_disconnect = \"suspend\"\nprotocol = \"nbd\"\n";
    let daemon = start(
        dir.path(),
        &text(dir.path(), "alpha", &mirrored(dir.path(), &suspended)),
    )
    .await;
    let client = daemon.client("alpha", "db").await;
    // Held for ever: the peer does not exist.
    let held = tokio::spawn(async move { client.write(0, b"held", false).await });
    let admin = daemon.admin("alpha");
    let waiting = |report: StatusReport| report.resources[0].volumes[0].requests_in_flight > 0;
    let polling = async {
        while !waiting(admin.status().await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polling).await.unwrap();
    daemon.trigger.escalate();
    daemon.trigger.escalate();
    let ended = tokio::time::timeout(PATIENCE, daemon.task).await.unwrap().unwrap();
    assert!(ended.is_ok() || matches!(ended, Err(RunError::Unclean)), "{ended:?}");
    assert!(held.await.unwrap().is_err(), "a held write is never answered as done");
}
