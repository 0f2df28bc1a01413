//! Two daemons that are partners, steered by the admin API: roles, hosts, comparing, growing, reloading.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use blockmirror_client::admin::{
    ConnectionState, HostAccess, LinkKind, Order, PeerCommand, PeerStatus, ReplicationState, ResourceStatus, Role,
};
use blockmirror_client::client::{Access, Client, FailoverClient, Patience};
use common::pair::{Pair, config, config_with, refused};
use common::{PATIENCE, start};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_pair_waits_for_a_word_and_then_mirrors() {
    let pair = Pair::new(&["db", "log"], "").await;
    let fresh = pair.until("alpha", |db| db.role.is_some()).await;
    assert_eq!((fresh.role, fresh.hosts), (Some(Role::Secondary), HostAccess::Shut));
    assert_eq!(fresh.partners[0].link, LinkKind::Stream);
    let promote = |force| Order::Promote {
        resource: "db".to_owned(),
        force,
        accept: None,
    };
    let why = refused(pair.admin("alpha").order(&promote(false)).await);
    assert!(why.contains("promote --force"), "{why}");
    assert!(
        Client::connect(&pair.uri("alpha", "db")).await.is_err(),
        "nobody is Primary"
    );
    pair.admin("alpha").order(&promote(true)).await.unwrap();
    let primary = pair.in_step("alpha").await;
    assert_eq!(
        (primary.role, primary.hosts),
        (Some(Role::Primary), HostAccess::ReadWrite)
    );
    for (volume, byte) in [("db", 1), ("log", 2)] {
        let client = Client::connect(&pair.uri("alpha", volume)).await.unwrap();
        client.write(8192, &[byte; 4096], true).await.unwrap();
        client.disconnect().await.unwrap();
    }
    let dir = pair.stop().await;
    for volume in ["db", "log"] {
        let image = |node: &str| std::fs::read(dir.path().join(format!("{node}-{volume}.img"))).unwrap();
        assert_ne!(image("alpha")[8192], 0);
        assert!(image("alpha") == image("bravo"), "{volume} is the same on both");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_sends_hosts_to_the_primary() {
    let pair = Pair::established(&["db"], "").await;
    pair.until("bravo", |db| db.partners[0].role == Some(Role::Primary))
        .await;
    let refusal = Client::connect(&pair.uri("bravo", "db")).await.unwrap_err().to_string();
    assert!(refusal.contains("is Secondary on node bravo"), "{refusal}");
    assert!(refusal.contains("its Primary is node alpha"), "{refusal}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_secondary_lets_hosts_read() {
    let pair = Pair::established(&["db"], "read_only_secondary = true").await;
    let writer = Client::connect(&pair.uri("alpha", "db")).await.unwrap();
    writer.write(0, b"seen over there", true).await.unwrap();
    pair.until("bravo", |db| db.hosts == HostAccess::ReadOnly).await;
    let reader = Client::connect(&pair.uri("bravo", "db")).await.unwrap();
    assert!(reader.limits().read_only());
    // The two may have been on their way to a second connection when it was written: then a resync brings it.
    let arrived = async {
        while reader.read(0, 15).await.unwrap() != b"seen over there" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, arrived).await.unwrap();
    assert!(reader.write(0, b"x", false).await.is_err());
    drop((reader, writer));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_follows_the_primary_through_switchovers() {
    let pair = Pair::established(&["db"], "").await;
    let patience = Patience {
        answer: PATIENCE,
        total: PATIENCE,
    };
    let client = FailoverClient::connect(&pair.both("db"), Access::ReadWrite, patience)
        .await
        .unwrap();
    let writing = {
        let client = client.clone();
        tokio::spawn(async move {
            for index in 0..400_u64 {
                client.write(index * 4096, &[index as u8; 4096], false).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client.flush().await.unwrap();
        })
    };
    for node in ["bravo", "alpha", "bravo"] {
        pair.promote(node).await;
        let status = pair.until(node, |db| db.role == Some(Role::Primary)).await;
        assert_eq!(status.hosts, HostAccess::ReadWrite);
    }
    writing.await.unwrap();
    for index in 0..400_u64 {
        let found = client.read(index * 4096, 4096).await.unwrap();
        assert!(found == [index as u8; 4096], "block {index}");
    }
    client.disconnect().await.unwrap();
    pair.in_step("bravo").await;
    assert!(pair.image("alpha", "db") == pair.image("bravo", "db"));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_the_rule_and_what_went_into_it() {
    let pair = Pair::established(&["db"], "").await;
    let why = pair.admin("bravo").why("db").await.unwrap();
    assert_eq!((why.node.as_str(), why.role), ("bravo", Role::Secondary));
    let handshake = &why.handshakes[0];
    assert_eq!(
        (handshake.peer.as_str(), handshake.state.as_str()),
        ("alpha", "Connected")
    );
    let decision = &handshake.volumes[0];
    assert!(!decision.rule.is_empty() && decision.mine.is_some() && decision.theirs.is_some());
    assert!(refused(pair.admin("bravo").why("nope").await).contains("resources: db"));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn growing_and_comparing() {
    let pair = Pair::established(&["db"], "").await;
    let resize = |size| Order::Resize {
        volume: "db".to_owned(),
        size,
        assume_clean: false,
        force: false,
    };
    let admin = pair.admin("alpha");
    assert!(refused(admin.order(&resize(4096)).await).contains("cut off"));
    admin.order(&resize(32 << 20)).await.unwrap();
    let client = Client::connect(&pair.uri("alpha", "db")).await.unwrap();
    assert_eq!(client.size(), 32 << 20);
    client.write((32 << 20) - 4096, &[7; 4096], true).await.unwrap();
    client.disconnect().await.unwrap();
    pair.in_step("alpha").await;
    let verify = Order::Verify {
        name: "db".to_owned(),
        peer: None,
        repair: false,
        resume: false,
    };
    admin.order(&verify).await.unwrap();
    let ended = pair
        .until("alpha", |db| db.volumes[0].peers[0].last_verify.is_some())
        .await;
    let verified = ended.volumes[0].peers[0].last_verify.unwrap();
    assert!(verified.finished);
    assert_eq!((verified.total_bytes, verified.differing_bytes), (32 << 20, 0));
    let dir = pair.stop().await;
    // The configuration still has the old size.
    let again = start(dir.path(), &config(dir.path(), "alpha", &["db"], "")).await;
    let report = again.admin("alpha").status().await.unwrap();
    assert_eq!(report.resources[0].volumes[0].size_bytes, 32 << 20);
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_and_goes_by_reloading() {
    let pair = Pair::established(&["db"], "").await;
    let rewrite = |node: &str, volumes: &[&str], more: &str| {
        let dir = pair.dir.path();
        std::fs::write(dir.join(format!("{node}.toml")), config(dir, node, volumes, more)).unwrap();
    };
    assert_eq!(pair.admin("alpha").reload().await.unwrap(), Default::default());
    for node in ["alpha", "bravo"] {
        rewrite(node, &["db", "log"], "verify = \"weekly\"");
    }
    let (alpha, bravo) = (pair.admin("alpha"), pair.admin("bravo"));
    let (alpha, bravo) = tokio::join!(alpha.reload(), bravo.reload());
    for report in [alpha.unwrap(), bravo.unwrap()] {
        let applied = ["resource db: verify schedule", "resource db: volume log added"];
        assert_eq!(
            (&report.applied[..], report.failed.len()),
            (&applied.map(str::to_owned)[..], 0)
        );
    }
    let both = pair.until("alpha", |db| db.volumes.len() == 2).await;
    assert_eq!(both.volumes[1].export, "log");
    rewrite("alpha", &["db", "log"], "verify = \"weekl\"");
    let mistake = refused(pair.admin("alpha").reload().await);
    assert!(mistake.contains("did you mean \"weekly\"?"), "{mistake}");
    for node in ["alpha", "bravo"] {
        rewrite(node, &["db"], "hot_extents = 100");
        let report = pair.admin(node).reload().await.unwrap();
        assert!(
            report.applied.contains(&"resource db: volume log removed".to_owned()),
            "{report:?}"
        );
        assert_eq!(report.needs_restart, ["resource db: its own keys have changed"]);
    }
    pair.until("alpha", |db| db.volumes.len() == 1).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_attached_once_and_the_last_one_stays() {
    let pair = Pair::established(&["db"], "").await;
    let volume = || "db".to_owned();
    let attach = Order::Attach {
        volume: volume(),
        replaced: false,
    };
    let text = refused(pair.admin("alpha").order(&attach).await);
    assert!(text.contains("has its image: detach it first"), "{text}");
    let detach = Order::Detach { volume: volume() };
    pair.admin("alpha").order(&detach).await.unwrap();
    // Behind the word that alpha has none.
    fill(&pair, "alpha", "db", 1).await;
    let text = refused(pair.admin("bravo").order(&detach).await);
    assert!(text.contains("the only one that serves its hosts"), "{text}");
    pair.admin("alpha").order(&attach).await.unwrap();
    pair.in_step("alpha").await;
    pair.admin("bravo").order(&detach).await.unwrap();
    pair.stop().await;
}

/// What both have in step is the same, in every volume.
async fn assert_in_step(pair: &Pair, primary: &str, volumes: &[&str]) {
    let all = |db: &ResourceStatus| {
        let in_step =
            |peer: &PeerStatus| peer.replication_state == ReplicationState::Established && peer.dirty_bytes == 0;
        db.volumes.len() == volumes.len() && db.volumes.iter().flat_map(|volume| &volume.peers).all(in_step)
    };
    pair.until(primary, all).await;
    for volume in volumes {
        let same = pair.image("alpha", volume) == pair.image("bravo", volume);
        assert!(same, "{volume}: {primary} is Primary");
    }
}

async fn fill(pair: &Pair, node: &str, volume: &str, byte: u8) {
    let client = Client::connect(&pair.uri(node, volume)).await.unwrap();
    client
        .write(u64::from(byte) << 16, &[byte; 1 << 16], true)
        .await
        .unwrap();
    client.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_sorts_before_the_others_is_added_on_one_node_after_the_other_and_again() {
    for primary in ["alpha", "bravo"] {
        let pair = Pair::established(&["db"], "").await;
        pair.promote(primary).await;
        fill(&pair, primary, "db", 1).await;
        let dir = pair.dir.path();
        let reload = async |node: &str, volumes: &[&str]| {
            std::fs::write(dir.join(format!("{node}.toml")), config(dir, node, volumes, "")).unwrap();
            let report = pair.admin(node).reload().await.unwrap();
            assert_eq!((report.applied.len(), &report.failed[..]), (1, &[][..]), "{report:?}");
        };
        let secondary = if primary == "alpha" { "bravo" } else { "alpha" };
        for (round, mark) in [(0, 2), (1, 4)] {
            for node in [secondary, primary] {
                reload(node, &["aa", "db"]).await;
                // The other one does not have it: what both have goes on.
                fill(&pair, primary, "db", mark).await;
            }
            assert_in_step(&pair, primary, &["db", "aa"]).await;
            fill(&pair, primary, "aa", mark + 1).await;
            assert_in_step(&pair, primary, &["db", "aa"]).await;
            for node in [primary, secondary] {
                // Its files are closed: it can be added again.
                reload(node, &["db"]).await;
                fill(&pair, primary, "db", mark + 2 + round).await;
            }
            assert_in_step(&pair, primary, &["db"]).await;
        }
        pair.stop().await;
    }
}

async fn reload(pair: &Pair, node: &str, others: &[&str], said: &str) {
    let dir = pair.dir.path();
    let text = config_with(dir, node, others, &["db"]);
    std::fs::write(dir.join(format!("{node}.toml")), text).unwrap();
    let report = pair.admin(node).reload().await.unwrap();
    assert_eq!((&report.applied[..], report.failed.len()), (&[said.to_owned()][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_removed_while_it_is_being_connected_to() {
    let pair = Pair::established(&["db"], "").await;
    let listener = UnixListener::bind(pair.dir.path().join("charlie.nbd")).unwrap();
    reload(&pair, "alpha", &["bravo", "charlie"], "resource db: peer charlie added").await;
    let (mut silent, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    reload(&pair, "alpha", &["bravo"], "resource db: peer charlie removed").await;
    let mut said = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut said)).await.unwrap().unwrap();
    pair.until("alpha", |db| db.volumes[0].peers.len() == 1).await;
    let client = Client::connect(&pair.uri("alpha", "db")).await.unwrap();
    client.write(0, &[5; 4096], true).await.unwrap();
    client.disconnect().await.unwrap();
    pair.in_step("alpha").await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_comes_and_goes_by_reloading_and_brings_itself_up_to_date() {
    let pair = Pair::established(&["db"], "").await;
    let dir = pair.dir.path();
    let client = Client::connect(&pair.uri("alpha", "db")).await.unwrap();
    client.write(0, &[5; 65536], true).await.unwrap();
    std::fs::create_dir(dir.join("charlie-branches")).unwrap();
    let charlie = start(dir, &config_with(dir, "charlie", &["alpha", "bravo"], &["db"])).await;
    for (node, other) in [("alpha", "bravo"), ("bravo", "alpha")] {
        reload(&pair, node, &[other, "charlie"], "resource db: peer charlie added").await;
    }
    let both = pair
        .until("alpha", |db| {
            let peers = &db.volumes[0].peers;
            let there = |peer: &PeerStatus| peer.replication_state == ReplicationState::Established;
            peers.len() == 2 && peers.iter().all(|peer| there(peer) && peer.dirty_bytes == 0)
        })
        .await;
    assert_eq!(both.volumes[0].peers[1].name, "charlie");
    client.write(4096, &[6; 4096], true).await.unwrap();
    assert!(pair.image("alpha", "db") == pair.image("charlie", "db"));
    for (node, other) in [("bravo", "alpha"), ("alpha", "bravo")] {
        reload(&pair, node, &[other], "resource db: peer charlie removed").await;
    }
    pair.until("alpha", |db| db.volumes[0].peers.len() == 1).await;
    // Nobody waits for it any more.
    charlie.stop().await.unwrap();
    client.write(8192, &[7; 4096], true).await.unwrap();
    client.disconnect().await.unwrap();
    pair.in_step("alpha").await;
    assert!(pair.image("alpha", "db") == pair.image("bravo", "db"));
    assert!(pair.image("alpha", "db") != pair.image("charlie", "db"));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_resource_says_to_a_resync_is_heard() {
    let pair = Pair::established(&["db"], "").await;
    let resync = |full| PeerCommand::Resync { full };
    let admin = pair.admin("alpha");
    admin.command("db", "bravo", resync(false)).await.unwrap();
    let full = refused(admin.command("db", "bravo", resync(true)).await);
    assert!(full.contains("is a blockmirror"), "{full}");
    let peer = || ("db".to_owned(), "bravo".to_owned());
    let (name, bravo) = peer();
    admin.order(&Order::Disconnect { name, peer: bravo }).await.unwrap();
    // It connects, as `connect` does.
    admin.command("db", "bravo", resync(false)).await.unwrap();
    pair.in_step("alpha").await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_by_the_operator_and_back_with_what_was_missed() {
    let pair = Pair::established(&["db"], "").await;
    let peer = || ("db".to_owned(), "bravo".to_owned());
    let (name, bravo) = peer();
    pair.admin("alpha")
        .order(&Order::Disconnect { name, peer: bravo })
        .await
        .unwrap();
    let alone = pair
        .until("alpha", |db| {
            db.partners[0].connection_state == ConnectionState::StandAlone
        })
        .await;
    assert_eq!(alone.alerts.len(), 1, "{:?}", alone.alerts);
    let client = Client::connect(&pair.uri("alpha", "db")).await.unwrap();
    client.write(0, &[3; 8192], true).await.unwrap();
    client.disconnect().await.unwrap();
    pair.until("alpha", |db| db.volumes[0].peers[0].dirty_bytes == 8192)
        .await;
    let (name, bravo) = peer();
    let connect = Order::Connect {
        name,
        peer: bravo,
        discard_my_data: false,
    };
    pair.admin("alpha").order(&connect).await.unwrap();
    let back = pair.in_step("alpha").await;
    assert_eq!(back.volumes[0].peers[0].last_resync.unwrap().copied_bytes, 8192);
    assert!(pair.image("alpha", "db") == pair.image("bravo", "db"));
    pair.stop().await;
}
