//! Reading `[[resource.peer]]`.

use std::time::Duration;

use blockmirror_client::uri::NbdUri;

use super::access::read_who;
use super::names::check_name;
use super::problem::Span;
use super::section::{Located, Section};
use super::{Mode, OnDisconnect, Peer, Protocol, Tls, tls};

/// Keys of a peer.
pub(super) const KEYS: [&str; 16] = [
    "name",
    "uri",
    "from",
    "tls_ca",
    "tls_certificate",
    "tls_key",
    "tls_name",
    "protocol",
    "mode",
    "on_disconnect",
    "skip_initial_sync",
    "queue",
    "request_timeout",
    "fence_timeout",
    "heartbeat",
    "dead_after",
];

const DEFAULT_QUEUE: u64 = 64 << 20;
/// A queue takes the largest request at least.
const QUEUE_RANGE: std::ops::RangeInclusive<u64> = 32 << 20..=16 << 30;
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_FENCE_TIMEOUT: Duration = Duration::from_secs(120);
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(500);
const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(3);
const HEARTBEAT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);
const DEAD_AFTER_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(600);
/// One heartbeat that is late must not end a connection.
const HEARTBEATS_UNTIL_DEAD: u32 = 2;

/// A peer read, with the places later checks speak of.
pub(super) struct ReadPeer {
    pub(super) peer: Peer,
    pub(super) name_span: Span,
    pub(super) uri_span: Span,
}

/// Read one peer; `None` when a part it cannot be without is wrong (and noted).
pub(super) fn read(section: &Section<'_>, ours: &Tls) -> Option<ReadPeer> {
    let name = section.required_text("name", "name = \"bravo\"");
    if let Some(name) = &name {
        check_name("name", name, section.problems());
    }
    let uri = section
        .required_text("uri", "uri = \"nbd://192.0.2.7:10809/db\"")
        .and_then(|text| parse_uri(section, &text));
    let tls = uri.as_ref().and_then(|uri| tls::read_peer(section, uri, ours));
    let mode = read_mode(section);
    let on_disconnect = read_on_disconnect(section, mode);
    if mode == Mode::Sync {
        section.forbid(
            "queue",
            "`queue` has no meaning with mode = \"sync\": nothing is acknowledged before the peer has it",
            "remove it, or set mode = \"async\"",
        );
    }
    let queue = section
        .size("queue", QUEUE_RANGE)
        .map_or(DEFAULT_QUEUE, |queue| queue.value);
    let skip_initial_sync = section.boolean("skip_initial_sync").unwrap_or(false);
    let timeout = |key, default| {
        section
            .duration(key, TIMEOUT_RANGE)
            .map_or(default, |timeout| timeout.value)
    };
    let request_timeout = timeout("request_timeout", DEFAULT_REQUEST_TIMEOUT);
    let fence_timeout = timeout("fence_timeout", DEFAULT_FENCE_TIMEOUT);
    let protocol = read_protocol(section);
    let (heartbeat, dead_after) = read_heartbeat(section, protocol);
    if protocol == Protocol::Nbd {
        section.forbid(
            "from",
            "`from` has no meaning with protocol = \"nbd\": a plain NBD server never comes to us",
            "remove it, or set protocol = \"blockmirror\"",
        );
    }
    let from = read_who(section, "from");
    let (name, uri) = (name?, uri?);
    Some(ReadPeer {
        peer: Peer {
            name: name.value,
            uri: uri.value,
            from,
            tls,
            protocol,
            mode,
            on_disconnect,
            skip_initial_sync,
            queue,
            request_timeout,
            fence_timeout,
            heartbeat,
            dead_after,
        },
        name_span: name.span,
        uri_span: uri.span,
    })
}

fn read_mode(section: &Section<'_>) -> Mode {
    let choices = [("sync", Mode::Sync), ("async", Mode::Async)];
    section.choice("mode", &choices).map_or(Mode::Sync, |mode| mode.value)
}

fn read_protocol(section: &Section<'_>) -> Protocol {
    let choices = [
        ("auto", Protocol::Auto),
        ("nbd", Protocol::Nbd),
        ("blockmirror", Protocol::Blockmirror),
    ];
    section
        .choice("protocol", &choices)
        .map_or(Protocol::Auto, |protocol| protocol.value)
}

fn read_heartbeat(section: &Section<'_>, protocol: Protocol) -> (Duration, Duration) {
    if protocol == Protocol::Nbd {
        for key in ["heartbeat", "dead_after"] {
            section.forbid(
                key,
                &format!("`{key}` has no meaning with protocol = \"nbd\": a plain NBD server is asked, it says nothing itself"),
                "remove it (request_timeout says how long an answer may take), or set protocol = \"blockmirror\"",
            );
        }
    }
    let heartbeat = section
        .duration("heartbeat", HEARTBEAT_RANGE)
        .map_or(DEFAULT_HEARTBEAT, |heartbeat| heartbeat.value);
    let dead_after = section.duration("dead_after", DEAD_AFTER_RANGE);
    let place = dead_after
        .as_ref()
        .map(|dead_after| dead_after.span.clone())
        .or_else(|| section.key_span("heartbeat"));
    let dead_after = dead_after.map_or(DEFAULT_DEAD_AFTER, |dead_after| dead_after.value);
    if let Some(place) = place
        && dead_after < heartbeat.saturating_mul(HEARTBEATS_UNTIL_DEAD)
    {
        section.problems().add(
            place,
            format!("a peer would be lost after {dead_after:?}, with a heartbeat every {heartbeat:?}"),
            format!("make dead_after at least {HEARTBEATS_UNTIL_DEAD} times heartbeat"),
        );
    }
    (heartbeat, dead_after)
}

fn read_on_disconnect(section: &Section<'_>, mode: Mode) -> OnDisconnect {
    let choices = [
        ("continue", OnDisconnect::Continue),
        ("suspend", OnDisconnect::Suspend),
        ("fail", OnDisconnect::Fail),
    ];
    let Some(chosen) = section.choice("on_disconnect", &choices) else {
        return OnDisconnect::Continue;
    };
    if mode == Mode::Async && chosen.value != OnDisconnect::Continue {
        section.problems().add(
            chosen.span,
            "an async peer cannot hold or fail writes: they are answered before it sees them",
            "set on_disconnect = \"continue\", or mode = \"sync\"",
        );
    }
    chosen.value
}

fn parse_uri(section: &Section<'_>, text: &Located<String>) -> Option<Located<NbdUri>> {
    match text.value.parse::<NbdUri>() {
        Ok(value) => Some(Located {
            value,
            span: text.span.clone(),
        }),
        Err(error) => {
            section.problems().add(
                text.span.clone(),
                format!("`uri` = \"{}\": {}", text.value, error.problem),
                "the forms are nbd://HOST:PORT/EXPORT and nbd+unix:///EXPORT?socket=/PATH; with TLS nbds:// and nbds+unix://",
            );
            None
        }
    }
}
