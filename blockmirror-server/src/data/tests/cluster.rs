//! Nodes of one resource in one process: data threads, and the wires between them.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mirror_core::AckMode;
use mirror_core::config::{OnIoError, PeerKind};
use mirror_core::resource::event::{Answer, Command, HostAccess};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::bad_disk::{BadDisk, Flaws};
use super::host::Host;
use super::host::export;
use super::nodes::open_image;
use super::rig::{Build, Rig};
use super::wires::{Net, control};
use crate::data::{
    ClientHandover, DataHandle, DataSender, Gate, ResourceOrder, ResourceSnapshot, ToData, VolumeSnapshot,
    spawn_wrapped,
};
use crate::metadata_file::image_identity;
use crate::ring::EngineChoice;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Volumes of the resource.
pub(super) const VOLUMES: [&str; 2] = ["db", "log"];

/// The nodes.
pub(super) struct Cluster {
    pub(super) engine: EngineChoice,
    pub(super) mode: AckMode,
    pub(super) size: u64,
    pub(super) on_io_error: OnIoError,
    /// By node: what is wrong with its files.
    pub(super) flaws: Vec<Flaws>,
    pub(super) nodes: Vec<Option<Node>>,
    /// The second node is a plain server, which nobody has been told: one of these per volume.
    pub(super) plain: Option<[Arc<Rig>; 2]>,
    net: Arc<Mutex<Net>>,
    pub(super) directory: tempfile::TempDir,
}

/// A running node.
pub(super) struct Node {
    data: DataHandle,
    sender: DataSender,
    control: JoinHandle<Option<bool>>,
    gate: Arc<Gate>,
}

impl Cluster {
    /// So many nodes, all with empty images and fresh metadata.
    pub(super) fn start(engine: EngineChoice, nodes: usize, mode: AckMode, size: u64) -> Self {
        Self::start_with(engine, nodes, mode, size, OnIoError::Detach)
    }

    pub(super) fn start_with(
        engine: EngineChoice,
        nodes: usize,
        mode: AckMode,
        size: u64,
        on_io_error: OnIoError,
    ) -> Self {
        let mut cluster = Self::of(engine, nodes, mode, size);
        cluster.on_io_error = on_io_error;
        cluster.net.lock().unwrap().ends = vec![None; nodes];
        for node in 0..nodes {
            cluster.boot(node);
        }
        cluster
    }

    /// A node whose peer turns out to be a plain server.
    pub(super) fn start_with_plain(engine: EngineChoice, size: u64) -> Self {
        let mut cluster = Self::of(engine, 2, AckMode::Sync, size);
        let image = |volume| cluster.image(1, volume);
        let images = VOLUMES.map(image);
        cluster.plain = Some(images.map(|image| Arc::new(Build::file(engine, &image, size).start())));
        let mut net = cluster.net.lock().unwrap();
        net.ends = vec![None; 2];
        net.plain = cluster.plain.clone();
        drop(net);
        cluster.boot(0);
        cluster
    }

    fn of(engine: EngineChoice, nodes: usize, mode: AckMode, size: u64) -> Self {
        Self {
            engine,
            mode,
            size,
            on_io_error: OnIoError::Detach,
            flaws: (0..nodes).map(|_| Flaws::default()).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
            plain: None,
            net: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// What nodes are told of each other.
    pub(super) fn known_kind(&self) -> Option<PeerKind> {
        self.plain.is_none().then_some(PeerKind::Partner)
    }

    /// Start a node, again perhaps.
    pub(super) fn boot(&mut self, at: usize) {
        let peers = self.others(at);
        let (plan, gate) = self.plan(at, &peers);
        let (from_data, messages) = unbounded_channel();
        let flaws = Arc::clone(&self.flaws[at]);
        let data = spawn_wrapped(plan, 0, from_data, |driver| BadDisk::around(driver, flaws)).unwrap();
        let sender = data.sender();
        self.net.lock().unwrap().ends[at] = Some((sender.clone(), Arc::clone(&gate)));
        let control = {
            let (net, sender) = (Arc::clone(&self.net), sender.clone());
            std::thread::spawn(move || control(messages, at, &peers, &net, &sender))
        };
        self.nodes[at] = Some(Node {
            data,
            sender,
            control,
            gate,
        });
    }

    /// Stop a node in order; returns whether it was clean.
    pub(super) fn stop(&mut self, at: usize) -> bool {
        self.end(at, PATIENCE)
    }

    /// Stop a node at once, as a kill would.
    pub(super) fn kill(&mut self, at: usize) {
        self.end(at, Duration::ZERO);
    }

    /// Make the connections between two nodes fail, and keep new ones from coming up.
    pub(super) fn cut(&self, a: usize, b: usize) {
        let mut net = self.net.lock().unwrap();
        net.cut.extend([(a, b), (b, a)]);
        net.close(|from, to| (from, to) == (a, b) || (from, to) == (b, a));
    }

    /// End the connections, and hold new ones back once both ends have named their volumes.
    pub(super) fn hold_new_connections(&self) {
        let made = {
            let mut net = self.net.lock().unwrap();
            net.held = true;
            net.close(|_, _| true);
            net.made
        };
        self.wait("a connection is made", |cluster| {
            cluster.net.lock().unwrap().made > made
        });
    }

    pub(super) fn hand_connections_over(&self) {
        self.net.lock().unwrap().held = false;
    }

    pub(super) fn mend(&self, a: usize, b: usize) {
        let mut net = self.net.lock().unwrap();
        net.cut.remove(&(a, b));
        net.cut.remove(&(b, a));
    }

    /// Ask a node something; its answer.
    pub(super) fn command(&self, at: usize, command: Command) -> Answer {
        self.order(at, ResourceOrder::Core(command))
    }

    /// Give a node an order; its answer.
    pub(super) fn order(&self, at: usize, command: ResourceOrder) -> Answer {
        self.begin_order(at, command).blocking_recv().unwrap()
    }

    fn begin_order(&self, at: usize, command: ResourceOrder) -> oneshot::Receiver<Answer> {
        let (answer, asked) = oneshot::channel();
        let resource = 0;
        self.tell(
            at,
            ToData::ResourceCommand {
                resource,
                command,
                answer,
            },
        );
        asked
    }

    /// Make a node Primary.
    pub(super) fn promote(&self, at: usize, force: bool) {
        let mut accept = None;
        loop {
            match self.command(at, Command::Promote { force, accept }) {
                Answer::Done => return,
                Answer::NeedsAccept { token, .. } if force => accept = Some(token),
                refused => panic!("{refused:?}"),
            }
        }
    }

    /// Give a node the image of a volume again, made anew if it is not there.
    pub(super) fn attach(&self, at: usize, volume: usize, replaced: bool) {
        assert_eq!(self.try_attach(at, volume, replaced), Answer::Done);
    }

    /// The same, and what it says to that.
    pub(super) fn try_attach(&self, at: usize, volume: usize, replaced: bool) -> Answer {
        self.begin_attach(at, volume, replaced).blocking_recv().unwrap()
    }

    /// The same, without waiting for its answer.
    pub(super) fn begin_attach(&self, at: usize, volume: usize, replaced: bool) -> oneshot::Receiver<Answer> {
        let path = self.image(at, VOLUMES[volume]);
        let image = open_image(&path, self.size);
        let identity = image_identity(&path, self.size).unwrap();
        let attach = ResourceOrder::Attach {
            volume,
            image: Box::new(image),
            replaced,
            identity,
        };
        self.begin_order(at, attach)
    }

    /// A host at a volume of a node that takes writes.
    pub(super) fn host(&self, at: usize, volume: usize) -> Host {
        self.wait(&format!("node {at} takes hosts"), |cluster| {
            cluster.access(at) == Some(HostAccess::ReadWrite)
        });
        self.connect(at, volume)
    }

    /// What hosts may do at a node, if it runs.
    pub(super) fn access(&self, at: usize) -> Option<HostAccess> {
        Some(self.nodes[at].as_ref()?.gate.access())
    }

    /// A host at a volume of a node that may take writes.
    pub(super) fn connect(&self, at: usize, volume: usize) -> Host {
        self.host_of_branch(at, volume)
    }

    /// A host at a volume of a node that lets it in without asking.
    pub(super) fn host_of_branch(&self, at: usize, volume: usize) -> Host {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let negotiated = nbd_proto::server::Negotiated {
            export: export(self.size, 1),
            replies: nbd_proto::ReplyStyle::Simple,
            contexts: Vec::new(),
            block_sizes_known: true,
        };
        let handover = ClientHandover {
            volume,
            socket: theirs.into(),
            negotiated,
            unread: Vec::new(),
            address: "test".to_owned(),
            permit: Box::new(()),
        };
        assert!(self.node(at).sender.send(ToData::Client(handover)));
        Host::new(ours)
    }

    pub(super) fn tell(&self, at: usize, message: ToData) {
        assert!(self.node(at).sender.send(message));
    }

    pub(super) fn volumes(&self, at: usize) -> Vec<VolumeSnapshot> {
        let (answer, asked) = oneshot::channel();
        assert!(self.node(at).sender.send(ToData::Status(answer)));
        asked.blocking_recv().unwrap()
    }

    pub(super) fn resource(&self, at: usize) -> ResourceSnapshot {
        let (answer, asked) = oneshot::channel();
        assert!(self.node(at).sender.send(ToData::Resources(answer)));
        asked.blocking_recv().unwrap().remove(0)
    }

    /// Wait until it is so.
    pub(super) fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            if start.elapsed() >= PATIENCE {
                for at in 0..self.nodes.len() {
                    if self.nodes[at].is_some() {
                        eprintln!("{}: {:#?} {:#?}", node_name(at), self.resource(at), self.volumes(at));
                    }
                }
                panic!("never came: {what}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Wait until every volume of the Primary at `at` is in step with so many peers.
    pub(super) fn wait_in_step(&self, at: usize, peers: usize) {
        use blockmirror_client::admin::ReplicationState;
        self.wait("the peers are in step", |cluster| {
            cluster.volumes(at).iter().all(|volume| {
                let in_step = volume
                    .peers
                    .iter()
                    .filter(|peer| peer.replication_state == ReplicationState::Established && peer.dirty_bytes == 0);
                in_step.count() == peers
            })
        });
    }

    /// Wait until a node is connected to all that run.
    pub(super) fn wait_connected(&self, at: usize) {
        let running = self.nodes.iter().flatten().count() - 1;
        self.wait("streams to all that run", |cluster| {
            let streams = cluster.resource(at).streams;
            streams.iter().filter(|stream| stream.connected).count() == running
        });
    }

    pub(super) fn image(&self, at: usize, volume: &str) -> PathBuf {
        self.directory.path().join(format!("{}-{volume}", node_name(at)))
    }

    /// Compare the images of a volume on two nodes.
    pub(super) fn assert_same(&self, a: usize, b: usize) {
        VOLUMES.iter().for_each(|volume| self.assert_same_volume(volume, a, b));
    }

    pub(super) fn assert_same_volume(&self, volume: &str, a: usize, b: usize) {
        let (ours, theirs) = (self.image(a, volume), self.image(b, volume));
        let (ours, theirs) = (std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
        let differs = ours.chunks(4096).zip(theirs.chunks(4096)).position(|(a, b)| a != b);
        assert_eq!(differs, None, "block of {volume} that differs on nodes {a} and {b}");
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    /// A number that was not given before.
    pub(super) fn number(&self) -> u64 {
        let mut net = self.net.lock().unwrap();
        net.made += 1;
        net.made
    }

    pub(super) fn others(&self, at: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&other| other != at).collect()
    }

    fn end(&mut self, at: usize, deadline: Duration) -> bool {
        let Some(node) = self.nodes[at].take() else {
            return false;
        };
        self.net.lock().unwrap().ends[at] = None;
        node.data.send(ToData::Stop { deadline });
        assert!(node.data.join(), "the data thread panicked");
        self.net.lock().unwrap().close(|from, to| from == at || to == at);
        node.control.join().unwrap().expect("the last message is Stopped")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for at in 0..self.nodes.len() {
                self.kill(at);
            }
        }
    }
}

pub(super) fn node_name(at: usize) -> String {
    ["alpha", "bravo", "charlie"][at].to_owned()
}
