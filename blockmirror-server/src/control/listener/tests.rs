#![allow(clippy::unwrap_used)]
use super::super::client::ClientIdentity;
use super::*;

fn unix(path: &Path) -> Listen {
    Listen::Unix(path.to_owned())
}

fn port(listener: &Listener) -> u16 {
    let Address::Tcp { port, .. } = &listener.address else {
        panic!("TCP")
    };
    *port
}

fn tcp(host: &str, port: u16) -> Listen {
    Listen::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_ours_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let listeners = Listener::bind(&unix(&path)).unwrap();
    assert_eq!(&**listeners[0].name(), format!("unix:{}", path.display()));
    drop(listeners);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let first = Listener::bind(&unix(&path)).unwrap();
    let error = Listener::bind(&unix(&path)).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(path.exists());
    drop(first);
}

#[tokio::test]
async fn another_file_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&unix(&path)).unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    let ours = Listener::bind(&unix(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    drop(ours);
    assert!(path.exists(), "not ours any more");
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let first = Listener::bind(&tcp("127.0.0.1", 0)).unwrap();
    let port = port(&first[0]);
    assert_ne!(port, 0);
    assert_eq!(first[0].uri(), format!("nbd://127.0.0.1:{port}/"));
    let error = Listener::bind(&tcp("127.0.0.1", port)).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("tcp:127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn both_families_can_share_a_port() {
    let Ok(six) = Listener::bind(&tcp("::", 0)) else { return };
    let port = port(&six[0]);
    let four = Listener::bind(&tcp("0.0.0.0", port)).unwrap();
    assert_eq!(&**four[0].name(), format!("tcp:0.0.0.0:{port}"));
    assert_eq!(&**six[0].name(), format!("tcp:[::]:{port}"));
    assert_eq!(six[0].uri(), format!("nbd://[::]:{port}/"));
}

#[tokio::test]
async fn an_unknown_host_is_told() {
    let error = Listener::bind(&tcp("no-such-host.invalid", 1)).unwrap_err();
    assert!(matches!(error, ListenError::Unresolved { .. }), "{error}");
}

#[tokio::test]
async fn clients_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&unix(&path)).unwrap().remove(0);
    let _client = StdUnixStream::connect(&path).unwrap();
    let stream = listener.accept().await.unwrap();
    let name = ClientIdentity::of(&stream, listener.name()).to_string();
    assert!(name.contains(&format!("process {}", std::process::id())), "{name}");
    drop(stream.into_socket().unwrap());
    let listener = Listener::bind(&tcp("127.0.0.1", 0)).unwrap().remove(0);
    let client = std::net::TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
    let stream = listener.accept().await.unwrap();
    assert_eq!(
        ClientIdentity::of(&stream, listener.name()).to_string(),
        client.local_addr().unwrap().to_string()
    );
}

#[tokio::test]
async fn the_admin_socket_is_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (_socket, _file) = bind_admin(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_others_have_made_is_taken_over_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener::adopt(theirs.into()).unwrap();
    assert_eq!(listener.uri(), format!("nbd+unix:///?socket={}", path.display()));
    let _client = StdUnixStream::connect(&path).unwrap();
    assert!(matches!(listener.accept().await.unwrap(), PlainStream::Unix(_)));
    drop(listener);
    assert!(path.exists(), "whoever made it removes it");
    let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp:{}", theirs.local_addr().unwrap());
    assert_eq!(&**Listener::adopt(theirs.into()).unwrap().name(), name);
}
