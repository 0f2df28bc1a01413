//! One guest: a kernel in QEMU without hardware support, and what is told to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blockmirror_tests::process::Process;
use blockmirror_tests::wait;

use crate::port::{Outcome, Port};

/// Commands that may run at once.
const PORTS: usize = 6;
/// From the start of QEMU to its agents, on a machine with other work.
const BOOT: Duration = Duration::from_secs(180);
/// For one command.
pub const PROMPT: Duration = Duration::from_secs(120);
const MEMORY_MIB: u64 = 1024;
/// For what a guest with systemd writes.
const SYSTEM_BYTES: u64 = 256 << 20;

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name, and that of its host: `alpha` (10.0.0.1), `bravo` (10.0.0.2).
    pub name: &'static str,
    cpus: usize,
    suite: &'static str,
    is_wired: bool,
    has_systemd: bool,
    disks: Vec<(&'static str, u64)>,
}

impl Machine {
    /// One processor, no disks of its own, Debian 12's kernel.
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            cpus: 1,
            suite: "bookworm",
            is_wired: false,
            has_systemd: false,
            disks: Vec::new(),
        }
    }

    /// So many processors.
    pub fn cpus(self, cpus: usize) -> Self {
        Self { cpus, ..self }
    }

    /// The kernel of another suite of Debian.
    pub fn suite(self, suite: &'static str) -> Self {
        Self { suite, ..self }
    }

    /// Its link goes to the other guest directly, as fast as this machine can, and cannot be cut; `alpha` has to boot first.
    pub fn wired(self) -> Self {
        Self { is_wired: true, ..self }
    }

    /// Whether its link is such a one.
    pub fn is_wired(&self) -> bool {
        self.is_wired
    }

    /// Its first process is systemd, and it keeps what it writes on a disk: what was configured is so after a reboot.
    pub fn systemd(self) -> Self {
        let mut disks = self.disks;
        // The guest finds it as /dev/vdb.
        disks.insert(0, ("system", SYSTEM_BYTES));
        Self {
            has_systemd: true,
            disks,
            ..self
        }
    }

    /// A disk more, empty at first; `/dev/disk/by-id/virtio-NAME`. What was written to it outlives the guest.
    pub fn disk(mut self, name: &'static str, bytes: u64) -> Self {
        self.disks.push((name, bytes));
        self
    }
}

/// Where things are that guests start from.
#[derive(Clone, Debug)]
pub struct Materials {
    /// For every suite a folder with `vmlinuz` and `start.cpio`.
    pub kernels: PathBuf,
    /// The disk that all have as their root.
    pub root: PathBuf,
}

/// A guest that runs.
pub struct Guest {
    machine: Machine,
    process: Mutex<Process>,
    ports: Mutex<Vec<Port>>,
    returned: Condvar,
}

/// A command that runs in a guest.
pub struct Running(JoinHandle<Result<String>>);

impl Running {
    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Until it ends; what it printed.
    pub fn join(self) -> Result<String> {
        match self.0.join() {
            Ok(ended) => ended,
            Err(_) => bail!("the thread of a command has panicked"),
        }
    }
}

/// A guest that is not up yet.
pub struct Booting {
    process: Process,
    machine: Machine,
    folder: PathBuf,
}

impl Booting {
    /// Until its agents run.
    pub fn wait(mut self) -> Result<Guest> {
        let up = format!("guest {} is up", self.machine.name);
        self.process
            .wait_until("its agents run", BOOT, |process| process.output().contains(&up))?;
        let ports: Result<Vec<Port>> = (0..PORTS)
            .map(|number| Port::open(&port(&self.folder, number)))
            .collect();
        Ok(Guest {
            machine: self.machine,
            process: Mutex::new(self.process),
            ports: Mutex::new(ports?),
            returned: Condvar::new(),
        })
    }
}

impl Guest {
    /// Starts it. [`Booting::wait`] has the guest; both have to be called by a thread that outlives it.
    pub fn boot(machine: &Machine, materials: &Materials, folder: &Path, link: &Path) -> Result<Booting> {
        std::fs::create_dir_all(folder)?;
        let arguments = arguments(machine, materials, folder, link)?;
        let log = folder.join("serial.log");
        let _ = std::fs::remove_file(&log);
        Ok(Booting {
            process: Process::start(machine.name, Path::new("qemu-system-x86_64"), &arguments, &log)?,
            machine: machine.clone(),
            folder: folder.to_owned(),
        })
    }

    /// Runs a script of bash, in which every command has to succeed; what it printed.
    pub fn run(&self, script: &str) -> Result<String> {
        self.run_for(script, PROMPT)
    }

    /// The same, with a deadline.
    pub fn run_for(&self, script: &str, deadline: Duration) -> Result<String> {
        let outcome = self.outcome(&format!("set -e -o pipefail\n{script}"), deadline)?;
        ensure!(
            outcome.status == 0,
            "{}: status {} of: {script}\n{}",
            self.machine.name,
            outcome.status,
            outcome.output
        );
        Ok(outcome.output.trim_end().to_owned())
    }

    /// Runs a script that has to fail; what it printed.
    pub fn refuses(&self, script: &str) -> Result<String> {
        let outcome = self.outcome(script, PROMPT)?;
        ensure!(
            outcome.status != 0,
            "{}: this should have failed: {script}\n{}",
            self.machine.name,
            outcome.output
        );
        Ok(outcome.output)
    }

    /// Repeats a script until it succeeds.
    pub fn until(&self, what: &str, deadline: Duration, script: &str) -> Result<()> {
        let mut last = String::new();
        wait::until(what, deadline, || {
            let outcome = self.outcome(script, PROMPT).ok()?;
            last.clone_from(&outcome.output);
            (outcome.status == 0).then_some(())
        })
        .with_context(|| format!("{}: {script}: {last}", self.machine.name))
    }

    /// A script that runs while others do, until [`Running::join`].
    pub fn start(self: &Arc<Self>, script: &str, deadline: Duration) -> Running {
        let (guest, script) = (Arc::clone(self), script.to_owned());
        Running(std::thread::spawn(move || guest.run_for(&script, deadline)))
    }

    /// Runs a script, however it ends.
    pub fn outcome(&self, script: &str, deadline: Duration) -> Result<Outcome> {
        self.listen(script, deadline, |_| ())
    }

    /// The same; what it prints is heard as it comes, also from a guest whose power goes before the end.
    pub fn listen(&self, script: &str, deadline: Duration, heard: impl FnMut(&[u8])) -> Result<Outcome> {
        let mut ports = lock(&self.ports);
        let mut port = loop {
            if let Some(port) = ports.pop() {
                break port;
            }
            ports = self.returned.wait(ports).unwrap_or_else(PoisonError::into_inner);
        };
        drop(ports);
        let outcome = port.run(script, deadline, heard).with_context(|| self.machine.name);
        // One that has not ended keeps its agent.
        let port = match outcome {
            Ok(_) => Some(port),
            Err(_) => None,
        };
        lock(&self.ports).extend(port);
        self.returned.notify_one();
        outcome
    }

    /// The kernel complains of nothing that would be a fault of its own; the lines if it does.
    pub fn complaints(&self) -> Result<String> {
        self.run("dmesg | grep -E 'BUG:|WARNING:|Oops|blocked for more than' || true")
    }

    /// Fails with the lines if a block device has told its users of an error.
    pub fn no_io_error(&self) -> Result<()> {
        // A device of nbd shuts its sockets down also when it is let go in order.
        let lines = self.run(
            "dmesg | grep -E 'I/O error|Buffer I/O|EXT4-fs error|XFS .*(Shutdown|error)|shutting down' |
            grep -v 'shutting down sockets' || true",
        )?;
        ensure!(lines.is_empty(), "{}: {lines}", self.machine.name);
        Ok(())
    }

    /// Its power is gone: nothing it had not written survives.
    pub fn kill(&self) {
        lock(&self.process).kill();
    }

    /// Until it has shut itself down; everything that its console has shown.
    pub fn wait_off(&self) -> Result<String> {
        let mut process = lock(&self.process);
        process.wait_exit(BOOT)?;
        Ok(process.output())
    }

    /// What it is made of.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The last lines of its console.
    pub fn console(&self) -> String {
        let text = lock(&self.process).output();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn port(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("agent-{number}"))
}

/// QEMU's.
fn arguments(machine: &Machine, materials: &Materials, folder: &Path, link: &Path) -> Result<Vec<String>> {
    let kernel = materials.kernels.join(machine.suite);
    let number = match machine.name {
        "alpha" => 1,
        "bravo" => 2,
        other => bail!("{other} has no address"),
    };
    // No fast string moves: QEMU does them byte by byte, and every copy would cost what it costs nowhere else.
    let mut arguments = words(
        "-accel tcg,thread=multi -cpu max,erms=off,fsrm=off -nodefaults -display none -serial stdio -no-reboot -device virtio-serial",
    );
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    add("-smp", machine.cpus.to_string());
    add("-m", MEMORY_MIB.to_string());
    add("-kernel", kernel.join("vmlinuz").display().to_string());
    add("-initrd", kernel.join("start.cpio").display().to_string());
    add(
        "-append",
        format!(
            "console=ttyS0 quiet panic=-1 net.ifnames=0 random.trust_cpu=on name={} address=10.0.0.{number}/24{}",
            machine.name,
            if machine.has_systemd { " manager=systemd" } else { "" }
        ),
    );
    add("-netdev", network(machine, number, folder, link));
    add(
        "-device",
        format!("virtio-net-pci,netdev=link,romfile=,mac=52:54:00:00:00:0{number}"),
    );
    // The first one: the guest finds its root as /dev/vda.
    add(
        "-drive",
        format!(
            "file={},if=none,id=root,format=raw,readonly=on",
            materials.root.display()
        ),
    );
    add("-device", "virtio-blk-pci,drive=root,serial=root".to_owned());
    for (name, bytes) in &machine.disks {
        let path = folder.join(format!("{name}.raw"));
        if !path.exists() {
            std::fs::File::create(&path)?.set_len(*bytes)?;
        }
        // This machine does not lose power: what a guest has handed over, flushed or not, is there when it starts again.
        add(
            "-drive",
            format!("file={},if=none,id={name},format=raw,cache=unsafe", path.display()),
        );
        add("-device", format!("virtio-blk-pci,drive={name},serial={name}"));
    }
    for number in 0..PORTS {
        let socket = port(folder, number);
        add(
            "-chardev",
            format!("socket,id=port{number},path={},server=on,wait=off", socket.display()),
        );
        add(
            "-device",
            format!("virtserialport,chardev=port{number},name=agent.{number}"),
        );
    }
    Ok(arguments)
}

/// What its network card is plugged into.
fn network(machine: &Machine, number: u32, folder: &Path, link: &Path) -> String {
    let (server, path) = match (machine.is_wired, number) {
        (true, 1) => ("on", folder.with_file_name("wire")),
        (true, _) => ("off", folder.with_file_name("wire")),
        (false, _) => ("off", link.to_owned()),
    };
    let path = path.display();
    format!("stream,id=link,server={server},addr.type=unix,addr.path={path}")
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
