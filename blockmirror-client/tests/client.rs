//! The asynchronous client, and dialling, against a toy server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blockmirror_client::client::{Client, ClientError, WINDOW};
use blockmirror_client::connect::{ConnectError, Server, Wishes, connect, info, list};
use blockmirror_client::pipeline::StartError;
use blockmirror_client::uri::Address;
use common::{BAD_BYTE, EXPORT, Shared, Toy, pattern, uri};
use nbd_proto::{BlockSizes, CommandFlags, NbdError, TransmissionFlags};
use tokio::net::{TcpListener, UnixListener};

const PATIENT: Duration = Duration::from_secs(60);

struct Scene {
    directory: tempfile::TempDir,
    seen: Shared,
}

impl Scene {
    fn new(toy: Toy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let size = toy.size as usize;
        let seen = toy.serve(&directory.path().join("toy.sock"), pattern(size));
        Self { directory, seen }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("toy.sock")
    }

    async fn client(&self) -> Client {
        Client::connect(&uri(&self.socket())).await.unwrap()
    }
}

#[tokio::test]
async fn long_requests_are_split_and_come_back_whole() {
    let scene = Scene::new(Toy::default());
    let client = scene.client().await;
    assert_eq!(client.size(), 1 << 20);
    let all = client.read(0, 1 << 20).await.unwrap();
    assert_eq!(all, pattern(1 << 20));
    let new: Vec<u8> = pattern(50_000).into_iter().rev().collect();
    client.write(1001, &new, true).await.unwrap();
    assert_eq!(scene.seen.lock().unwrap().data[1001..51_001], new);
    client.zero(2000, 3, true, false).await.unwrap();
    client.trim(4000, 500, true).await.unwrap();
    client.cache(0, 1 << 20).await.unwrap();
    client.flush().await.unwrap();
    client.disconnect().await.unwrap();
    let seen = scene.seen.lock().unwrap();
    assert_eq!(
        (&seen.data[2000..2003], &seen.data[4000..4500]),
        (&[0; 3][..], &[0; 500][..])
    );
    assert_eq!(seen.goodbyes, 1);
    assert!(
        seen.requests
            .iter()
            .filter(|request| request.command <= 1)
            .all(|request| request.length <= 4096)
    );
    let durable = seen
        .requests
        .iter()
        .filter(|request| request.flags.contains(CommandFlags::FUA))
        .count();
    assert_eq!(
        durable,
        50_000_usize.div_ceil(4096) + 1,
        "every piece of the WRITE, and the TRIM"
    );
}

#[tokio::test]
async fn many_askers_share_a_connection() {
    let scene = Scene::new(Toy::default());
    let client = scene.client().await;
    let askers = (0..4 * WINDOW).map(|asker| {
        let client = client.clone();
        tokio::spawn(async move {
            let data = vec![asker as u8; 100];
            client.write(asker as u64 * 100, &data, false).await.unwrap();
            assert_eq!(client.read(asker as u64 * 100, 100).await.unwrap(), data);
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await.unwrap();
    }
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn durability_without_fua_is_a_flush() {
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
    let scene = Scene::new(Toy {
        flags,
        ..Toy::default()
    });
    let client = scene.client().await;
    client.write(0, &[1; 10], true).await.unwrap();
    let commands: Vec<u16> = scene
        .seen
        .lock()
        .unwrap()
        .requests
        .iter()
        .map(|request| request.command)
        .collect();
    assert_eq!(commands, [1, 3]);
    assert!(matches!(
        client.zero(0, 1, false, false).await,
        Err(ClientError::Start(StartError::NotOffered(_)))
    ));
}

#[tokio::test]
async fn errors_of_the_server_are_told_in_its_words() {
    let scene = Scene::new(Toy {
        fails_at_bad_byte: true,
        ..Toy::default()
    });
    let client = scene.client().await;
    let error = client.read(BAD_BYTE - 10, 20).await.unwrap_err();
    assert!(matches!(
        &error,
        ClientError::Server {
            error: NbdError::Io,
            ..
        }
    ));
    assert!(error.to_string().ends_with("(bad sector)"), "{error}");
    // It is a request that failed, not the connection.
    assert_eq!(client.read(0, 4).await.unwrap(), pattern(4));
    let outside = client.read(1 << 20, 1).await;
    assert!(matches!(
        outside,
        Err(ClientError::Start(StartError::OutOfRange { .. }))
    ));
    assert!(matches!(
        client.zero(u64::MAX, 2, false, false).await,
        Err(ClientError::TooLong { .. })
    ));
}

/// Section "Error values" of the protocol: ESHUTDOWN asks for a soft disconnect.
#[tokio::test]
async fn a_server_that_goes_down_is_told_good_bye() {
    let toy = Toy::default();
    let shut = Arc::clone(&toy.shut);
    let scene = Scene::new(toy);
    let client = scene.client().await;
    client.write(0, &[1; 10], false).await.unwrap();
    shut.store(true, Ordering::SeqCst);
    let told = client.flush().await.unwrap_err();
    let expected = NbdError::Shutdown;
    assert!(
        matches!(&told, ClientError::Server { error, .. } if *error == expected),
        "{told}"
    );
    let goodbye = async {
        while scene.seen.lock().unwrap().goodbyes == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENT, goodbye).await.unwrap();
    // Nothing more is asked of it.
    let after = client.read(0, 1).await.unwrap_err().to_string();
    assert!(after.ends_with("shutting down"), "{after}");
    assert_eq!(scene.seen.lock().unwrap().requests.len(), 1);
}

#[tokio::test]
async fn a_lost_connection_is_told_to_everyone() {
    // How the system words a connection that broke differs from time to time.
    for (toy, why) in [
        (
            Toy {
                drops_after: Some(3),
                ..Toy::default()
            },
            "",
        ),
        (
            Toy {
                repeats_after: Some(3),
                ..Toy::default()
            },
            "which is not in flight",
        ),
    ] {
        let scene = Scene::new(toy);
        let client = scene.client().await;
        let readers: Vec<_> = (0..20)
            .map(|at| {
                let client = client.clone();
                tokio::spawn(async move { client.read(at, 1).await })
            })
            .collect();
        let mut lost = 0;
        for reader in readers {
            match reader.await.unwrap() {
                Ok(_) => {}
                Err(ClientError::Lost(_)) => lost += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(lost, 17, "three were answered");
        let after = client.flush().await.unwrap_err().to_string();
        assert!(after.starts_with("the connection is lost: "), "{after}");
        assert!(after.contains(why), "{after}");
    }
}

#[tokio::test]
async fn block_sizes_are_obeyed() {
    let block_sizes = BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum_payload: 8192,
    };
    let scene = Scene::new(Toy {
        block_sizes,
        ..Toy::default()
    });
    let client = scene.client().await;
    assert!(matches!(
        client.read(1, 512).await,
        Err(ClientError::Start(StartError::Misaligned { .. }))
    ));
    assert_eq!(client.read(512, 20_480).await.unwrap(), pattern(20_992)[512..]);
}

#[tokio::test]
async fn exports_are_listed_and_described() {
    let scene = Scene::new(Toy::default());
    let address = Server::from(Address::Unix(scene.socket()));
    let listed = list(&address, PATIENT).await.unwrap();
    assert_eq!(listed[0], (EXPORT.to_owned(), "a toy".to_owned()));
    let told = info(&address, "", PATIENT).await.unwrap();
    assert_eq!((told.size, told.description.as_deref()), (1 << 20, Some("a toy")));
    assert!(scene.seen.lock().unwrap().requests.is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said() {
    let scene = Scene::new(Toy::default());
    let address = Server::from(Address::Unix(scene.socket()));
    let error = connect(&address, "nothing", &Wishes::default(), PATIENT)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }));
    assert!(error.to_string().contains("\"nothing\""), "{error}");
    let nowhere = Server::from(Address::Unix(scene.directory.path().join("nowhere.sock")));
    let error = connect(&nowhere, "", &Wishes::default(), PATIENT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial { .. }));
    assert!(
        error.to_string().contains("nowhere.sock") && error.to_string().contains("listening"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_closes_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { drop(listener.accept().await) });
    let error = connect(&Address::Unix(socket).into(), "", &Wishes::default(), PATIENT)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("before its greeting"), "{error}");
}

/// The deadline covers dialling and negotiating together. Time stands still while anything can happen, so that the
/// test waits for no clock.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
    .into();
    let error = connect(&address, "", &Wishes::default(), Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(matches!(&error, ConnectError::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("within 5.0 s"), "{error}");
    drop(listener);
}
