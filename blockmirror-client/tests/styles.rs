//! The asynchronous client in every style of requests and replies, and what it does with metadata contexts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use blockmirror_client::client::{Client, ClientError};
use blockmirror_client::connect::{ConnectError, Wishes, contexts};
use blockmirror_client::uri::Address;
use common::{EXPORT, Shared, Toy, pattern, uri};
use nbd_proto::client::HandshakeError;
use nbd_proto::constants::command;
use nbd_proto::{CommandFlags, Extent, ReplyStyle, Request};

const PATIENT: Duration = Duration::from_secs(60);
const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];
const ALLOCATION: &str = "base:allocation";
/// More than a compact header has room for.
const LARGE: u64 = 16 << 30;

struct Scene {
    directory: tempfile::TempDir,
    seen: Shared,
}

impl Scene {
    fn new(toy: Toy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seen = toy.serve(&directory.path().join("toy.sock"), pattern(1 << 20));
        Self { directory, seen }
    }

    async fn client(&self, wishes: Wishes) -> Result<Client, ClientError> {
        Client::connect_wishing(&uri(&self.directory.path().join("toy.sock")), &wishes, PATIENT).await
    }

    /// Command and length of every request so far.
    fn asked(&self) -> Vec<(u16, u64)> {
        let seen = self.seen.lock().unwrap();
        let requests = seen.requests.iter();
        requests.map(|request| (request.command, request.length)).collect()
    }
}

fn large() -> Toy {
    Toy {
        size: LARGE,
        contexts: &[ALLOCATION, "x-toy:other"],
        ..Toy::default()
    }
}

fn wishing(replies: ReplyStyle, contexts: &[&str]) -> Wishes {
    Wishes {
        replies,
        contexts: contexts.iter().map(|&name| name.to_owned()).collect(),
        contexts_demanded: true,
    }
}

#[tokio::test]
async fn every_style_does_the_same() {
    for replies in STYLES {
        let scene = Scene::new(Toy::default());
        let client = scene.client(wishing(replies, &[])).await.unwrap();
        assert_eq!(client.limits().replies, replies);
        client.write(1000, &[1; 9000], true).await.unwrap();
        client.zero(2000, 500, false, false).await.unwrap();
        client.trim(3000, 500, false).await.unwrap();
        client.cache(0, 1 << 20).await.unwrap();
        client.flush().await.unwrap();
        let data = client.read(900, 9200).await.unwrap();
        client.disconnect().await.unwrap();
        let mut expected = pattern(1 << 20);
        expected[1000..10_000].fill(1);
        expected[2000..2500].fill(0);
        expected[3000..3500].fill(0);
        assert_eq!(data, expected[900..10_100], "{replies:?}");
        assert_eq!(scene.seen.lock().unwrap().goodbyes, 1);
    }
}

#[tokio::test]
async fn long_ranges_are_cut_only_where_the_header_has_no_room() {
    for (replies, requests) in [(ReplyStyle::Structured, 16), (ReplyStyle::Extended, 1)] {
        let scene = Scene::new(large());
        let client = scene.client(wishing(replies, &[])).await.unwrap();
        client.trim(0, LARGE, false).await.unwrap();
        assert_eq!(
            scene.asked(),
            vec![(command::TRIM, LARGE / requests); requests as usize]
        );
    }
}

#[tokio::test]
async fn zeroing_is_fast_or_cut_into_pieces() {
    for is_slow in [false, true] {
        let scene = Scene::new(Toy { is_slow, ..large() });
        let client = scene.client(wishing(ReplyStyle::Extended, &[])).await.unwrap();
        client.zero(0, LARGE, false, false).await.unwrap();
        let seen = scene.seen.lock().unwrap();
        let (fast, slow): (Vec<&Request>, Vec<_>) = seen
            .requests
            .iter()
            .partition(|request| request.flags.contains(CommandFlags::FAST_ZERO));
        assert_eq!(fast.len(), 1);
        assert_eq!(slow.len(), if is_slow { 16 } else { 0 });
    }
}

#[tokio::test]
async fn contexts_tell_of_a_range() {
    let allocated = |length| Extent { length, flags: 0 };
    let hole = |length| Extent { length, flags: 3 };
    for replies in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let scene = Scene::new(large());
        let client = scene.client(wishing(replies, &[ALLOCATION])).await.unwrap();
        assert_eq!(client.contexts().len(), 1);
        let told = client.status(ALLOCATION, 1000, 4000).await.unwrap();
        assert_eq!(told, [allocated(24), hole(1024), allocated(1024)], "{replies:?}");
        // The last may go on behind the range, and a range may be longer than a header can say.
        assert_eq!(client.status(ALLOCATION, 0, 1).await.unwrap(), [allocated(1024)]);
        assert_eq!(client.status(ALLOCATION, 0, LARGE).await.unwrap().len(), 3);
        let other = client.status("x-toy:other", 0, 1).await;
        assert!(matches!(other, Err(ClientError::NoContext(_))));
        assert_eq!(scene.seen.lock().unwrap().filters, [0; 3], "there is only one");
    }
}

#[tokio::test]
async fn of_several_contexts_only_the_one_is_asked_for_where_the_server_can() {
    for (replies, filter) in [(ReplyStyle::Structured, 0), (ReplyStyle::Extended, 2)] {
        let scene = Scene::new(large());
        let both = wishing(replies, &[ALLOCATION, "x-toy:other"]);
        let client = scene.client(both).await.unwrap();
        assert_eq!(client.status("x-toy:other", 0, 1024).await.unwrap().len(), 1);
        assert_eq!(scene.seen.lock().unwrap().filters, [filter]);
    }
}

#[tokio::test]
async fn contexts_are_listed_demanded_or_done_without() {
    let scene = Scene::new(large());
    let address = Address::Unix(scene.directory.path().join("toy.sock"));
    let listed = contexts(&address.into(), EXPORT, PATIENT).await.unwrap();
    assert_eq!(listed, [ALLOCATION, "x-toy:other"]);
    let demanded = scene.client(wishing(ReplyStyle::Extended, &["x-toy:none"])).await;
    let Err(ClientError::Connect(ConnectError::Handshake { source, .. })) = demanded else {
        panic!("it is not there")
    };
    let name = "x-toy:none".to_owned();
    assert_eq!(source, HandshakeError::NoContext { name });
    let wishes = Wishes {
        contexts_demanded: false,
        ..wishing(ReplyStyle::Extended, &["x-toy:none"])
    };
    assert!(scene.client(wishes).await.unwrap().contexts().is_empty());
}
