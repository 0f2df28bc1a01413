//! The command line.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use blockmirror_server::activation::Passed;
use blockmirror_server::config::{Config, SERVE, Serve, Sockets, TlsMode};
use blockmirror_server::log;
use clap::{Args, Parser, Subcommand};
use nbd_proto::server::Mask;

/// Serves images over NBD and mirrors every write to NBD peers.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    configured: ConfiguredArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one image, without a configuration file and without a mirror.
    Serve(ServeArguments),
}

/// What `--config` takes.
#[derive(Debug, Args)]
struct ConfiguredArguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Take the image of EXPORT as the right one although its metadata file names another; all its peers are copied in
    /// full. May be given more than once.
    #[arg(long, value_name = "EXPORT")]
    adopt: Vec<String>,
    #[command(flatten)]
    common: CommonArguments,
}

/// What `serve` takes.
#[derive(Debug, Args)]
struct ServeArguments {
    /// An image file or a block device, or "memory:SIZE" (RAM, gone at the end).
    image: String,
    /// Listen on this Unix socket. May be given more than once. Without any address: a socket in a new folder that only
    /// this user can enter.
    #[arg(long, value_name = "PATH")]
    unix: Vec<PathBuf>,
    /// Listen on this TCP address: "127.0.0.1:10809", "[::1]:0". Port 0: any free one. May be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// Encrypt, with server-cert.pem and server-key.pem of this directory, and ca-cert.pem for --tls-verify-peer. Other
    /// machines may then connect to --tcp addresses; --tls-verify-peer or --allow says which of them.
    #[arg(long, value_name = "DIR")]
    tls_certificates: Option<PathBuf>,
    /// Which connections are encrypted; all of them when there are certificates.
    #[arg(long, value_enum, value_name = "MODE")]
    tls: Option<TlsMode>,
    /// Clients have to show a certificate that ca-cert.pem has signed. Where TLS is required all that do may open the
    /// export, unless --allow says who.
    #[arg(long)]
    tls_verify_peer: bool,
    /// Let other machines connect to --tcp addresses although nothing is encrypted there.
    #[arg(long)]
    trusted_network: bool,
    /// Who may open the export: "unix", "loopback", "192.0.2.0/24", "anyone". May be given more than once. Without it:
    /// this machine, with --trusted-network everybody, with --tls-verify-peer whoever has a certificate.
    #[arg(long, value_name = "WHO")]
    allow: Vec<String>,
    /// Serve the one client on standard input and output, and end when it leaves.
    #[arg(long, conflicts_with_all = ["unix", "tcp", "run"])]
    stdio: bool,
    /// Name of the export; the name of the image's file when it is not given. It is the default export, too.
    #[arg(long, value_name = "NAME")]
    export: Option<String>,
    /// Text for people who list exports.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The image's size, "10GiB"; it is created when absent.
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Refuse every change.
    #[arg(long)]
    read_only: bool,
    /// Past the page cache.
    #[arg(long)]
    direct: bool,
    /// Smallest block clients may address: a power of two up to 4096.
    #[arg(long, value_name = "BYTES")]
    minimum_block: Option<String>,
    /// How files and sockets are driven: "auto", "uring" or "threads".
    #[arg(long)]
    engine: Option<String>,
    /// Run CMD (by sh) when clients are served, with the URI in $uri and the path of the first Unix socket in
    /// $unixsocket, and end with its status when it ends.
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
    #[command(flatten)]
    common: CommonArguments,
}

/// What both take.
#[derive(Debug, Args)]
pub(crate) struct CommonArguments {
    /// Check the configuration and the files it names, say what would be served and mirrored, and end.
    #[arg(long)]
    pub(crate) check: bool,
    /// Write the process id here once clients are served; removed at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Keep these features from clients, to try clients with: names with commas between them, "flush,structured-replies".
    /// A name that does not exist lists those that do.
    #[arg(long, value_name = "FEATURES", value_parser = Mask::parse, default_value = "")]
    pub(crate) mask: Mask,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: log::Format,
}

/// What to do.
pub(crate) struct Job {
    pub(crate) config: Config,
    /// Where it can be read again.
    pub(crate) file: Option<PathBuf>,
    pub(crate) adopt: Vec<String>,
    /// The client is on standard input and output.
    pub(crate) stdio: bool,
    pub(crate) run: Option<String>,
    pub(crate) mask: Mask,
    /// The folder that was made for the socket, removed at the end.
    pub(crate) _folder: Option<tempfile::TempDir>,
}

impl Arguments {
    pub(crate) fn common(&self) -> &CommonArguments {
        match &self.command {
            Some(Command::Serve(serve)) => &serve.common,
            None => &self.configured.common,
        }
    }

    /// What is logged when nobody says: a server for a moment is quiet.
    pub(crate) fn usual_log(&self) -> &'static str {
        match &self.command {
            Some(Command::Serve(_)) => "warn",
            None => "info",
        }
    }

    /// `passed`: what whoever started us has handed over.
    pub(crate) fn job(self, passed: &Passed) -> anyhow::Result<Job> {
        let sockets = match passed {
            Passed::Nothing => Sockets::Ours,
            Passed::Listening(_) | Passed::Client(_) => Sockets::Given,
        };
        match self.command {
            Some(Command::Serve(serve)) => serve.job(sockets),
            None => self.configured.job(sockets),
        }
    }
}

impl ConfiguredArguments {
    fn job(self, sockets: Sockets) -> anyhow::Result<Job> {
        let file = self.config.context("--config is missing")?;
        Ok(Job {
            config: Config::load_with(&file, sockets)?,
            file: Some(file),
            adopt: self.adopt,
            stdio: false,
            run: None,
            mask: self.common.mask,
            _folder: None,
        })
    }
}

impl ServeArguments {
    fn job(self, sockets: Sockets) -> anyhow::Result<Job> {
        let named = self.stdio || !self.unix.is_empty() || !self.tcp.is_empty();
        ensure!(
            sockets == Sockets::Ours || !named,
            "whoever started this program has handed it a socket (LISTEN_FDS): leave out --unix, --tcp and --stdio"
        );
        let mut listen = Vec::new();
        for path in &self.unix {
            let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
            listen.push(format!("unix:{}", path.display()));
        }
        listen.extend(self.tcp.iter().map(|address| format!("tcp:{address}")));
        let mut folder = None;
        if sockets == Sockets::Ours && !named {
            let private = private_folder()?;
            listen.push(format!("unix:{}/nbd.sock", private.path().display()));
            folder = Some(private);
        }
        let sockets = if self.stdio { Sockets::Given } else { sockets };
        let serve = Serve {
            image: self.image,
            export: self.export,
            description: self.description,
            size: self.size,
            read_only: self.read_only,
            direct: self.direct,
            minimum_block: self.minimum_block,
            engine: self.engine,
            listen,
            tls: self.tls,
            certificates: self.tls_certificates,
            verify_peer: self.tls_verify_peer,
            trusted_network: self.trusted_network,
            allow: self.allow,
        };
        let text = serve.text().map_err(anyhow::Error::msg)?;
        Ok(Job {
            config: Config::check(&text, SERVE, sockets)?,
            file: None,
            adopt: Vec::new(),
            stdio: self.stdio,
            run: self.run,
            mask: self.common.mask,
            _folder: folder,
        })
    }
}

/// A new folder that only this user can enter, where sockets belong.
fn private_folder() -> anyhow::Result<tempfile::TempDir> {
    let place = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new()
        .prefix("blockmirror-")
        .tempdir_in(&place)
        .with_context(|| {
            format!(
                "no folder for the socket can be made in {}; name one with --unix",
                place.display()
            )
        })
}
