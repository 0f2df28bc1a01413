//! As much of QEMU's monitor protocol as starting a mirror job needs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use blockmirror_tests::wait::{self, PATIENT};
use serde_json::{Value, json};

/// A monitor.
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and leaves the greeting behind.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        qmp.line()?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// A command and what it returns.
    pub fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let message = json!({"execute": name, "arguments": arguments});
        writeln!(self.reader.get_mut(), "{message}")?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("{name}: {error}");
            }
            // Anything else is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Wait until the job copies nothing but new writes.
    pub fn wait_ready(&mut self, job: &str) -> Result<()> {
        let mut failure = None;
        wait::until("the mirror job to be ready", PATIENT, || {
            match self.command("query-jobs", &json!({})) {
                Ok(jobs) => {
                    let jobs = jobs.as_array()?;
                    jobs.iter()
                        .any(|found| found["id"] == job && found["status"] == "ready")
                        .then_some(())
                }
                Err(error) => {
                    failure = Some(error);
                    Some(())
                }
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("not QMP: {line:?}"))
    }
}
