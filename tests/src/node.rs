//! A `blockmirror-server` process with a folder of its own.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blockmirror_client::admin::{
    AdminClient, AdminError, ConnectionState, Order, OrderDone, PeerCommand, PeerStatus, ReplicationState,
    ResourceStatus, ResyncStatus, StatusReport, VolumeStatus, WhyReport,
};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

use crate::config::{NodeConfig, unix_uri};
use crate::process::Process;
use crate::raw::Raw;
use crate::tool;
use crate::wait::{self, PROMPT};

/// A daemon under test.
pub struct Node {
    name: String,
    folder: PathBuf,
    /// The binary of this workspace that it is.
    binary: String,
    /// What it is told besides its configuration.
    arguments: Vec<String>,
    /// The network namespace it runs in.
    namespace: Option<String>,
    process: Option<Process>,
    runtime: Runtime,
}

impl Node {
    /// Writes the configuration into `folder`, starts the daemon, waits until it is ready.
    pub fn start(folder: &Path, config: &NodeConfig) -> Result<Self> {
        let mut node = Self::stopped(folder, config)?;
        node.restart()?;
        Ok(node)
    }

    /// As [`Node::start`], without starting.
    pub fn stopped(folder: &Path, config: &NodeConfig) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = Self {
            name: config.name.clone(),
            folder: folder.to_owned(),
            binary: "blockmirror-server".to_owned(),
            arguments: Vec::new(),
            namespace: None,
            process: None,
            runtime,
        };
        node.configure(config)?;
        Ok(node)
    }

    /// Run in this network namespace from the next start on.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Run another binary of this workspace in the daemon's place, with these arguments more, from the next start on.
    #[must_use]
    pub fn with_binary(mut self, name: &str, arguments: &[String]) -> Self {
        self.switch_binary(name, arguments);
        self
    }

    /// As [`Node::with_binary`], for a node that others hold already.
    pub fn switch_binary(&mut self, name: &str, arguments: &[String]) {
        self.binary = name.to_owned();
        self.arguments = arguments.to_vec();
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes another configuration, for the next start.
    pub fn configure(&self, config: &NodeConfig) -> Result<()> {
        let path = self.config_path();
        std::fs::write(&path, config.text(&self.folder)).with_context(|| path.display().to_string())
    }

    /// Starts it (again), killing it first when it runs, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        let (admin, nbd) = (self.admin(), self.socket());
        let mut process = self.process.take().context("just started")?;
        let ready = process.wait_until("it is ready", PROMPT, |_| {
            Raw::connect(&nbd).is_ok() && self.runtime.block_on(admin.status()).is_ok()
        });
        self.process = Some(process);
        ready
    }

    /// Starts it without waiting; for daemons that are expected to refuse.
    pub fn launch(&mut self) -> Result<()> {
        self.kill();
        let mut arguments = vec!["--config".to_owned(), self.config_path().display().to_string()];
        arguments.extend(self.arguments.iter().cloned());
        let mut program = tool::binary(&self.binary)?;
        if let Some(namespace) = &self.namespace {
            let inside = ["netns", "exec", namespace].map(str::to_owned);
            arguments.insert(0, std::mem::replace(&mut program, "ip".into()).display().to_string());
            arguments.splice(0..0, inside);
        }
        self.process = Some(Process::start(&self.name, &program, &arguments, &self.log_path())?);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, wait, and require a clean end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.running()?.terminate(PROMPT * 2)?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.log());
        self.process = None;
        Ok(())
    }

    /// Wait for it to end by itself.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        self.running()?.wait_exit(PROMPT)
    }

    /// Send a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)
    }

    /// The process.
    pub fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node is not running")
    }

    /// The process, for its figures.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What it has logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    /// Its admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join(format!("{}.admin", self.name))
    }

    /// Its NBD socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.nbd", self.name))
    }

    /// The URI of an export on its Unix socket.
    pub fn uri(&self, export: &str) -> String {
        unix_uri(&self.socket(), export)
    }

    /// A hand-driven connection to an export.
    pub fn open(&self, export: &str) -> Result<Raw> {
        Raw::open(&self.socket(), export).with_context(|| format!("{}:\n{}", self.name, self.log()))
    }

    /// Its whole state.
    pub fn status(&self) -> Result<StatusReport> {
        self.runtime
            .block_on(self.admin().status())
            .with_context(|| format!("{}:\n{}", self.name, self.log()))
    }

    /// The state of a volume.
    pub fn volume(&self, export: &str) -> Result<VolumeStatus> {
        let mut volumes = self
            .status()?
            .resources
            .into_iter()
            .flat_map(|resource| resource.volumes);
        volumes
            .find(|volume| volume.export == export)
            .with_context(|| format!("no volume {export}"))
    }

    /// The state of the only peer of a volume.
    pub fn peer(&self, export: &str) -> Result<PeerStatus> {
        self.volume(export)?
            .peers
            .into_iter()
            .next()
            .with_context(|| format!("{export} has no peer"))
    }

    /// Give a command for the only peer of a volume.
    pub fn command(&self, export: &str, command: PeerCommand) -> Result<()> {
        let peer = self.peer(export)?.name;
        Ok(self.runtime.block_on(self.admin().command(export, &peer, command))?)
    }

    /// Wait until the only peer of a volume is as `wanted`.
    pub fn wait_peer(
        &self,
        export: &str,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&PeerStatus) -> bool,
    ) -> Result<PeerStatus> {
        let mut last = None;
        wait::until(what, deadline, || {
            let peer = self.peer(export).ok()?;
            let is_wanted = wanted(&peer);
            last = Some(peer.clone());
            is_wanted.then_some(peer)
        })
        .with_context(|| format!("last seen: {last:?}\n{}", self.log()))
    }

    /// Wait until the peer has everything: connected, nothing dirty, nothing queued.
    pub fn wait_established(&self, export: &str, deadline: Duration) -> Result<PeerStatus> {
        self.wait_peer(export, "the peer to be Established", deadline, |peer| {
            peer.replication_state == ReplicationState::Established
                && peer.dirty_bytes == 0
                && peer.queue_bytes == 0
                && peer.in_flight == 0
        })
    }

    /// Wait until the peer is seen to be gone.
    pub fn wait_lost(&self, export: &str) -> Result<PeerStatus> {
        self.wait_peer(export, "the peer to be lost", PROMPT, |peer| {
            peer.connection_state != ConnectionState::Connected
        })
    }

    /// The last resync that ended; an error when there was none.
    pub fn last_resync(&self, export: &str) -> Result<ResyncStatus> {
        self.peer(export)?.last_resync.context("no resync has ended")
    }

    /// Give an operator's order.
    pub fn order(&self, order: &Order) -> Result<OrderDone, AdminError> {
        self.runtime.block_on(self.admin().order(order))
    }

    /// Has its configuration read again.
    pub fn reload(&self) -> Result<()> {
        let report = self.runtime.block_on(self.admin().reload())?;
        ensure!(report.failed.is_empty(), "{:?}", report.failed);
        Ok(())
    }

    /// Why a resource is as it is.
    pub fn why(&self, resource: &str) -> Result<WhyReport> {
        Ok(self.runtime.block_on(self.admin().why(resource))?)
    }

    /// The state of a resource.
    pub fn resource(&self, name: &str) -> Result<ResourceStatus> {
        let mut resources = self.status()?.resources.into_iter();
        resources
            .find(|resource| resource.name == name)
            .with_context(|| format!("no resource {name}"))
    }

    fn admin(&self) -> AdminClient {
        AdminClient::new(self.admin_socket())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }
}

/// What the daemon says about a configuration file: `Ok` with its words when it accepts, `Err` with them when not.
pub fn check_config(path: &Path) -> Result<Result<String, String>> {
    let binary = tool::binary("blockmirror-server")?;
    let arguments = ["--config", &path.display().to_string(), "--check"];
    let outcome = tool::run(&binary.display().to_string(), &arguments, PROMPT)?;
    match outcome.status.code() {
        Some(0) => Ok(Ok(outcome.text())),
        Some(124 | 137) | None => bail!("--check did not end by itself: {}", outcome.text()),
        Some(_) => Ok(Err(outcome.text())),
    }
}
