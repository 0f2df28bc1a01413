//! Which admin socket is meant.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::failure::Failure;

/// Names the socket when the command line does not.
const VARIABLE: &str = "BLOCKMIRROR_ADMIN";
/// Where daemons put their sockets.
const DIRECTORY: &str = "/run/blockmirror";
/// How the names of NBD sockets beside them end.
const NBD_SUFFIX: &str = "-nbd.sock";
/// How the names of sockets end.
const SUFFIX: &str = ".sock";

/// The socket the command line, the environment, or the usual directory names, in this order.
pub fn find(args: &Args) -> Result<PathBuf, Failure> {
    choose(
        args.admin.as_deref(),
        args.config.as_deref(),
        std::env::var_os(VARIABLE),
        Path::new(DIRECTORY),
    )
}

fn choose(
    admin: Option<&Path>,
    config: Option<&Path>,
    variable: Option<OsString>,
    directory: &Path,
) -> Result<PathBuf, Failure> {
    // The parser lets both through when one of them stands behind the command.
    if admin.is_some() && config.is_some() {
        return Err(Failure::Usage(
            "--admin and --config both name the socket: give one of them".to_owned(),
        ));
    }
    if let Some(admin) = admin {
        return Ok(admin.to_owned());
    }
    if let Some(config) = config {
        return from_config(config);
    }
    match variable {
        Some(variable) if !variable.is_empty() => Ok(variable.into()),
        _ => the_only_one(directory),
    }
}

fn from_config(file: &Path) -> Result<PathBuf, Failure> {
    let shown = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error| {
        Failure::Usage(format!(
            "{shown} is not TOML: {error}; `blockmirror-server --check --config {shown}` explains it"
        ))
    })?;
    match table.get("admin") {
        Some(toml::Value::String(path)) => Ok(path.into()),
        Some(_) => Err(Failure::Usage(format!(
            "`admin` in {shown} is not a string; it is the path of the admin socket"
        ))),
        None => Err(Failure::Usage(format!(
            "{shown} has no `admin`: give the socket with --admin"
        ))),
    }
}

/// The sockets of the daemons of this machine, as far as they are where they usually are.
pub fn all() -> Vec<PathBuf> {
    all_in(Path::new(DIRECTORY))
}

fn all_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_admin = |name: &str| name.ends_with(SUFFIX) && !name.ends_with(NBD_SUFFIX);
    let mut sockets: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_admin))
        .map(|entry| entry.path())
        .collect();
    sockets.sort();
    sockets
}

fn the_only_one(directory: &Path) -> Result<PathBuf, Failure> {
    let shown = directory.display();
    let mut sockets = all_in(directory);
    match sockets.len() {
        1 => Ok(sockets.remove(0)),
        0 => Err(Failure::Unreachable(format!(
            "no admin socket in {shown}: is blockmirror-server running? Give its socket with --admin, ${VARIABLE} or --config"
        ))),
        _ => {
            let names: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::Usage(format!(
                "several daemons may be running: choose one with --admin: {}",
                names.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn message(result: Result<PathBuf, Failure>) -> String {
        match result {
            Err(Failure::Usage(message)) => format!("usage: {message}"),
            Err(Failure::Unreachable(message)) => format!("unreachable: {message}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("a.toml");
        std::fs::write(&config, "admin = \"/c.sock\"\n[[resource]]\nname = \"x\"\n").unwrap();
        let nowhere = Path::new("/nonexistent");
        let variable = || Some(OsString::from("/v.sock"));
        let chosen = |admin, config, variable| choose(admin, config, variable, nowhere).unwrap();
        assert_eq!(
            chosen(Some(Path::new("/a.sock")), None, variable()),
            Path::new("/a.sock")
        );
        assert_eq!(chosen(None, Some(&config), variable()), Path::new("/c.sock"));
        assert_eq!(chosen(None, None, variable()), Path::new("/v.sock"));
        assert!(
            message(choose(None, None, Some(OsString::new()), nowhere)).starts_with("unreachable: no admin socket")
        );
    }

    #[test]
    fn a_configuration_that_names_no_socket() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("a.toml");
        let with = |text: &str| {
            std::fs::write(&config, text).unwrap();
            message(from_config(&config))
        };
        assert!(with("name = \"alpha\"").contains("has no `admin`"));
        assert!(with("admin = 7").contains("is not a string"));
        assert!(with("admin = ").contains("is not TOML"));
        assert!(message(from_config(&directory.path().join("b.toml"))).starts_with("usage: cannot read"));
    }

    #[test]
    fn the_only_socket_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(directory.path().join(name), "").unwrap();
        touch("alpha-nbd.sock");
        touch("alpha.pid");
        assert!(message(the_only_one(directory.path())).starts_with("unreachable"));
        touch("alpha.sock");
        assert_eq!(
            the_only_one(directory.path()).unwrap(),
            directory.path().join("alpha.sock")
        );
        touch("bravo.sock");
        let several = message(the_only_one(directory.path()));
        assert!(several.starts_with("usage") && several.contains("alpha.sock, ") && several.contains("bravo.sock"));
    }
}
