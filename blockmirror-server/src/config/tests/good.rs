//! What a right text means.

use std::path::PathBuf;
use std::time::Duration;

use super::super::*;
use super::GOOD;
use super::resource_with;

const FULL: &str = r#"
name   = "alpha"
admin  = "/run/blockmirror/alpha.sock"
listen = ["unix:/run/blockmirror/alpha-nbd.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:0"]
engine = "threads"
data_threads = 3

[limits]
max_connections = 7
max_connections_per_export = 3
max_connections_per_client = 2
handshakes_per_second = 9
handshake_timeout = "5s"
idle_timeout = "10m"
requests_in_flight = 128
bytes_in_flight = "128MiB"
shutdown_timeout = "1m"

[[resource]]
name = "db"
hot_extents = 1024
role_after_restart = "secondary"
read_only_secondary = true
split_brain = "discard-zero-changes"
on_io_error = "pass"
resync_min = "1MiB"
resync_max = "200MiB"
verify = "weekly"
verify_repair = true
branch_dir = "/var/lib/blockmirror/branches"
branch_keep = "30d"
[[resource.volume]]
export = "db"
description = "the database"
image  = "/var/lib/blockmirror/db.img"
size   = "10GiB"
preallocate = true
io     = "direct"
minimum_block = 512
metadata = "/var/lib/blockmirror/db.meta"
[[resource.volume]]
export = "log"
image  = "/var/lib/blockmirror/log.img"
size   = 1048576
[[resource.peer]]
name = "bravo"
uri  = "nbd://127.0.0.1:10810"
mode = "async"
on_disconnect = "continue"
skip_initial_sync = true
queue = "256MiB"
request_timeout = "5s"
fence_timeout = "1m"
protocol = "blockmirror"
heartbeat = "250ms"
dead_after = "1s"

[[resource]]
name = "plain"
mirror = false
[[resource.volume]]
export = "scratch"
image = "memory:"
size = "1GiB"
"#;

#[test]
fn every_key_is_read() {
    let config = Config::parse(FULL, "full.toml").unwrap();
    assert_eq!(config.name, "alpha");
    assert_eq!(config.admin, Some(PathBuf::from("/run/blockmirror/alpha.sock")));
    assert_eq!(config.listeners.len(), 3);
    assert_eq!(config.engine, Engine::Threads);
    assert_eq!(config.data_threads, Some(3));
    let limits = Limits {
        max_connections: 7,
        max_connections_per_export: 3,
        max_connections_per_client: 2,
        handshakes_per_second: 9,
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Some(Duration::from_secs(600)),
        requests_in_flight: 128,
        bytes_in_flight: 128 << 20,
        shutdown_timeout: Duration::from_secs(60),
    };
    assert_eq!(config.limits, limits);
}

#[test]
fn every_key_of_a_listener_is_read() {
    let text = format!(
        "name = \"a\"\n[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/x\"\nca = \"/y\"\nkernel = \"off\"\n[[listener]]\naddress = \
         \"tcp:h:1\"\ntls = \"require\"\nclient_certificates = \"require\"\n[[listener]]\naddress = \"unix:/s\"\n{GOOD}"
    );
    let config = Config::parse(&text, "tls.toml").unwrap();
    let [network, local] = &config.listeners[..] else {
        panic!("two listeners");
    };
    assert_eq!(
        (network.tls, network.client_certificates),
        (TlsMode::Require, ClientCertificates::Require)
    );
    assert_eq!(*local, Listener::plain(Listen::Unix(PathBuf::from("/s"))));
    let identity = Identity {
        certificate: PathBuf::from("/c"),
        key: PathBuf::from("/k"),
    };
    let tls = Tls {
        identity: Some(identity),
        client_ca: Some(PathBuf::from("/x")),
        ca: Some(PathBuf::from("/y")),
        kernel: KernelTls::Off,
    };
    assert_eq!(config.tls, tls);
    let words = config.explain();
    assert!(
        words.contains("tcp:h:1 with TLS, or not at all; each needs a certificate"),
        "{words}"
    );
    assert!(words.contains("unix:/s without TLS.\n"), "{words}");
    assert!(words.contains("TLS records: in user space.\n"), "{words}");
}

#[test]
fn tls_of_a_peer_comes_from_its_keys_its_uri_and_the_daemon() {
    let peer = |uri: &str, lines: &str| {
        let tls = "[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nca = \"/y\"\n";
        let peer = format!("[[resource.peer]]\nname = \"b\"\nuri = \"{uri}\"\n{lines}\n");
        let text = format!("name = \"a\"\nlisten = [\"unix:/s\"]\n{tls}{GOOD}{peer}");
        Config::parse(&text, "tls.toml").unwrap().resources[0].peers[0]
            .tls
            .clone()
    };
    let identity = |certificate: &str, key: &str| {
        Some(Identity {
            certificate: PathBuf::from(certificate),
            key: PathBuf::from(key),
        })
    };
    assert_eq!(peer("nbd://h", ""), None);
    let plain = peer("nbds://h", "").unwrap();
    assert_eq!((plain.ca, plain.name.as_str()), (Some(PathBuf::from("/y")), "h"));
    assert_eq!((plain.identity, plain.anybody), (identity("/c", "/k"), false));
    let by_uri = peer("nbds://h/?tls-certificates=/pki&tls-hostname=n", "").unwrap();
    assert_eq!(
        (by_uri.ca, by_uri.name.as_str()),
        (Some(PathBuf::from("/pki/ca-cert.pem")), "n")
    );
    let own = "tls_ca = \"/z\"\ntls_certificate = \"/d\"\ntls_key = \"/l\"\ntls_name = \"o\"";
    let own = peer("nbds://h/?tls-certificates=/pki&tls-hostname=n", own).unwrap();
    assert_eq!((own.ca, own.name.as_str()), (Some(PathBuf::from("/z")), "o"));
    assert_eq!(own.identity, identity("/d", "/l"));
}

#[test]
fn every_key_of_a_resource_is_read() {
    let config = Config::parse(FULL, "full.toml").unwrap();
    let [db, plain] = &config.resources[..] else {
        panic!("two resources");
    };
    assert_eq!((db.hot_extents, db.mirror), (Some(1024), true));
    assert_eq!(
        (
            db.role_after_restart,
            db.read_only_secondary,
            db.split_brain,
            db.on_io_error
        ),
        (
            RoleAfterRestart::Secondary,
            true,
            SplitBrain::DiscardZeroChanges,
            OnIoError::Pass
        )
    );
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!((db.resync_min, db.resync_max), (1 << 20, Some(200 << 20)));
    assert_eq!((db.verify, db.verify_repair), (VerifySchedule::Every(week), true));
    assert_eq!(db.branch_dir, Some(PathBuf::from("/var/lib/blockmirror/branches")));
    assert_eq!(db.branch_keep, BranchKeep::For(Duration::from_secs(30 * 86_400)));
    assert!(!plain.mirror);
    assert_eq!(
        (&plain.volumes[0].image, &plain.volumes[0].metadata),
        (&ImageSource::Memory, &None)
    );
}

#[test]
fn every_key_of_volumes_and_peers_is_read() {
    let config = Config::parse(FULL, "full.toml").unwrap();
    let db = &config.resources[0];
    let volume = &db.volumes[0];
    assert_eq!(
        (volume.export.as_str(), volume.description.as_str()),
        ("db", "the database")
    );
    assert_eq!(
        volume.image,
        ImageSource::Path(PathBuf::from("/var/lib/blockmirror/db.img"))
    );
    assert_eq!(
        (volume.size, volume.preallocate, volume.io),
        (Some(10 << 30), true, Io::Direct)
    );
    assert_eq!((volume.read_only, volume.minimum_block), (false, 512));
    assert_eq!(volume.metadata, Some(PathBuf::from("/var/lib/blockmirror/db.meta")));
    let log = &db.volumes[1];
    assert_eq!(
        (log.size, log.preallocate, log.io),
        (Some(1 << 20), false, Io::Buffered)
    );
    assert_eq!(
        log.metadata,
        Some(PathBuf::from("/var/lib/blockmirror/log.img.blockmirror"))
    );
    let peer = &db.peers[0];
    assert_eq!((peer.name.as_str(), peer.mode), ("bravo", Mode::Async));
    assert_eq!(
        (peer.on_disconnect, peer.skip_initial_sync, peer.queue),
        (OnDisconnect::Continue, true, 256 << 20)
    );
    assert_eq!(
        (peer.request_timeout, peer.fence_timeout),
        (Duration::from_secs(5), Duration::from_secs(60))
    );
    assert_eq!(
        (peer.protocol, peer.heartbeat, peer.dead_after),
        (
            Protocol::Blockmirror,
            Duration::from_millis(250),
            Duration::from_secs(1)
        )
    );
    assert_eq!(peer.export_for("log"), "log");
}

#[test]
fn what_is_not_said_has_its_default() {
    let text = resource_with("", "name = \"b\"\nuri = \"nbd://[::1]/other\"");
    let config = Config::parse(&text, "t").unwrap();
    assert_eq!(
        (config.admin, config.engine, config.data_threads),
        (None, Engine::Auto, None)
    );
    assert_eq!(config.limits, Limits::default());
    let resource = &config.resources[0];
    assert_eq!(
        (resource.role_after_restart, resource.read_only_secondary),
        (RoleAfterRestart::Resume, false)
    );
    assert_eq!(
        (resource.split_brain, resource.on_io_error),
        (SplitBrain::Manual, OnIoError::Detach)
    );
    assert_eq!((resource.resync_min, resource.resync_max), (4 << 20, None));
    assert_eq!(
        (resource.verify, resource.verify_repair),
        (VerifySchedule::Never, false)
    );
    assert_eq!(
        (&resource.branch_dir, resource.branch_keep),
        (&None, BranchKeep::Forever)
    );
    let peer = &resource.peers[0];
    assert_eq!(
        (peer.protocol, peer.heartbeat, peer.dead_after),
        (Protocol::Auto, Duration::from_millis(500), Duration::from_secs(3))
    );
    assert_eq!(
        (peer.mode, peer.on_disconnect, peer.queue),
        (Mode::Sync, OnDisconnect::Continue, 64 << 20)
    );
    assert_eq!(
        (peer.request_timeout, peer.fence_timeout),
        (Duration::from_secs(30), Duration::from_secs(120))
    );
    assert_eq!(peer.export_for("db"), "other");
}

#[test]
fn the_explanation_names_everything() {
    let text = Config::parse(FULL, "full.toml").unwrap().explain();
    for word in [
        "alpha",
        "tcp:[::1]:0",
        "\"db\" of 10 GiB",
        "db.meta",
        "bravo",
        "256 MiB",
        "scratch",
        "in memory",
        "plain",
        "as a partner",
        "hosts may read",
        "kept for 30d",
        "at most 200 MiB/s",
        "every 7d, and what differs is copied",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
}

#[test]
fn data_threads_are_at_most_one_per_resource() {
    let mut config = Config::parse(FULL, "full.toml").unwrap();
    assert_eq!(config.thread_count(16), 2);
    config.data_threads = Some(1);
    assert_eq!(config.thread_count(16), 1);
    config.data_threads = None;
    assert_eq!(config.thread_count(1), 1);
}
