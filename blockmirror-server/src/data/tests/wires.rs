//! The wires between the nodes of a cluster, and the control sides that make connections over them.

use std::collections::{HashSet, VecDeque};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::rig::{Peering, Rig, peer_handover};
use crate::data::{DataSender, FromData, Gate, StreamHandover, StreamHello, ToData};

/// The wires, and who is at their ends.
#[derive(Default)]
pub(super) struct Net {
    pub(super) plain: Option<[Arc<Rig>; 2]>,
    pub(super) ends: Vec<Option<(DataSender, Arc<Gate>)>>,
    pub(super) cut: HashSet<(usize, usize)>,
    live: Vec<(usize, usize, UnixStream)>,
    /// Connections that were asked for: both ends have named their volumes.
    pub(super) made: u64,
    /// They are not handed over yet.
    pub(super) held: bool,
}

/// A connection, and what is said at its end.
type End = (UnixStream, StreamHello, Vec<String>);

/// Both ends named their volumes; the nearer one first.
struct Made {
    near: End,
    far: End,
    there: DataSender,
}

/// The control side of a node: makes streams when asked to, until the thread says that it has stopped.
pub(super) fn control(
    mut messages: UnboundedReceiver<(usize, FromData)>,
    at: usize,
    peers: &[usize],
    net: &Mutex<Net>,
    sender: &DataSender,
) -> Option<bool> {
    let mut waiting = VecDeque::new();
    while let Some(message) = waiting
        .pop_front()
        .or_else(|| messages.blocking_recv().map(|(_, message)| message))
    {
        match message {
            FromData::DialStream {
                resource,
                peer,
                attempt,
            } => {
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20))));
                while let Ok((_, message)) = messages.try_recv() {
                    waiting.push_back(message);
                }
                if let Some(revoked) = revoke(&mut waiting, peer) {
                    if matches!(revoked, FromData::RestStream { .. }) {
                        sender.send(ToData::StreamRested { resource, peer });
                    }
                    continue;
                }
                if net.lock().unwrap().plain.is_some() {
                    sender.send(ToData::StreamPlain { resource, peer });
                    continue;
                }
                let dialled = net.lock().unwrap().dial(at, peers[peer]);
                while net.lock().unwrap().held {
                    std::thread::sleep(Duration::from_millis(1));
                }
                sender.send(match dialled {
                    Ok(Made { near, far, there }) => {
                        let to = peers[peer];
                        there.send(handover(if at < to { at } else { at - 1 }, far, false));
                        handover(peer, near, true)
                    }
                    Err(error) => ToData::StreamFailed { resource, peer, error },
                });
            }
            FromData::Stopped { clean } => return Some(clean),
            FromData::Fatal(error) => panic!("{error}"),
            FromData::Connect { volume, peer, .. } => {
                let net = net.lock().unwrap();
                let Some(plain) = &net.plain else { continue };
                let (near, far) = UnixStream::pair().unwrap();
                plain[volume].hand_over(far.into(), nbd_proto::ReplyStyle::Simple, Vec::new(), Box::new(()));
                let peering = Peering {
                    size: Some(plain[volume].size()),
                    ..Peering::default()
                };
                sender.send(ToData::PeerReady(peer_handover((volume, peer), near, &peering)));
            }
            FromData::CancelConnect { .. }
            | FromData::CancelStream { .. }
            | FromData::RestStream { .. }
            | FromData::VolumeAdded { .. } => {}
        }
    }
    None
}

/// What the thread has said since it asked for a stream to a peer, if it does not want one any more.
fn revoke(waiting: &mut VecDeque<FromData>, of: usize) -> Option<FromData> {
    let revokes = |message: &FromData| match message {
        FromData::CancelStream { peer, .. } | FromData::RestStream { peer, .. } => *peer == of,
        _ => false,
    };
    waiting.remove(waiting.iter().position(revokes)?)
}

impl Net {
    /// End the connections that are meant.
    pub(super) fn close(&mut self, meant: impl Fn(usize, usize) -> bool) {
        self.live.retain(|(from, to, stream)| {
            let hit = meant(*from, *to);
            if hit {
                // It may have ended already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            !hit
        });
    }

    fn dial(&mut self, from: usize, to: usize) -> Result<Made, String> {
        if self.cut.contains(&(from, to)) {
            return Err("the wire is cut".to_owned());
        }
        let end = |at: usize| self.ends[at].clone().ok_or_else(|| "the node is down".to_owned());
        let ((_, our_gate), (there, their_gate)) = (end(from)?, end(to)?);
        self.made += 1;
        let said = |gate: &Gate| StreamHello {
            version: 1,
            digest_seed: self.made,
            checksum: mirror_core::stream::codec::Checksum::Xxh3,
            ..gate.hello()
        };
        let (near, far) = UnixStream::pair().unwrap();
        self.live.push((from, to, near.try_clone().unwrap()));
        let (ours, theirs) = (said(&our_gate), said(&their_gate));
        Ok(Made {
            near: (near, theirs.clone(), names(&ours)),
            far: (far, ours, names(&theirs)),
            there,
        })
    }
}

fn names(hello: &StreamHello) -> Vec<String> {
    hello.volumes.iter().map(|(name, _)| name.clone()).collect()
}

fn handover(peer: usize, (socket, hello, named): End, dialled_by_us: bool) -> ToData {
    ToData::StreamReady(StreamHandover {
        resource: 0,
        peer,
        socket: socket.into(),
        unread: Vec::new(),
        hello,
        named,
        dialled_by_us,
    })
}
