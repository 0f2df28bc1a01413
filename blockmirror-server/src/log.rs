//! Structured logs on standard error.

use std::fmt;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why there is no log.
#[derive(Debug)]
pub struct LogError(String);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// Start logging to standard error. `BLOCKMIRROR_LOG` chooses what is told ("debug", "warn",
/// "info,blockmirror_server::control=debug"); `usual` when it is not set.
pub fn start(format: Format, usual: &str) -> Result<(), LogError> {
    let wanted = std::env::var("BLOCKMIRROR_LOG").unwrap_or_else(|_| usual.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        LogError(format!(
            "BLOCKMIRROR_LOG=\"{wanted}\" is not a log filter: {error}; try \"info\" or \"debug\""
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| LogError(format!("the log cannot be started: {error}")))
}
