//! Telling the service manager (systemd, `Type=notify`) how the daemon is: sd_notify(3) without its library.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What the manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Clients are served.
    Ready,
    /// The daemon is about to end.
    Stopping,
}

/// Tell the manager that started us; nothing happens when there is none.
pub(super) fn notify(state: State) {
    let Some(target) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let text = match state {
        State::Ready => "READY=1\nSTATUS=Serving",
        State::Stopping => "STOPPING=1\nSTATUS=Finishing what is in flight",
    };
    if let Err(error) = send(target.as_bytes(), text) {
        tracing::warn!(socket = ?target, %error, "the service manager could not be told");
    }
}

fn send(target: &[u8], text: &str) -> io::Result<()> {
    let address = match target.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(target))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let named = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1").unwrap();
        let name = format!("blockmirror-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(format!("@{name}").as_bytes(), "READY=1").unwrap();
        for socket in [named, hidden] {
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1");
        }
        assert!(send(b"/nonexistent/socket", "READY=1").is_err());
    }
}
