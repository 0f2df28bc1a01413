//! Running mdadm: what it was told, and what it said, in every error.

use std::io;
use std::process::Command;

/// Why mdadm did not do it.
#[derive(Debug, thiserror::Error)]
pub enum MdadmError {
    /// It is not there.
    #[error("mdadm cannot be run: {0}; install it (package mdadm)")]
    Missing(io::Error),
    /// It says no.
    #[error("mdadm {arguments}: {said}")]
    Refused {
        /// What it was told.
        arguments: String,
        /// Its last words.
        said: String,
    },
}

/// Runs it; what it printed.
///
/// # Errors
/// It is not there, or it says no.
pub fn run<S: AsRef<str>>(arguments: &[S]) -> Result<String, MdadmError> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let output = Command::new("mdadm")
        .args(&arguments)
        .output()
        .map_err(MdadmError::Missing)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = [text(&output.stderr), text(&output.stdout)].join("\n");
    Err(MdadmError::Refused {
        arguments: arguments.join(" "),
        said: said.trim().to_owned(),
    })
}

/// The UUID of an array that runs.
///
/// # Errors
/// It does not run, or mdadm does not say.
pub fn uuid_of(device: &str) -> Result<String, MdadmError> {
    let arguments = ["--detail", "--export", device];
    let said = run(&arguments)?;
    value(&said, "MD_UUID")
        .map(str::to_owned)
        .ok_or_else(|| MdadmError::Refused {
            arguments: arguments.join(" "),
            said: format!("it names no MD_UUID: {said}"),
        })
}

/// The UUID of the array that a device was part of; `None`: of none.
pub fn uuid_on(device: &str) -> Option<String> {
    let said = run(&["--examine", "--export", device]).ok()?;
    value(&said, "MD_UUID").map(str::to_owned)
}

/// Of lines `KEY=VALUE`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_key() {
        let text = "MD_LEVEL=raid1\nMD_UUID_OLD=no\nMD_UUID=8a1c5e1b:02c3:0:1\nMD_NAME=a=b";
        assert_eq!(value(text, "MD_UUID"), Some("8a1c5e1b:02c3:0:1"));
        assert_eq!(value(text, "MD_NAME"), Some("a=b"));
        assert_eq!(value(text, "MD_DEVICES"), None);
    }
}
