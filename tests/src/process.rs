//! A child process that cannot outlive its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait;

/// A running program whose output goes to a file. Killed when dropped; killed by the kernel when the test dies.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`.
    ///
    /// `setpriv --pdeathsig` asks the kernel to kill it with the thread that started it; that needs no unsafe code.
    pub fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Wait until `ready` holds; an error with its output when it ends before, or when `deadline` passes.
    pub fn wait_until(&mut self, what: &str, deadline: Duration, mut ready: impl FnMut(&Self) -> bool) -> Result<()> {
        let ended = wait::until(what, deadline, || match self.exit_status() {
            Some(status) => Some(Some(status)),
            None => ready(self).then_some(None),
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended ({status}) before {what}:\n{}", self.name, self.output()),
            Err(error) => Err(error.context(format!("{}:\n{}", self.name, self.output()))),
        }
    }

    /// Wait for it to end by itself.
    pub fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait::until(&format!("{name} to end"), deadline, || self.exit_status())
            .with_context(|| format!("{name}:\n{}", self.output()))
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id())?;
        signal::kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and wait for the end.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit(deadline)
    }

    /// Resident memory in bytes: now, and the highest so far.
    pub fn resident_bytes(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let field = |name: &str| -> Result<u64> {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .context("no such field")?;
            let number = line.split_whitespace().nth(1).context("no number")?;
            Ok(number.parse::<u64>()? * 1024)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Processor time used so far, user and system, all threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime, counted from the state, which is field 3.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
