//! A daemon's admin API as far as the command sees it: canned answers.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use blockmirror_client::admin::{
    ConnectionState, DiskState, Mode, OnDisconnect, PeerStatus, ReplicationState, ResourceStatus, StatusReport,
    VolumeStatus,
};

/// What the daemon was asked, and what it will answer.
#[derive(Default)]
pub struct Script {
    /// Request lines, without the protocol's version.
    pub asked: Vec<String>,
    /// Reports to come; the last one stays.
    pub reports: VecDeque<StatusReport>,
    /// The answer to every command.
    pub command: Option<(u16, String)>,
}

pub type Shared = Arc<Mutex<Script>>;

/// Listens on `socket` until the test ends.
pub fn serve(socket: &Path, script: Script) -> Shared {
    let shared = Arc::new(Mutex::new(script));
    let listener = UnixListener::bind(socket).unwrap();
    let script = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = script.lock().unwrap().answer(first.trim_end_matches(" HTTP/1.1"));
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
            // The command may have ended.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    shared
}

impl Script {
    fn answer(&mut self, request: &str) -> (u16, String) {
        self.asked.push(request.to_owned());
        if request != "GET /v1/status" {
            return self.command.clone().unwrap_or((200, "{}".to_owned()));
        }
        let report = if self.reports.len() > 1 {
            self.reports.pop_front()
        } else {
            self.reports.front().cloned()
        };
        (200, serde_json::to_string(&report.unwrap()).unwrap())
    }
}

/// A report with one volume "db" that has this peer.
pub fn report(peer: PeerStatus) -> StatusReport {
    let volume = VolumeStatus {
        export: "db".to_owned(),
        image: "/var/lib/blockmirror/db.img".to_owned(),
        size_bytes: 1 << 30,
        io: "buffered".to_owned(),
        image_engine: "io_uring".to_owned(),
        connections: 0,
        requests_in_flight: 0,
        bytes_in_flight: 0,
        requests_held: 0,
        hot_extents: 0,
        generation: None,
        failed: None,
        peers: vec![peer],
        disk_state: Some(DiskState::UpToDate),
        clients: Vec::new(),
    };
    StatusReport {
        name: "alpha".to_owned(),
        version: "0.1.0".to_owned(),
        engine: "io_uring".to_owned(),
        tls: None,
        io_flusher: false,
        uris: Vec::new(),
        uptime_seconds: 1.0,
        resources: vec![ResourceStatus {
            name: "db".to_owned(),
            volumes: vec![volume],
            ..ResourceStatus::default()
        }],
    }
}

/// The peer "bravo" in these states, clean.
pub fn bravo(connection_state: ConnectionState, replication_state: ReplicationState) -> PeerStatus {
    PeerStatus {
        name: "bravo".to_owned(),
        uri: "nbd://bravo/db".to_owned(),
        mode: Mode::Sync,
        on_disconnect: OnDisconnect::Continue,
        connection_state,
        replication_state,
        disk_state: DiskState::UpToDate,
        dirty_bytes: 0,
        in_flight: 0,
        queue_bytes: 0,
        resync: None,
        last_resync: None,
        last_error: None,
        attempts: 0,
        ..PeerStatus::default()
    }
}
