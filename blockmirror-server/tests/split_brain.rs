//! Two partners whose histories diverge: seen by both, and resolved by the operator's word.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use blockmirror_client::admin::{AdminError, ConnectionState, Order};
use blockmirror_client::client::Client;
use blockmirror_client::uri::NbdUri;
use common::PATIENCE;
use common::pair::{Pair, refused};

async fn write(uri: &NbdUri, offset: u64, data: &[u8]) {
    let client = Client::connect(uri).await.unwrap();
    client.write(offset, data, true).await.unwrap();
    client.disconnect().await.unwrap();
}

fn connect(peer: &str, discard_my_data: bool) -> Order {
    Order::Connect {
        name: "db".to_owned(),
        peer: peer.to_owned(),
        discard_my_data,
    }
}

/// alpha and bravo are both Primary, and have gone on alone.
async fn diverged() -> Pair {
    let pair = Pair::established(&["db"], "").await;
    write(&pair.uri("alpha", "db"), 0, &[1; 16384]).await;
    let part = Order::Disconnect {
        name: "db".to_owned(),
        peer: "bravo".to_owned(),
    };
    pair.admin("alpha").order(&part).await.unwrap();
    let promote = |accept| Order::Promote {
        resource: "db".to_owned(),
        force: true,
        accept,
    };
    let token = match pair.admin("bravo").order(&promote(None)).await {
        Err(AdminError::Refused {
            needs_accept: Some(needed),
            ..
        }) => needed.token,
        other => panic!("alpha may be writing: {other:?}"),
    };
    pair.admin("bravo").order(&promote(Some(token))).await.unwrap();
    write(&pair.uri("alpha", "db"), 0, &[2; 8192]).await;
    write(&pair.uri("bravo", "db"), 8192, &[3; 8192]).await;
    pair
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_split_brain_what_is_given_up_is_in_a_branch() {
    let pair = diverged().await;
    let lost = pair.image("alpha", "db");

    pair.admin("alpha").order(&connect("bravo", false)).await.unwrap();
    for node in ["alpha", "bravo"] {
        let seen = pair.until(node, |db| db.partners[0].split_brain.is_some()).await;
        assert_eq!(seen.partners[0].connection_state, ConnectionState::StandAlone);
    }
    assert!(pair.image("alpha", "db") == lost, "nobody's data was touched");

    let demote = Order::Demote {
        resource: "db".to_owned(),
    };
    pair.admin("alpha").order(&demote).await.unwrap();
    pair.admin("alpha").order(&connect("bravo", true)).await.unwrap();
    pair.admin("bravo").order(&connect("alpha", false)).await.unwrap();
    pair.in_step("bravo").await;
    assert!(pair.image("alpha", "db") == pair.image("bravo", "db"));
    let branches = pair.admin("alpha").branches().await.unwrap().branches;
    let [branch] = &branches[..] else {
        panic!("one branch: {branches:?}");
    };
    assert!(pair.admin("bravo").branches().await.unwrap().branches.is_empty());

    let export = Order::BranchExport {
        branch: branch.name.clone(),
    };
    let served = async {
        // The branch is closed a moment after the resync has ended.
        loop {
            match pair.admin("alpha").order(&export).await {
                Ok(done) => return done.export.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let served = tokio::time::timeout(PATIENCE, served).await.unwrap();
    let reader = Client::connect(&pair.uri("alpha", &served)).await.unwrap();
    assert!(reader.limits().read_only());
    assert!(reader.read(0, lost.len()).await.unwrap() == lost, "what was given up");
    reader.disconnect().await.unwrap();
    let expire = Order::BranchExpire {
        branch: branch.name.clone(),
    };
    assert!(refused(pair.admin("alpha").order(&expire).await).contains("unexport"));
    let unexport = Order::BranchUnexport {
        branch: branch.name.clone(),
    };
    pair.admin("alpha").order(&unexport).await.unwrap();
    pair.admin("alpha").order(&expire).await.unwrap();
    assert!(pair.admin("alpha").branches().await.unwrap().branches.is_empty());
    pair.stop().await;
}
