//! How a command ends badly, and its exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use blockmirror_client::admin::AdminError;

use crate::human;

/// Why the command did not do what was asked, for a person to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be done. Exit code 1.
    Failed(String),
    /// The daemon said no, and programs are to be told as well. Exit code 1.
    Refused {
        /// As HTTP has it.
        status: u16,
        /// In words.
        message: String,
    },
    /// The command line or the surroundings do not say what to do. Exit code 2.
    Usage(String),
    /// There is nobody to ask. Exit code 3.
    Unreachable(String),
    /// Nobody reads our output any more (`| head`): end quietly, as others do.
    OutputClosed,
}

impl Failure {
    /// In words.
    pub fn message(self) -> String {
        match self {
            Failure::Failed(message)
            | Failure::Refused { message, .. }
            | Failure::Usage(message)
            | Failure::Unreachable(message) => message,
            Failure::OutputClosed => "nobody reads the output".to_owned(),
        }
    }

    /// Says it on stderr; the exit code.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Failure::Failed(message) | Failure::Refused { message, .. } => (message, 1),
            Failure::Usage(message) => (message, 2),
            Failure::Unreachable(message) => (message, 3),
            Failure::OutputClosed => return ExitCode::SUCCESS,
        };
        // When stderr is closed too there is nobody left to tell; the exit code says it.
        let lines: Vec<_> = message.lines().map(human::clean).collect();
        let _ = writeln!(io::stderr(), "blockmirror: {}", lines.join("\n"));
        ExitCode::from(code)
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let message = error.to_string();
        match error {
            AdminError::Refused { status, .. } => Failure::Refused { status, message },
            error if error.is_unreachable() => Failure::Unreachable(message),
            _ => Failure::Failed(message),
        }
    }
}

/// Writes to stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("cannot write to stdout: {error}")),
        })
}
