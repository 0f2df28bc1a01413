//! NBD URIs: `nbd://host:port/export`, `nbd://[v6]:port/export` and `nbd+unix:///export?socket=path`, with TLS `nbds://`
//! and `nbds+unix://`, as in the
//! protocol's `doc/uri.md`: the export name is the path without its first `/`, percent-decoded. Lists of them name the
//! nodes of one resource.

mod list;
mod query;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use list::UriList;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use query::Query;
pub use tls::UriTls;

/// The port IANA assigned to NBD.
pub const DEFAULT_PORT: u16 = 10809;
/// Longest path of a Unix socket in bytes (`sun_path` less its terminating zero).
const MAX_SOCKET_PATH: usize = 107;
/// Longest export name in bytes the protocol permits.
const MAX_EXPORT_NAME: usize = 4096;
/// What stays as it is when a path or a name is written into a URI.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':');

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP host (name, IPv4 or IPv6 address without brackets) and port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 1 to 65535.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// An NBD export, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NbdUri {
    /// Where the server listens.
    pub address: Address,
    /// The export name; `None` when the URI has no path (the user leaves the choice to us), `Some("")` when the path
    /// is `/` (the server's default export).
    pub export: Option<String>,
    /// With TLS, or not at all; `None`: without.
    pub tls: Option<UriTls>,
}

/// A URI that cannot be used: quotes it, says what is wrong and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad NBD URI \"{uri}\": {problem}")]
pub struct UriError {
    /// The text as given.
    pub uri: String,
    /// What is wrong with it.
    pub problem: UriProblem,
}

/// What is wrong with a URI, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriProblem {
    /// No scheme at all.
    #[error("it has no scheme; write nbd://host:port/export or nbd+unix:///export?socket=path")]
    NoScheme,
    /// A scheme that is not NBD's.
    #[error("scheme \"{0}\" is not known; use nbd://, nbds://, nbd+unix:// or nbds+unix://")]
    UnknownScheme(String),
    /// A parameter of TLS without TLS.
    #[error("\"{0}\" means TLS, and the scheme does not; write nbds:// or nbds+unix://")]
    NotTls(String),
    /// A value that a parameter cannot have.
    #[error("{parameter} cannot be \"{value}\"; it can be {can_be}")]
    BadValue {
        /// The parameter.
        parameter: String,
        /// Its value.
        value: String,
        /// What it can be.
        can_be: &'static str,
    },
    /// `nbd://` without a host.
    #[error("it names no host; write nbd://host:port/export")]
    NoHost,
    /// A user name or password in the authority.
    #[error("NBD has no user names; remove everything before and with the \"@\"")]
    UserInfo,
    /// `[` without `]`, or text after `]`, or an address that is not IPv6 inside.
    #[error("\"{0}\" is not an IPv6 address in brackets; write nbd://[fd00::1]:10809/export")]
    BadBrackets(String),
    /// A bare IPv6 address.
    #[error("an IPv6 address needs brackets; write nbd://[{0}]:10809/export")]
    BareIpv6(String),
    /// A port that is no port.
    #[error("port \"{0}\" is not a number from 1 to 65535; write nbd://host:10809/export")]
    BadPort(String),
    /// A host in a Unix URI.
    #[error("nbd+unix takes no host (\"{0}\"); write nbd+unix:///export?socket=path, with three slashes")]
    HostInUnix(String),
    /// A Unix URI without a socket.
    #[error("it names no socket; write nbd+unix:///export?socket=/path/to/socket")]
    NoSocket,
    /// A socket path too long for the system.
    #[error("the socket path is {0} bytes long and the system permits {MAX_SOCKET_PATH}; use a shorter path")]
    SocketTooLong(usize),
    /// A query parameter we do not know.
    #[error(
        "parameter \"{0}\" is not known; those that are: socket (only in nbd+unix URIs), tls-certificates, tls-hostname, tls-verify-peer, tls-type (only in nbds URIs)"
    )]
    UnknownParameter(String),
    /// The same parameter twice.
    #[error("parameter \"{0}\" is given twice; give it once")]
    RepeatedParameter(String),
    /// A fragment.
    #[error("a \"#\" has no meaning here; write %23 when it belongs to the export name")]
    Fragment,
    /// `%` not followed by two hexadecimal digits.
    #[error("\"%\" is not followed by two hexadecimal digits; write %25 for a percent sign")]
    BadPercent,
    /// Percent-decoding gave bytes that are not UTF-8, or a NUL.
    #[error("it decodes to bytes that are not text; export names and paths are UTF-8 without NUL")]
    NotText,
    /// An export name longer than the protocol permits.
    #[error("the export name is {0} bytes long and the protocol permits {MAX_EXPORT_NAME}; use a shorter name")]
    NameTooLong(usize),
    /// A list longer than any resource has nodes.
    #[error("the list names {0} nodes and at most {max} can be named; leave some out", max = list::URIS_MAX)]
    TooMany(usize),
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        parse(text).map_err(|problem| UriError {
            uri: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls.is_some() { "s" } else { "" };
        match &self.address {
            Address::Tcp { .. } => write!(f, "nbd{s}://{}", self.address)?,
            Address::Unix(_) => write!(f, "nbd{s}+unix://")?,
        }
        if let Some(export) = &self.export {
            write!(f, "/{}", utf8_percent_encode(export, KEEP))?;
        }
        let mut separator = '?';
        if let Address::Unix(path) = &self.address {
            write!(f, "?socket={}", utf8_percent_encode(&path.to_string_lossy(), KEEP))?;
            separator = '&';
        }
        self.tls.as_ref().map_or(Ok(()), |tls| tls.write(separator, f))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn parse(text: &str) -> Result<NbdUri, UriProblem> {
    let (scheme, rest) = text.split_once("://").ok_or(UriProblem::NoScheme)?;
    if rest.contains('#') {
        return Err(UriProblem::Fragment);
    }
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let export = path.map(export_name).transpose()?;
    let mut query = Query::parse(query.unwrap_or_default())?;
    let (over_unix, with_tls) = match scheme.to_ascii_lowercase().as_str() {
        "nbd" => (false, false),
        "nbds" => (false, true),
        "nbd+unix" => (true, false),
        "nbds+unix" => (true, true),
        _ => return Err(UriProblem::UnknownScheme(scheme.to_owned())),
    };
    let socket = query.take("socket");
    let tls = if with_tls {
        Some(UriTls::take(&mut query)?)
    } else {
        query.refuse_tls()?;
        None
    };
    query.finish()?;
    let address = match over_unix {
        false if socket.is_some() => return Err(UriProblem::UnknownParameter("socket".to_owned())),
        false => tcp_address(authority)?,
        true if !authority.is_empty() => return Err(UriProblem::HostInUnix(authority.to_owned())),
        true => unix_address(socket)?,
    };
    Ok(NbdUri { address, export, tls })
}

fn export_name(path: &str) -> Result<String, UriProblem> {
    let name = decode(path)?;
    if name.len() > MAX_EXPORT_NAME {
        return Err(UriProblem::NameTooLong(name.len()));
    }
    Ok(name)
}

fn unix_address(socket: Option<String>) -> Result<Address, UriProblem> {
    match socket {
        None => Err(UriProblem::NoSocket),
        Some(path) if path.is_empty() => Err(UriProblem::NoSocket),
        Some(path) if path.len() > MAX_SOCKET_PATH => Err(UriProblem::SocketTooLong(path.len())),
        Some(path) => Ok(Address::Unix(Path::new(&path).to_path_buf())),
    }
}

fn tcp_address(authority: &str) -> Result<Address, UriProblem> {
    if authority.contains('@') {
        return Err(UriProblem::UserInfo);
    }
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let brackets = || UriProblem::BadBrackets(authority.to_owned());
        let (host, after) = inside.split_once(']').ok_or_else(brackets)?;
        // A zone identifier ("%eth0", in a URI "%25eth0") is not part of the address proper.
        let host = decode(host)?;
        let address = host.split('%').next().unwrap_or_default();
        address.parse::<std::net::Ipv6Addr>().map_err(|_| brackets())?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(brackets()),
        }
    } else if authority.matches(':').count() > 1 {
        return Err(UriProblem::BareIpv6(authority.to_owned()));
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (decode(host)?, Some(port)),
            None => (decode(authority)?, None),
        }
    };
    if host.is_empty() {
        return Err(UriProblem::NoHost);
    }
    let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
    Ok(Address::Tcp { host, port })
}

fn parse_port(port: &str) -> Result<u16, UriProblem> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number != 0 => Ok(number),
        _ => Err(UriProblem::BadPort(port.to_owned())),
    }
}

fn decode(text: &str) -> Result<String, UriProblem> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(UriProblem::BadPercent);
        }
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| UriProblem::NotText)?;
    if decoded.contains('\0') {
        return Err(UriProblem::NotText);
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests;
