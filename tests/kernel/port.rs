//! Commands to a guest, through a virtio port with an agent behind it (`guest/agent`).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Stands for the end of a line within a command.
const LINE: &str = "\x1f";
/// Stands between what a command prints and its status.
const END: u8 = 0x1e;
/// Between looks whether time is up.
const TICK: Duration = Duration::from_millis(500);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// 0: well.
    pub status: i32,
    /// What it printed, both outputs.
    pub output: String,
}

/// One agent. It runs one command at a time.
pub struct Port {
    stream: UnixStream,
}

impl Port {
    /// To the agent at `socket`.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(TICK))?;
        Ok(Self { stream })
    }

    /// Runs `script` in bash until it ends. What it prints is `heard` as it comes. An error: the guest is gone, or the deadline
    /// is; the port is of no use then.
    pub fn run(&mut self, script: &str, deadline: Duration, mut heard: impl FnMut(&[u8])) -> Result<Outcome> {
        let line = format!("{}\n", script.trim_end().replace('\n', LINE));
        self.stream.write_all(line.as_bytes()).context("the guest is gone")?;
        let started = Instant::now();
        let (mut said, mut buffer) = (Vec::new(), [0; 16 << 10]);
        loop {
            if let Some(end) = said.iter().position(|&byte| byte == END)
                && said.ends_with(b"\n")
            {
                let status = String::from_utf8_lossy(&said[end + 1..]).trim().parse();
                return Ok(Outcome {
                    status: status.context("a status that is none")?,
                    output: String::from_utf8_lossy(&said[..end]).into_owned(),
                });
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the guest has ended during: {script}"),
                Ok(bytes) => {
                    heard(&buffer[..bytes]);
                    said.extend_from_slice(&buffer[..bytes]);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).with_context(|| format!("during: {script}")),
            }
            ensure!(
                started.elapsed() < deadline,
                "not done within {deadline:?}: {script}\n{}",
                String::from_utf8_lossy(&said)
            );
        }
    }
}
