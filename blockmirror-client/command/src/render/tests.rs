#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockmirror_client::admin::{ClientStatus, Mode, OnDisconnect, ResourceStatus};

use super::*;

fn peer(name: &str) -> PeerStatus {
    PeerStatus {
        name: name.to_owned(),
        uri: "nbd://10.0.0.2:10809/db".to_owned(),
        mode: Mode::Sync,
        on_disconnect: OnDisconnect::Continue,
        connection_state: ConnectionState::Connected,
        replication_state: ReplicationState::Established,
        disk_state: DiskState::UpToDate,
        dirty_bytes: 0,
        in_flight: 3,
        queue_bytes: 0,
        resync: None,
        last_resync: None,
        last_error: None,
        attempts: 0,
        ..PeerStatus::default()
    }
}

fn volume(export: &str, peers: Vec<PeerStatus>) -> VolumeStatus {
    VolumeStatus {
        export: export.to_owned(),
        image: format!("/var/lib/blockmirror/{export}.img"),
        size_bytes: 10 << 30,
        io: "buffered".to_owned(),
        image_engine: "buffered, io_uring".to_owned(),
        connections: 1,
        requests_in_flight: 32,
        bytes_in_flight: 128 << 10,
        requests_held: 0,
        hot_extents: 12,
        generation: Some("8f3a52c1d0e4b796".to_owned()),
        failed: None,
        peers,
        disk_state: Some(DiskState::UpToDate),
        clients: Vec::new(),
    }
}

fn under_way() -> ResyncStatus {
    ResyncStatus {
        dirty_at_start_bytes: 2560 << 20,
        done_bytes: 1152 << 20,
        copied_bytes: 852 << 20,
        zeroed_bytes: 300 << 20,
        remaining_bytes: 1408 << 20,
        elapsed_seconds: 9.6,
        bytes_per_second: 120.0 * 1024.0 * 1024.0,
        eta_seconds: Some(11.7),
        equal_bytes: 0,
        limit: None,
    }
}

fn sample() -> StatusReport {
    let syncing = PeerStatus {
        replication_state: ReplicationState::SyncSource,
        disk_state: DiskState::Inconsistent,
        dirty_bytes: 1408 << 20,
        in_flight: 32,
        resync: Some(under_way()),
        ..peer("bravo")
    };
    let lost = PeerStatus {
        mode: Mode::Async,
        connection_state: ConnectionState::Connecting,
        replication_state: ReplicationState::Off,
        disk_state: DiskState::Outdated,
        dirty_bytes: 4096,
        in_flight: 0,
        last_error: Some("cannot connect to 10.0.0.3:10809: \x1b[31mConnection refused".to_owned()),
        attempts: 7,
        ..peer("charlie-far-away")
    };
    let healthy = PeerStatus {
        last_resync: Some(under_way()),
        ..peer("bravo")
    };
    let plain = VolumeStatus {
        generation: None,
        image_engine: "thread pool".to_owned(),
        ..volume("scratch", Vec::new())
    };
    let failed = VolumeStatus {
        failed: Some("fdatasync failed".to_owned()),
        ..volume("logs", vec![healthy])
    };
    let resource = |name: &str, volumes| ResourceStatus {
        name: name.to_owned(),
        volumes,
        ..ResourceStatus::default()
    };
    StatusReport {
        name: "alpha".to_owned(),
        version: "0.1.0".to_owned(),
        engine: "io_uring".to_owned(),
        tls: Some("in the kernel".to_owned()),
        io_flusher: false,
        uris: Vec::new(),
        uptime_seconds: 11_520.0,
        resources: vec![
            resource("db", vec![volume("db", vec![syncing, lost]), failed]),
            resource("scratch", vec![plain]),
        ],
    }
}

const GOLDEN: &str = "\
alpha  blockmirror 0.1.0, io_uring, TLS in the kernel, up 3 h 12 min

db  10 GiB, /var/lib/blockmirror/db.img (buffered, io_uring)
  1 connection, 32 requests in flight (128 KiB), 12 hot extents, generation 8f3a52c1d0e4b796
  PEER              MODE   CONNECTION  REPLICATION  DISK          DIRTY    IN FLIGHT  QUEUE
  bravo             sync   Connected   SyncSource   Inconsistent  1.4 GiB  32         0 B
                    resync 45 %: 1.1 GiB of 2.5 GiB dirty, 120 MiB/s, 12 s left (copied 852 MiB, zeroed 300 MiB)
  charlie-far-away  async  Connecting  Off          Outdated      4 KiB    0          0 B
                    nbd://10.0.0.2:10809/db, attempt 7; on_disconnect = \"continue\"
                    last error: cannot connect to 10.0.0.3:10809: ?[31mConnection refused

logs  resource db, 10 GiB, /var/lib/blockmirror/logs.img (buffered, io_uring)
  refuses changes: fdatasync failed
  1 connection, 32 requests in flight (128 KiB), 12 hot extents, generation 8f3a52c1d0e4b796
  PEER   MODE  CONNECTION  REPLICATION  DISK      DIRTY  IN FLIGHT  QUEUE
  bravo  sync  Connected   Established  UpToDate  0 B    3          0 B
         last resync: 2.5 GiB dirty, done in 9.6 s (copied 852 MiB, zeroed 300 MiB)

scratch  10 GiB, /var/lib/blockmirror/scratch.img (buffered, thread pool)
  1 connection, 32 requests in flight (128 KiB)
  no peers
";

#[test]
fn golden() {
    let text = status(&sample(), Style::PLAIN);
    assert_eq!(text, GOLDEN, "\n{text}");
}

#[test]
fn colour_adds_nothing_but_colour() {
    let mut text = status(&sample(), Style { colour: true });
    assert!(text.contains("\x1b[32mEstablished\x1b[0m"));
    assert!(text.contains("\x1b[1;31mrefuses changes: fdatasync failed\x1b[0m"));
    for code in ["32", "33", "1;31", "1", "2", "0"] {
        text = text.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(text, GOLDEN);
}

#[test]
fn the_report_survives_json() {
    let text = serde_json::to_string(&sample()).unwrap();
    assert!(text.contains("\"connection_state\":\"Connecting\"") && text.contains("\"mode\":\"async\""));
    assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), sample());
}

#[test]
fn clients_that_differ_by_their_port_only_have_one_line() {
    let client = |address: &str, name: &str| ClientStatus {
        address: address.to_owned(),
        certificate: vec![name.to_owned()],
        tls: Some("TLSv1_3, in the kernel".to_owned()),
        ..ClientStatus::default()
    };
    let local = ClientStatus {
        address: "unix:/s".to_owned(),
        process: Some(4711),
        user: Some(1000),
        ..ClientStatus::default()
    };
    let mut report = sample();
    let volume = &mut report.resources[0].volumes[0];
    volume.clients = vec![
        client("192.0.2.1:1000", "backup\u{1b}"),
        local,
        client("192.0.2.1:1001", "backup\u{1b}"),
    ];
    volume.connections = 3;
    let text = status(&report, Style::PLAIN);
    let lines = "
  client 192.0.2.1, certificate of backup?, TLSv1_3, in the kernel (2 times)
  client unix:/s, user 1000
  PEER";
    assert!(text.contains(lines), "{text}");
    let volume = &mut report.resources[0].volumes[0];
    volume.clients = (0..20).map(|n| client(&format!("192.0.2.{n}:1"), "b")).collect();
    volume.connections = 30;
    let text = status(&report, Style::PLAIN);
    assert!(
        text.contains("client 192.0.2.7") && !text.contains("client 192.0.2.8"),
        "{text}"
    );
    assert!(text.contains("  and 22 connections more\n"), "{text}");
}
