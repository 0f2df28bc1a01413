//! Where NBD clients connect.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a Unix socket the kernel takes (sun_path without its final zero).
const UNIX_PATH_MAX: usize = 107;

/// An address NBD clients connect to: `unix:/PATH` or `tcp:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A Unix socket; absolute.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// An address or host name, without brackets.
        host: String,
        /// The port; 0: any free one, told at start.
        port: u16,
    },
}

/// Who makes the sockets that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// We do: `listen` says where.
    Ours,
    /// Somebody else has; `listen` is not needed.
    Given,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            check_unix_path(path)?;
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("tcp:") else {
            return Err(format!("\"{text}\" starts neither with unix: nor with tcp:"));
        };
        let Some((host, port)) = rest.rsplit_once(':') else {
            return Err(format!("\"{text}\" has no port"));
        };
        let port = port
            .parse()
            .map_err(|_| format!("\"{port}\" is not a port (0 to 65535)"))?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (bare, host.contains(':')) {
            (None, true) => Err(format!("the IPv6 address \"{host}\" is not in brackets")),
            (None, false) if host.is_empty() => Err(format!("\"{text}\" has no host")),
            (Some(inner), _) if inner.parse::<std::net::Ipv6Addr>().is_err() => {
                Err(format!("\"{inner}\" is not an IPv6 address"))
            }
            _ => Ok(Self::Tcp {
                host: bare.unwrap_or(host).to_owned(),
                port,
            }),
        }
    }
}

impl Listen {
    /// Whether nobody but this machine can connect. A host name other than localhost can mean anything.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                let loopback = host
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback());
                loopback || host == "localhost"
            }
        }
    }
}

/// A path a Unix socket can have.
pub(super) fn check_unix_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("\"{path}\" is not an absolute path"));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "the path of the socket has {} bytes, a Unix socket takes {UNIX_PATH_MAX}",
            path.len()
        ));
    }
    Ok(())
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in [
            "unix:/run/a.sock",
            "tcp:127.0.0.1:10809",
            "tcp:[::1]:0",
            "tcp:localhost:1",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn who_can_connect() {
        for local in [
            "unix:/s",
            "tcp:127.0.0.1:0",
            "tcp:127.9.9.9:0",
            "tcp:[::1]:0",
            "tcp:localhost:0",
        ] {
            assert!(local.parse::<Listen>().unwrap().is_local(), "{local}");
        }
        for open in [
            "tcp:0.0.0.0:0",
            "tcp:[::]:0",
            "tcp:192.0.2.1:0",
            "tcp:alpha:0",
            "tcp:[2001:db8::1]:0",
        ] {
            assert!(!open.parse::<Listen>().unwrap().is_local(), "{open}");
        }
    }

    #[test]
    fn wrong_addresses() {
        let long = format!("unix:/{}", "a".repeat(200));
        let wrong = [
            "",
            "unix:",
            "unix:a.sock",
            "tcp:10809",
            "tcp::10809",
            "tcp:::1:10809",
            "tcp:[::1]",
            "tcp:host:99999",
            "tcp:host:",
            "tcp:[localhost]:1",
            "/run/a.sock",
            &long,
        ];
        for text in wrong {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
