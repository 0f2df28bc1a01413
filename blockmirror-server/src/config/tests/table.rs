//! Mistakes in one place each, as a table.

use super::{GOOD, HEAD, one_problem, resource_with};

/// Where it is put; the lines put there (`;;` between them), the last of which is wrong; what is marked in it; words of
/// the message; words of the remedy.
const MISTAKES: &str = r#"
top    | listne = []                       | listne      | unknown key `listne`           | did you mean `listen`?
volume | read-only = true                  | read-only   | in a volume                    | did you mean `read_only`?
volume | compression = 1                   | compression | unknown key                    | known keys here: export
peer   | ondisconnect = "fail"             | ondisconnect | in a peer                     | did you mean `on_disconnect`?
limits | max_conections = 1                | max_conections | in [limits]                 | did you mean `max_connections`?
volume | size = true                       | true        | cannot be true or false        | a size such as
volume | size = "10G"                      | "10G"       | two ways                       | 10GiB
volume | size = "1000"                     | "1000"      | not a multiple of 512          | use 512 or 1024
volume | size = 0                          | 0           | `size`                         | write a size
volume | size = "9EiB"                     | "9EiB"      | not a unit of size             | 64MiB
volume | size = "2PiB"                    | "2PiB"      | mirrored volume has 1 PiB at most | several volumes
volume | io = "direct";;size = 512         | 512         | not a multiple of 4096         | 4096
volume | io = "bufered"                    | "bufered"   | cannot be "bufered"            | did you mean "buffered"?
volume | read_only = "yes"                 | "yes"       | cannot be text                 | true or false
volume | minimum_block = 24                | 24          | power of two                   | 512
volume | minimum_block = "64KiB"           | "64KiB"     | not from 1 B to 4 KiB          | write a size
volume | metadata = "m"                    | "m"         | not an absolute path           | from /
volume | metadata = "/i/db"                | "/i/db"     | is used twice                  | path of its own
volume | description = "a\u0000b"          | "a\u0000b"  | zero byte                      | fewer
top    | engine = "urng"                   | "urng"      | `engine`                       | did you mean "uring"?
top    | data_threads = 0                  | 0           | out of range                   | 1 to 256
top    | data_threads = -4                 | -4          | out of range                   | 1 to 256
top    | data_threads = 1.5                | 1.5         | a number with a fraction       | a whole number
top    | admin = "a.sock"                  | "a.sock"    | not an absolute path           | from /
limits | handshake_timeout = 10            | 10          | cannot be a whole number       | duration such as
limits | handshake_timeout = "10"          | "10"        | has no unit                    | 500ms
limits | idle_timeout = "0s"               | "0s"        | is not from                    | 10s
limits | bytes_in_flight = "1MiB"          | "1MiB"      | not from 32 MiB                | 64MiB
limits | requests_in_flight = 16385        | 16385       | out of range                   | 1 to 16384
limits | max_connections = 0               | 0           | out of range                   | 1 to 65536
listen | "tcp:127.0.0.1"                   | "tcp:127.0.0.1" | has no port                | tcp:HOST:PORT
listen | "tcp:::1:10809"                   | "tcp:::1:10809" | not in brackets            | tcp:[IPv6]:PORT
listen | "udp:h:1"                         | "udp:h:1"   | neither with unix:             | unix:/PATH
listen | "unix:a"                          | "unix:a"    | not an absolute path           | unix:/PATH
listen | "tcp:[::1]:1", "tcp:[::1]:1"              | "tcp:[::1]:1"   | used twice; first in line 2    | once
listen | "tcp:0.0.0.0:1"                   | "tcp:0.0.0.0:1" | other machines can connect | tls = "require"
listen | "tcp:alpha:1"                     | "tcp:alpha:1" | not encrypted                | "the network is trusted"
listen | 7                                 | 7           | cannot be a whole number       | list of texts
listener | tls = "always"                 | "always"    | `tls`                          | "off", "allow", "require"
listener | adress = "tcp:h:2"             | adress      | in a listener                  | did you mean `address`?
listener | client_certificates = "no"     | "no"        | `client_certificates`          | "ignore", "allow", "require"
listener | client_certificates = "require" | "require"  | no meaning without TLS         | tls = "require"
listener | tls = "off";;client_certificates = "allow" | "allow" | no meaning without TLS | remove it
listener | tls = "allow"                  | "allow"     | [tls] names none               | certificate =
listener | plaintext = "yes"              | "yes"       | `plaintext`                    | "the network is trusted"
listener | plaintext = "the network is trusted" | plaintext | no meaning here            | remove it
access | from = ["unix"]                   | [[resource.volume.access]] | has no `permit` | "read-only"
access | permit = "read-only"              | [[resource.volume.access]] | has no `from`   | from =
access | permit = "read-only";;from = []   | from        | names nobody                   | from =
access | permit = "read-only";;from = ["192.0.2.1/24"] | "192.0.2.1/24" | did you mean 192.0.2.0/24 | certificate:NAME
access | from = ["anyone"];;permit = "write" | "write"   | `permit`                       | "read-write"
tls    | ca = "ca.pem"                    | "ca.pem"    | not an absolute path           | from /
tls    | cert = "/c.pem"                  | cert        | unknown key                    | known keys here: certificate
tls    | kernel = "on"                    | "on"        | `kernel`                       | "auto", "off"
tls    | certificate = "/c.pem"           | "/c.pem"    | `certificate` has no `key`     | key = "/PATH
tls    | key = "/k.pem"                   | "/k.pem"    | `key` has no `certificate`     | certificate = "/PATH
tls    | client_ca = "/ca.pem"            | client_ca   | never used                     | client_certificates = "require"
peer   | from = ["alpha"]                  | "alpha"     | neither an address             | certificate:NAME
peer   | protocol = "nbd";;from = ["unix"] | from        | never comes to us              | remove it
peer   | queue = "64MiB"                   | queue       | mode = "sync"                  | async
peer   | mode = "async";;on_disconnect = "suspend" | "suspend" | async peer               | continue
peer   | mode = "async";;on_disconnect = "fail"    | "fail"    | async peer               | continue
peer   | mode = "async";;queue = "1MiB"    | "1MiB"      | not from 32 MiB                | write a size
peer   | mode = "memsync"                  | "memsync"   | `mode`                         | "sync", "async"
peer   | on_disconnect = "ignore"          | "ignore"    | cannot be "ignore"             | "continue", "suspend", "fail"
peer   | request_timeout = "2 fortnights"  | "2 fortnights" | unit of time                | 10s
peer   | skip_initial_sync = 1             | 1           | cannot be a whole number       | true or false
resource | role_after_restart = "primary" | "primary" | `role_after_restart`       | "resume", "secondary"
resource | read_only_secondry = true      | read_only_secondry | in a resource         | did you mean `read_only_secondary`?
resource | split_brain = "discard-yunger" | "discard-yunger" | cannot be               | did you mean "discard-younger"?
resource | on_io_error = "panic"          | "panic"     | `on_io_error`                | "detach", "pass"
resource | resync_min = "1KiB"            | "1KiB"      | not from 64 KiB              | write a size
resource | resync_max = "1MiB"            | "1MiB"      | less than `resync_min`       | resync_min smaller
resource | resync_min = "9MiB";;resync_max = "8MiB" | "8MiB" | (9 MiB)                 | make it larger
resource | verify = "weekley"             | "weekley"   | is not a duration            | did you mean "weekly"?
resource | verify = "1s"                  | "1s"        | from 1 minute                | "7d"
resource | verify = 7                     | 7           | cannot be a whole number     | text
resource | verify_repair = true           | verify_repair | without a `verify` schedule | "weekly"
resource | verify = "never";;verify_repair = true | verify_repair | without a `verify` | "weekly"
resource | branch_keep = "for ever"       | "for ever"  | is not a duration            | did you mean "forever"?
resource | branch_dir = "branches"        | "branches"  | not an absolute path         | from /
peer   | protocol = "nbd+tls"             | "nbd+tls"   | `protocol`                     | "auto", "nbd", "blockmirror"
peer   | protocol = "blockmiror"          | "blockmiror" | cannot be                     | did you mean "blockmirror"?
peer   | protocol = "nbd";;heartbeat = "1s"   | heartbeat | plain NBD server             | request_timeout
peer   | protocol = "nbd";;dead_after = "9s"  | dead_after | plain NBD server            | request_timeout
peer   | heartbeat = "1ms"                | "1ms"       | is not from                    | 500ms
peer   | heartbeat = "2s"                 | heartbeat   | lost after 3s                  | at least 2 times
peer   | heartbeat = "2s";;dead_after = "3s" | "3s"     | every 2s                       | at least 2 times
uri    | "http://h/x"                      | "http://h/x" | `uri`                         | nbd://HOST:PORT/EXPORT
uri    | "h:10809"                         | "h:10809"   | `uri`                          | nbd://HOST:PORT/EXPORT
uri    | "nbd://h:port/x"                  | "nbd://h:port/x" | port                      | nbd://HOST:PORT/EXPORT
uri    | "nbds://h/x"                      | "nbds://h/x" | who signs the certificate of this peer | tls_ca =
uri    | "nbds://h/x?tls-verify-peer=0"    | "nbds://h/x?tls-verify-peer=0" | could be anybody | tls_name
uri    | "nbd://h/x?tls-hostname=a"        | "nbd://h/x?tls-hostname=a" | write nbds://   | nbds+unix://
peer   | tls_ca = "/ca"                    | tls_ca      | no meaning without TLS         | write nbds://
peer   | tls_name = "b"                    | tls_name    | no meaning without TLS         | write nbds://
uri    | "nbd+unix:///x"                   | "nbd+unix:///x" | names no socket            | nbd+unix:///EXPORT?socket=/PATH
uri    | "nbd://"                          | "nbd://"    | names no host                  | nbd://HOST:PORT/EXPORT
"#;

const PEER: &str = "name = \"b\"\nuri = \"nbd://h/x\"";

#[test]
fn mistakes_in_one_place() {
    let mut seen = 0;
    for case in MISTAKES.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = case.split(" | ").map(str::trim).collect();
        let [place, lines, marked, message, remedy] = cells[..] else {
            panic!("a case has five cells: {case}");
        };
        let extra = lines.matches(";;").count();
        let lines = lines.replace(";;", "\n");
        let (text, first) = match place {
            "top" => (format!("{lines}\n{HEAD}{GOOD}"), 1),
            "listen" => (format!("name = \"a\"\nlisten = [{lines}]\n{GOOD}"), 2),
            "limits" => (format!("{HEAD}[limits]\n{lines}\n{GOOD}"), 4),
            "listener" => (
                format!("{HEAD}[[listener]]\naddress = \"tcp:[::1]:3\"\n{lines}\n{GOOD}"),
                5,
            ),
            "tls" => (format!("{HEAD}[tls]\n{lines}\n{GOOD}"), 4),
            "access" => (
                resource_with(&format!("[[resource.volume.access]]\n{lines}"), ""),
                if lines.contains("from") == lines.contains("permit") {
                    9
                } else {
                    8
                },
            ),
            "volume" => (resource_with(&lines, ""), 8),
            "peer" => (resource_with("", &format!("{PEER}\n{lines}")), 12),
            "resource" => (
                format!("{HEAD}{}", GOOD.replacen("\n[[", &format!("\n{lines}\n[["), 1)),
                5,
            ),
            "uri" => (resource_with("", &format!("name = \"b\"\nuri = {lines}")), 11),
            other => panic!("where is {other}?"),
        };
        one_problem(&text, first + extra, marked, message, remedy);
        seen += 1;
    }
    assert!(seen > 40, "{seen} cases");
}

#[test]
fn combinations_without_meaning() {
    let memory = |volume: &str, peer: &str| resource_with(volume, peer).replace("\"/i/db\"", "\"memory:\"");
    let text = memory("size = \"1GiB\"", PEER);
    one_problem(&text, 7, "\"memory:\"", "in memory cannot have peers", "name a file");
    let text = memory("size = \"1GiB\"\nio = \"direct\"", "");
    one_problem(&text, 9, "io", "no meaning for an image in memory", "remove it");
    let text = resource_with("read_only = true", PEER);
    one_problem(
        &text,
        6,
        "\"db\"",
        "read-only volume cannot have peers",
        "remove read_only",
    );
    let text = resource_with("read_only = true\nmetadata = \"/m\"", "");
    one_problem(&text, 9, "metadata", "no meaning for a read-only volume", "remove it");
    let plain = |volume: &str, peer: &str| {
        let text = resource_with(volume, peer);
        text.replace("name = \"db\"", "name = \"db\"\nmirror = false")
    };
    one_problem(
        &plain("", PEER),
        10,
        "peer",
        "no meaning with mirror = false",
        "mirror = true",
    );
    one_problem(
        &plain("metadata = \"/m\"", ""),
        9,
        "metadata",
        "nothing is tracked",
        "mirror = true",
    );
    for key in [
        "verify = \"weekly\"",
        "split_brain = \"manual\"",
        "branch_keep = \"1d\"",
    ] {
        let text = plain("", "").replace("mirror = false", &format!("mirror = false\n{key}"));
        let name = key.split(' ').next().unwrap();
        one_problem(&text, 6, name, "no meaning with mirror = false", "mirror = true");
    }
    let two = "[[resource.volume]]\nexport = \"log\"\nimage = \"/i/log\"";
    one_problem(
        &resource_with(two, PEER),
        13,
        "\"nbd://h/x\"",
        "has 2 volumes",
        "leave the export out",
    );
    let typo = resource_with("", "").replace("\"/i/db\"", "\"memory\"");
    one_problem(&typo, 7, "\"memory\"", "neither", "\"memory:\"");
    let long = format!("\"/{}\"", "a".repeat(120));
    let text = format!("admin = {long}\n{HEAD}{GOOD}");
    one_problem(&text, 1, &long, "121 bytes", "shorter");
    let text = format!("admin = \"/run/a\"\nname = \"a\"\nlisten = [\"unix:/run/a\"]\n{GOOD}");
    one_problem(&text, 3, "\"unix:/run/a\"", "used twice; first in line 1", "once");
}

#[test]
fn listeners_need_addresses_and_certificates() {
    let text = format!("{HEAD}[[listener]]\ntls = \"off\"\n{GOOD}");
    one_problem(&text, 3, "[[listener]]", "has no `address`", "tcp:192.0.2.1");
    let text = format!("{HEAD}[[listener]]\naddress = \"unix:a\"\n{GOOD}");
    one_problem(&text, 4, "\"unix:a\"", "not an absolute path", "unix:/PATH");
    let text = format!("name = \"a\"\nlisten = [\"unix:/s\"]\n[[listener]]\naddress = \"unix:/s\"\n{GOOD}");
    one_problem(&text, 4, "\"unix:/s\"", "used twice; first in line 2", "once");
    let safe = "[[listener]]\naddress = \"tcp:[::1]:3\"\ntls = \"require\"\nclient_certificates = \"allow\"\n";
    let text = format!("{HEAD}[tls]\ncertificate = \"/c\"\nkey = \"/k\"\n{safe}{GOOD}");
    one_problem(&text, 9, "\"allow\"", "who signs the certificates", "client_ca =");
}

#[test]
fn the_largest_sizes() {
    assert_eq!(super::problems(&resource_with("size = \"1PiB\"", PEER)), []);
    let plain = |volume: &str| resource_with(volume, "").replace("name = \"db\"", "name = \"db\"\nmirror = false");
    assert_eq!(super::problems(&plain("size = \"2PiB\"")), [], "nothing is tracked");
    let limits = format!("{HEAD}[limits]\nrequests_in_flight = 16384\n{GOOD}");
    assert_eq!(super::problems(&limits), []);
}

#[test]
fn port_zero_may_be_listed_twice() {
    let text = format!("name = \"a\"\nlisten = [\"tcp:[::1]:0\", \"tcp:[::1]:0\"]\n{GOOD}");
    assert_eq!(super::problems(&text), []);
}
