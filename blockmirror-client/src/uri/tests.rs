#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn tcp(host: &str, port: u16, export: Option<&str>) -> NbdUri {
    NbdUri {
        address: Address::Tcp {
            host: host.to_owned(),
            port,
        },
        export: export.map(str::to_owned),
        tls: None,
    }
}

fn unix(path: &str, export: Option<&str>) -> NbdUri {
    NbdUri {
        address: Address::Unix(PathBuf::from(path)),
        export: export.map(str::to_owned),
        tls: None,
    }
}

#[test]
fn good_uris() {
    let cases = [
        ("nbd://localhost", tcp("localhost", 10809, None)),
        ("nbd://localhost/", tcp("localhost", 10809, Some(""))),
        ("NBD://localhost:1/db", tcp("localhost", 1, Some("db"))),
        ("nbd://10.0.0.1:10810/a/b", tcp("10.0.0.1", 10810, Some("a/b"))),
        ("nbd://10.0.0.1//a", tcp("10.0.0.1", 10809, Some("/a"))),
        ("nbd://h/a%20b%2Fc%C3%A9", tcp("h", 10809, Some("a b/cé"))),
        ("nbd://[::1]", tcp("::1", 10809, None)),
        (
            "nbd://[fe80::1%25eth0]:65535/db",
            tcp("fe80::1%eth0", 65535, Some("db")),
        ),
        ("nbd+unix:///db?socket=/run/x.sock", unix("/run/x.sock", Some("db"))),
        ("nbd+unix://?socket=/run/x.sock", unix("/run/x.sock", None)),
        ("nbd+unix:///?socket=a%20b", unix("a b", Some(""))),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<NbdUri>().unwrap(), expected, "{text}");
    }
}

#[test]
fn bad_uris_quote_themselves_and_name_the_remedy() {
    let cases = [
        ("", "write nbd://host:port/export"),
        ("localhost:10809", "it has no scheme"),
        ("http://h/", "scheme \"http\" is not known"),
        ("nbd://h/?tls-hostname=x", "write nbds://"),
        ("nbds://h/?tls-verify-peer=maybe", "it can be 0 or 1"),
        ("nbds://h/?tls-type=psk", "it can be x509"),
        ("nbds://h/?tls-username=x", "parameter \"tls-username\" is not known"),
        ("nbds+unix:///db", "it names no socket"),
        ("nbd:///db", "it names no host"),
        ("nbd://:10809/db", "it names no host"),
        ("nbd://root@h/db", "NBD has no user names"),
        ("nbd://[::1/db", "not an IPv6 address in brackets"),
        ("nbd://[::1]x/db", "not an IPv6 address in brackets"),
        ("nbd://[host]/db", "not an IPv6 address in brackets"),
        ("nbd://::1/db", "write nbd://[::1]:10809/export"),
        ("nbd://h:/db", "port \"\" is not a number"),
        ("nbd://h:0/db", "port \"0\" is not a number"),
        ("nbd://h:+1/db", "port \"+1\" is not a number"),
        ("nbd://h:65536/db", "from 1 to 65535"),
        ("nbd+unix://run/x.sock", "takes no host (\"run\")"),
        ("nbd+unix:///db", "it names no socket"),
        ("nbd+unix:///db?socket=", "it names no socket"),
        ("nbd+unix:///db?sock=/x", "parameter \"sock\" is not known"),
        ("nbd+unix:///db?socket=/x&socket=/y", "given twice"),
        ("nbd://h/db?socket=/x", "only in nbd+unix URIs"),
        ("nbd://h/db#1", "write %23"),
        ("nbd://h/100%", "write %25"),
        ("nbd://h/%zz", "write %25"),
        ("nbd://h/%ff", "not text"),
        ("nbd://h/%00", "not text"),
    ];
    for (text, part) in cases {
        let message = text.parse::<NbdUri>().unwrap_err().to_string();
        assert!(message.starts_with(&format!("bad NBD URI \"{text}\": ")), "{message}");
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn with_tls() {
    let plain: NbdUri = "nbds://h/db".parse().unwrap();
    assert_eq!(plain.tls, Some(UriTls::default()));
    assert_eq!(plain.client_tls().unwrap().name, "h");
    let text = "nbds+unix:///db?socket=/s&tls-certificates=/pki&tls-hostname=a.example&tls-verify-peer=0";
    let full: NbdUri = text.parse().unwrap();
    assert_eq!(full.to_string(), text);
    let settings = full.client_tls().unwrap();
    assert_eq!(settings.ca, Some(PathBuf::from("/pki/ca-cert.pem")));
    assert_eq!((settings.name.as_str(), settings.anybody), ("a.example", true));
    let local: NbdUri = "nbds+unix:///?socket=/s".parse().unwrap();
    let settings = local.client_tls().unwrap();
    assert_eq!((settings.name.as_str(), settings.anybody), ("localhost", false));
    assert_eq!("nbd://h".parse::<NbdUri>().unwrap().client_tls(), None);
}

#[test]
fn lengths_are_bounded() {
    let path = |length: usize| format!("nbd+unix:///?socket=/{}", "x".repeat(length - 1));
    assert!(path(MAX_SOCKET_PATH).parse::<NbdUri>().is_ok());
    assert_eq!(
        path(108).parse::<NbdUri>().unwrap_err().problem,
        UriProblem::SocketTooLong(108)
    );
    let name = |length: usize| format!("nbd://h/{}", "x".repeat(length));
    assert!(name(MAX_EXPORT_NAME).parse::<NbdUri>().is_ok());
    assert_eq!(
        name(4097).parse::<NbdUri>().unwrap_err().problem,
        UriProblem::NameTooLong(4097)
    );
}

proptest! {
    /// What we print we can read, and it means the same.
    #[test]
    fn display_parses_back(
        socket in "[^\0]{1,20}", host in "[a-z][a-z0-9.-]{0,20}", port in 1u16.., export in proptest::option::of("[^\0]{0,20}"),
        over_unix: bool, hostname in proptest::option::of(proptest::option::of("[^\0]{0,20}")),
    ) {
        let address = if over_unix { Address::Unix(PathBuf::from(socket)) } else { Address::Tcp { host, port } };
        let tls = hostname.map(|hostname| UriTls { hostname, ..UriTls::default() });
        let uri = NbdUri { address, export, tls };
        prop_assert_eq!(uri.to_string().parse::<NbdUri>().unwrap(), uri);
    }

    /// No text makes the parser do anything but answer.
    #[test]
    fn any_text_is_answered(text in ".{0,60}", scheme in prop_oneof![Just("nbd://"), Just("nbd+unix://"), Just("")]) {
        let _ = format!("{scheme}{text}").parse::<NbdUri>().map_err(|error| error.to_string());
    }
}
