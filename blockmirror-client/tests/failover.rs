//! The client that follows the Primary: what is repeated, what is not, and where it goes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blockmirror_client::client::{Access, ClientError, FailoverClient, Patience};
use blockmirror_client::uri::UriList;
use common::{Shared, Toy, pattern, uri};
use nbd_proto::TransmissionFlags;

const SIZE: usize = 1 << 20;
/// Long enough for a loaded machine; nothing is judged by how long it took.
const LONG: Patience = Patience {
    answer: Duration::from_secs(30),
    total: Duration::from_secs(60),
};

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn serve(&self, name: &str, toy: Toy) -> Shared {
        toy.serve(&self.socket(name), vec![0; SIZE])
    }

    fn list(&self, names: &[&str]) -> UriList {
        let uris: Vec<String> = names.iter().map(|name| uri(&self.socket(name)).to_string()).collect();
        uris.join(",").parse().unwrap()
    }

    async fn connect(&self, names: &[&str]) -> FailoverClient {
        FailoverClient::connect(&self.list(names), Access::ReadWrite, LONG)
            .await
            .unwrap()
    }
}

/// Offsets of all requests, in their order.
fn offsets(seen: &Shared) -> Vec<u64> {
    seen.lock()
        .unwrap()
        .requests
        .iter()
        .map(|request| request.offset)
        .collect()
}

fn secondary() -> Toy {
    let toy = Toy::default();
    toy.shut.store(true, Ordering::SeqCst);
    toy
}

#[tokio::test]
async fn it_goes_where_writes_are_granted() {
    let scene = Scene::new();
    let refusing = scene.serve("a", secondary());
    let read_only = Toy {
        flags: TransmissionFlags::all(),
        ..Toy::default()
    };
    scene.serve("b", read_only);
    let primary = scene.serve("c", Toy::default());
    // Nobody listens at "d".
    let client = scene.connect(&["d", "a", "b", "c"]).await;
    assert_eq!(client.uri().await, uri(&scene.socket("c")));
    assert_eq!(client.size().await, SIZE as u64);
    client.write(4096, &pattern(4096), true).await.unwrap();
    assert_eq!(client.read(4096, 4096).await.unwrap(), pattern(4096));
    client.zero(0, 4096, false, false).await.unwrap();
    client.trim(0, 4096, false).await.unwrap();
    client.flush().await.unwrap();
    client.disconnect().await.unwrap();
    assert_eq!((primary.lock().unwrap().goodbyes, offsets(&refusing)), (1, vec![]));
}

#[tokio::test]
async fn what_was_answered_is_never_repeated() {
    let scene = Scene::new();
    let dies = Toy {
        drops_after: Some(3),
        ..Toy::default()
    };
    let shut = Arc::clone(&dies.shut);
    let (first, second) = (scene.serve("a", dies), scene.serve("b", Toy::default()));
    let client = scene.connect(&["a", "b"]).await;
    for index in 0..10 {
        client.write(index * 4096, &[index as u8; 4096], false).await.unwrap();
        if index == 2 {
            // It does not come back.
            shut.store(true, Ordering::SeqCst);
        }
    }
    assert_eq!(offsets(&first), [0, 4096, 8192]);
    let rest: Vec<u64> = (3..10).map(|index| index * 4096).collect();
    assert_eq!(offsets(&second), rest);
    assert_eq!(client.connections().await, 2);
}

#[tokio::test]
async fn a_switchover_is_not_noticed() {
    let scene = Scene::new();
    let (old, new) = (Toy::default(), secondary());
    let (old_shut, new_shut) = (Arc::clone(&old.shut), Arc::clone(&new.shut));
    let (first, second) = (scene.serve("a", old), scene.serve("b", new));
    let client = scene.connect(&["a", "b"]).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_u64 {
        let client = client.clone();
        writers.spawn(async move {
            for turn in 0..20 {
                let at = (writer * 20 + turn) * 4096;
                client.write(at, &[1 + writer as u8; 4096], false).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    // For a while nobody is Primary.
    old_shut.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    new_shut.store(false, Ordering::SeqCst);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let mut all = offsets(&first);
    all.extend(offsets(&second));
    all.sort_unstable();
    let wanted: Vec<u64> = (0..80).map(|index| index * 4096).collect();
    assert_eq!(all, wanted, "every write was carried out by one of them, once");
    assert!(!offsets(&second).is_empty());
}

#[tokio::test]
async fn it_gives_up_when_its_patience_ends() {
    let scene = Scene::new();
    scene.serve("a", secondary());
    let short = Patience {
        answer: Duration::from_millis(100),
        total: Duration::from_millis(300),
    };
    let list = scene.list(&["a", "nobody"]);
    let error = FailoverClient::connect(&list, Access::ReadWrite, short)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::Exhausted { .. }), "{text}");
    assert!(
        text.contains("the Primary is another node") && text.contains("nobody"),
        "{text}"
    );
}

#[tokio::test]
async fn a_node_that_hangs_holds_nobody_up() {
    let scene = Scene::new();
    // Connections queue up, and nobody says a word.
    let _silent = tokio::net::UnixListener::bind(scene.socket("a")).unwrap();
    scene.serve("b", Toy::default());
    let client = scene.connect(&["a", "b"]).await;
    assert_eq!(client.uri().await, uri(&scene.socket("b")));
}

#[tokio::test]
async fn who_refused_is_asked_again_while_another_hangs() {
    let scene = Scene::new();
    let _silent = tokio::net::UnixListener::bind(scene.socket("a")).unwrap();
    let new = secondary();
    let shut = Arc::clone(&new.shut);
    scene.serve("b", new);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(400)).await;
        shut.store(false, Ordering::SeqCst);
    });
    // Less than the time a node has that does not answer.
    let patience = Patience {
        answer: Duration::from_secs(4),
        total: Duration::from_secs(4),
    };
    let client = FailoverClient::connect(&scene.list(&["a", "b"]), Access::ReadWrite, patience).await;
    assert_eq!(client.unwrap().uri().await, uri(&scene.socket("b")));
}

#[tokio::test]
async fn an_error_of_the_device_is_the_answer() {
    let scene = Scene::new();
    let failing = Toy {
        fails_at_bad_byte: true,
        ..Toy::default()
    };
    let (first, second) = (scene.serve("a", failing), scene.serve("b", Toy::default()));
    let client = scene.connect(&["a", "b"]).await;
    let error = client.write(common::BAD_BYTE / 4096 * 4096, &[1; 4096], false).await;
    assert!(matches!(error, Err(ClientError::Server { .. })), "{error:?}");
    assert_eq!((offsets(&first).len(), offsets(&second).len()), (1, 0));
}

#[tokio::test]
async fn a_smaller_export_is_another_one() {
    let scene = Scene::new();
    let dies = Toy {
        drops_after: Some(1),
        ..Toy::default()
    };
    let shut = Arc::clone(&dies.shut);
    scene.serve("a", dies);
    let small = Toy {
        size: 1 << 19,
        ..Toy::default()
    };
    let other = scene.serve("b", small);
    let list = scene.list(&["a", "b"]);
    let short = Patience {
        answer: Duration::from_secs(5),
        total: Duration::from_secs(2),
    };
    let client = FailoverClient::connect(&list, Access::ReadWrite, short).await.unwrap();
    client.write(0, &[1; 512], false).await.unwrap();
    shut.store(true, Ordering::SeqCst);
    let error = client.write(0, &[2; 512], false).await.unwrap_err().to_string();
    assert!(error.contains("it is another one"), "{error}");
    assert_eq!(offsets(&other), [] as [u64; 0]);
}

#[tokio::test]
async fn a_reader_takes_what_grants_no_writes_when_nobody_does() {
    let scene = Scene::new();
    let read_only = Toy {
        flags: TransmissionFlags::all(),
        ..Toy::default()
    };
    scene.serve("a", read_only);
    scene.serve("b", Toy::default());
    let reader = |names: &[&str]| {
        let list = scene.list(names);
        async move { FailoverClient::connect(&list, Access::ReadOnly, LONG).await.unwrap() }
    };
    let preferred = reader(&["a", "b"]).await;
    assert_eq!(preferred.uri().await, uri(&scene.socket("b")));
    let alone = reader(&["a", "nobody"]).await;
    assert_eq!(alone.uri().await, uri(&scene.socket("a")));
    assert_eq!(alone.read(0, 512).await.unwrap(), [0; 512]);
}
