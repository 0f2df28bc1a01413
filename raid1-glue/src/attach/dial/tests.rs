#![allow(clippy::unwrap_used)]
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use blockmirror_client::uri::UriList;
use nbd_proto::server::{Exports, Handshake, Step};
use nbd_proto::{BlockSizes, ExportInfo};

use super::*;
use crate::nbd::sysfs::NbdIndex;

const SIZE: u64 = 1 << 20;
const WRITABLE: TransmissionFlags = TransmissionFlags::SEND_FLUSH.union(TransmissionFlags::CAN_MULTI_CONN);

/// A node with the export "db".
#[derive(Clone, Copy)]
struct Node {
    flags: TransmissionFlags,
    size: u64,
    /// Answers nobody.
    is_silent: bool,
}

const PRIMARY: Node = Node {
    flags: WRITABLE,
    size: SIZE,
    is_silent: false,
};
const SECONDARY: Node = Node {
    flags: WRITABLE.union(TransmissionFlags::READ_ONLY),
    ..PRIMARY
};
const SILENT: Node = Node {
    is_silent: true,
    ..PRIMARY
};

impl Exports for Node {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name == "db").then(|| ExportInfo {
            name: name.to_owned(),
            description: String::new(),
            size: self.size,
            flags: self.flags,
            block_sizes: BlockSizes {
                minimum: 1,
                preferred: 4096,
                maximum_payload: 32 << 20,
            },
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl Node {
    /// Serves for as long as the test runs; says where.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                std::thread::spawn(move || self.serve(&client.unwrap()));
            }
        });
        format!("nbd://{address}/db")
    }

    fn serve(self, mut client: &TcpStream) {
        let (mut input, mut handshake) = ([0; 4096], Handshake::default());
        if !self.is_silent {
            client.write_all(&handshake.greeting()).unwrap();
        }
        while let Ok(length @ 1..) = client.read(&mut input) {
            let mut output = Vec::new();
            let (_, step) = handshake.handle(&input[..length], &self, &mut output);
            let sent = client.write_all(&output);
            if sent.is_err() || !matches!(step, Step::NeedMore | Step::Ready(_)) {
                return;
            }
        }
    }
}

fn wanted(nodes: &[Node], connections: usize) -> Wanted {
    let uris: Vec<_> = nodes.iter().map(|node| node.start()).collect();
    Wanted {
        uris: uris.join(",").parse::<UriList>().unwrap(),
        index: NbdIndex(0),
        connections,
        block_size: None,
        timeout: None,
        dead_timeout: Duration::from_secs(60),
        read_only: false,
    }
}

/// Which node it was, and over how many connections.
async fn dial(wanted: &Wanted, first: usize) -> Result<(usize, usize), AttachError> {
    let needs = |dialled: &Dialled| {
        let different = || AttachError::Different {
            uri: dialled.uri.to_string(),
            what: "smaller".to_owned(),
        };
        (dialled.size >= SIZE).then_some(()).ok_or_else(different)
    };
    let dialled = any(wanted, first, STRAGGLERS_FIRST, needs).await?;
    let at = wanted.uris.as_slice().iter().position(|uri| *uri == dialled.uri);
    Ok((at.unwrap(), dialled.sockets.len()))
}

#[tokio::test]
async fn the_one_that_grants_writes_is_taken_wherever_it_stands() {
    let wanted = wanted(&[SECONDARY, PRIMARY, SECONDARY], 4);
    for first in 0..3 {
        assert_eq!(dial(&wanted, first).await.unwrap(), (1, 4));
    }
}

#[tokio::test]
async fn a_silent_node_holds_nobody_up() {
    let wanted = wanted(&[SILENT, PRIMARY], 1);
    let since = Instant::now();
    assert_eq!(dial(&wanted, 0).await.unwrap(), (1, 1));
    assert!(since.elapsed() < DEADLINE, "{:?}", since.elapsed());
}

#[tokio::test]
async fn beside_a_node_that_refuses_a_silent_one_is_not_waited_for() {
    let wanted = wanted(&[SILENT, SECONDARY], 1);
    let since = Instant::now();
    let refused = dial(&wanted, 0).await.unwrap_err();
    assert!(matches!(refused, AttachError::NoPrimary(_)), "{refused}");
    assert!(since.elapsed() < DEADLINE, "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_does_not_fit_is_passed_over_and_told_first() {
    let small = Node {
        size: SIZE / 2,
        ..PRIMARY
    };
    assert_eq!(dial(&wanted(&[small, PRIMARY], 1), 0).await.unwrap().0, 1);
    let refused = dial(&wanted(&[SECONDARY, small], 1), 0).await.unwrap_err();
    assert!(matches!(refused, AttachError::Different { .. }), "{refused}");
}

#[tokio::test]
async fn reading_asks_for_no_primary() {
    let wanted = Wanted {
        read_only: true,
        ..wanted(&[SECONDARY], 1)
    };
    assert_eq!(dial(&wanted, 0).await.unwrap(), (0, 1));
}

#[tokio::test]
async fn one_connection_where_several_do_not_see_each_other() {
    let alone = Node {
        flags: TransmissionFlags::SEND_FLUSH,
        ..PRIMARY
    };
    assert_eq!(dial(&wanted(&[alone], 4), 0).await.unwrap(), (0, 1));
}

/// Who may not ask for it (it takes CAP_NET_ADMIN) keeps what there was.
#[test]
fn several_long_writes_fit_the_way_to_a_server_on_this_machine() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let near = OwnedFd::from(near);
    let before = sockopt::socket_send_buffer_size(&near).unwrap();
    let may = sockopt::set_socket_send_buffer_size_force(&near, before).is_ok();
    make_room(&near);
    let after = sockopt::socket_send_buffer_size(&near).unwrap();
    assert!(
        if may { after >= UNIX_BUFFER } else { after == before },
        "{before}, then {after}"
    );
}
