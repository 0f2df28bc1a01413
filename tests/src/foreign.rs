//! Other people's NBD servers, used as remote legs and as rulers to measure by.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::unix_uri;
use crate::pki;
use crate::process::Process;
use crate::wait::PROMPT;

/// A foreign server on a Unix socket; it can be killed and started again with the same arguments.
pub struct Foreign {
    name: &'static str,
    arguments: Vec<String>,
    socket: PathBuf,
    export: String,
    /// Where the certificates are, of one that takes nobody without TLS.
    certificates: Option<PathBuf>,
    log: PathBuf,
    process: Option<Process>,
}

impl Foreign {
    /// nbdkit with the file plugin; `filters` such as `["--filter=delay"]` and their `parameters`.
    pub fn nbdkit_file(folder: &Path, image: &Path, filters: &[&str], parameters: &[&str]) -> Result<Self> {
        let image = format!("file={}", image.display());
        Self::nbdkit(folder, "file", filters, &[&[image.as_str()], parameters].concat())
    }

    /// nbdkit with its memory plugin: no file, contents lost with the process.
    pub fn nbdkit_memory(folder: &Path, size: u64) -> Result<Self> {
        Self::nbdkit(folder, "memory", &[], &[&format!("size={size}")])
    }

    /// nbdkit with any plugin; every export name reaches the same device.
    pub fn nbdkit(folder: &Path, plugin: &str, filters: &[&str], parameters: &[&str]) -> Result<Self> {
        let socket = folder.join("nbdkit.nbd");
        let mut arguments = vec!["--foreground".to_owned(), format!("--unix={}", socket.display())];
        arguments.extend(
            filters
                .iter()
                .chain(&[plugin])
                .chain(parameters)
                .map(|text| (*text).to_owned()),
        );
        Self::start("nbdkit", arguments, socket, "", folder)
    }

    /// qemu-storage-daemon serving a raw file.
    pub fn qemu_storage_daemon(folder: &Path, image: &Path) -> Result<Self> {
        Self::qemu_daemon(folder, image, None)
    }

    /// The same, inside TLS.
    pub fn qemu_storage_daemon_tls(folder: &Path, image: &Path) -> Result<Self> {
        Self::qemu_daemon(folder, image, Some(pki::directory()?))
    }

    fn qemu_daemon(folder: &Path, image: &Path, certificates: Option<PathBuf>) -> Result<Self> {
        let socket = folder.join("qsd.nbd");
        let mut server = format!("addr.type=unix,addr.path={},max-connections=16", socket.display());
        let mut arguments = Vec::new();
        if let Some(dir) = &certificates {
            let dir = dir.display();
            arguments.extend([
                "--object".to_owned(),
                format!("tls-creds-x509,id=tls,dir={dir},endpoint=server,verify-peer=off"),
            ]);
            server.push_str(",tls-creds=tls");
        }
        arguments.extend(owned(&[
            "--blockdev",
            &format!("driver=file,node-name=leg,filename={},discard=unmap", image.display()),
            "--nbd-server",
            &server,
            "--export",
            "type=nbd,id=leg,node-name=leg,name=leg,writable=on",
        ]));
        let mut server = Self::start("qemu-storage-daemon", arguments, socket, "leg", folder)?;
        server.certificates = certificates;
        Ok(server)
    }

    /// nbd-server, the reference server.
    pub fn nbd_server(folder: &Path, image: &Path) -> Result<Self> {
        let socket = folder.join("reference.nbd");
        let file = folder.join("nbd-server.conf");
        let text = format!(
            "[generic]\nunixsock = {}\n[leg]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n",
            socket.display(),
            image.display()
        );
        std::fs::write(&file, text)?;
        // In the foreground it serves one client only; in a process namespace its forks die with it.
        let script = "nbd-server -C \"$0\"; exec sleep infinity";
        let file = file.display().to_string();
        let arguments = ["--pid", "--fork", "--kill-child", "sh", "-c", script, &file];
        Self::start("unshare", owned(&arguments), socket, "leg", folder)
    }

    /// qemu-nbd, one process per image.
    pub fn qemu_nbd(folder: &Path, image: &Path) -> Result<Self> {
        let socket = folder.join("qemu-nbd.nbd");
        let (path, image) = (socket.display().to_string(), image.display().to_string());
        let arguments = [
            "-k",
            &path,
            "-f",
            "raw",
            "-x",
            "leg",
            "-t",
            "-e",
            "16",
            "--discard=unmap",
            &image,
        ];
        Self::start("qemu-nbd", owned(&arguments), socket.clone(), "leg", folder)
    }

    fn start(name: &'static str, arguments: Vec<String>, socket: PathBuf, export: &str, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let mut server = Self {
            name,
            arguments,
            socket,
            export: export.to_owned(),
            certificates: None,
            log,
            process: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// How to reach it.
    pub fn uri(&self) -> String {
        self.uri_through(&self.socket, &self.export)
    }

    /// How to reach an export of it through another socket.
    pub fn uri_through(&self, socket: &Path, export: &str) -> String {
        let uri = unix_uri(socket, export);
        match &self.certificates {
            None => uri,
            Some(dir) => format!(
                "{}&tls-certificates={}&tls-hostname=localhost",
                uri.replacen("nbd", "nbds", 1),
                dir.display()
            ),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The running process, for its figures.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Kill it without warning.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Start it again (killing it first when it runs), and wait until it takes connections.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        // A killed server leaves its socket behind, and some refuse to start over it.
        let _ = std::fs::remove_file(&self.socket);
        let mut process = Process::start(self.name, Path::new(self.name), &self.arguments, &self.log)?;
        process.wait_until("it takes connections", PROMPT, |_| {
            UnixStream::connect(&self.socket).is_ok()
        })?;
        self.process = Some(process);
        Ok(())
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|text| (*text).to_owned()).collect()
}
