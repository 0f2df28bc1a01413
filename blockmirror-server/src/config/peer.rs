//! Reading `[[resource.peer]]`.

use std::time::Duration;

use blockmirror_client::uri::NbdUri;

use super::names::check_name;
use super::problem::Span;
use super::section::{Located, Section};
use super::{Mode, OnDisconnect, Peer};

/// Keys of a peer.
pub(super) const KEYS: [&str; 8] = [
    "name",
    "uri",
    "mode",
    "on_disconnect",
    "skip_initial_sync",
    "queue",
    "request_timeout",
    "fence_timeout",
];

const DEFAULT_QUEUE: u64 = 64 << 20;
/// A queue takes the largest request at least.
const QUEUE_RANGE: std::ops::RangeInclusive<u64> = 32 << 20..=16 << 30;
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_FENCE_TIMEOUT: Duration = Duration::from_secs(120);
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// A peer read, with the places later checks speak of.
pub(super) struct ReadPeer {
    pub(super) peer: Peer,
    pub(super) name_span: Span,
    pub(super) uri_span: Span,
}

/// Read one peer; `None` when a part it cannot be without is wrong (and noted).
pub(super) fn read(section: &Section<'_>) -> Option<ReadPeer> {
    let name = section.required_text("name", "name = \"bravo\"");
    if let Some(name) = &name {
        check_name("name", name, section.problems());
    }
    let uri = section
        .required_text("uri", "uri = \"nbd://192.0.2.7:10809/db\"")
        .and_then(|text| parse_uri(section, &text));
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
    let (name, uri) = (name?, uri?);
    Some(ReadPeer {
        peer: Peer {
            name: name.value,
            uri: uri.value,
            mode,
            on_disconnect,
            skip_initial_sync,
            queue,
            request_timeout,
            fence_timeout,
        },
        name_span: name.span,
        uri_span: uri.span,
    })
}

fn read_mode(section: &Section<'_>) -> Mode {
    let choices = [("sync", Mode::Sync), ("async", Mode::Async)];
    section.choice("mode", &choices).map_or(Mode::Sync, |mode| mode.value)
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
                "the forms are nbd://HOST:PORT/EXPORT and nbd+unix:///EXPORT?socket=/PATH",
            );
            None
        }
    }
}
