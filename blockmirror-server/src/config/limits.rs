//! Bounds of the daemon, and reading `[limits]`.

use std::time::Duration;

use super::section::Section;

/// Keys of `[limits]`.
pub(super) const KEYS: [&str; 9] = [
    "max_connections",
    "max_connections_per_export",
    "max_connections_per_client",
    "handshakes_per_second",
    "handshake_timeout",
    "idle_timeout",
    "requests_in_flight",
    "bytes_in_flight",
    "shutdown_timeout",
];

/// A request can become several mutations, and what was answered may still be under way to a peer: far from where the
/// mirror itself ends.
const REQUESTS_IN_FLIGHT_MAX: u64 = mirror_core::config::REQUESTS_MAX as u64 / 4;
/// The largest request has 32 MiB of payload: a smaller budget could never take it.
const BYTES_IN_FLIGHT_RANGE: std::ops::RangeInclusive<u64> = 32 << 20..=64 << 30;
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

/// Bounds of the daemon (I8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of the whole daemon.
    pub max_connections: usize,
    /// Client connections of one export.
    pub max_connections_per_export: usize,
    /// Client connections of one address or local user.
    pub max_connections_per_client: usize,
    /// Handshakes one address or local user may begin in a second; more wait.
    pub handshakes_per_second: u32,
    /// Time a client has to finish the NBD handshake, and a peer to answer ours.
    pub handshake_timeout: Duration,
    /// A client connection without a request in flight is closed after this long without a request; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Host requests in flight per volume.
    pub requests_in_flight: usize,
    /// Bytes of host requests in flight per volume.
    pub bytes_in_flight: u64,
    /// How long a graceful stop may take before connections are cut.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_export: 256,
            max_connections_per_client: 256,
            handshakes_per_second: 200,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: None,
            requests_in_flight: 1024,
            bytes_in_flight: 64 << 20,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// Read the table.
pub(super) fn read(section: &Section<'_>) -> Limits {
    let default = Limits::default();
    let count = |key, default: usize, max| {
        section
            .count(key, 1..=max)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(default)
    };
    let duration = |key| section.duration(key, TIMEOUT_RANGE).map(|duration| duration.value);
    Limits {
        max_connections: count("max_connections", default.max_connections, 65_536),
        max_connections_per_export: count("max_connections_per_export", default.max_connections_per_export, 65_536),
        max_connections_per_client: count("max_connections_per_client", default.max_connections_per_client, 65_536),
        handshakes_per_second: section
            .count("handshakes_per_second", 1..=1_000_000)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.handshakes_per_second),
        handshake_timeout: duration("handshake_timeout").unwrap_or(default.handshake_timeout),
        idle_timeout: duration("idle_timeout"),
        requests_in_flight: count("requests_in_flight", default.requests_in_flight, REQUESTS_IN_FLIGHT_MAX),
        bytes_in_flight: section
            .size("bytes_in_flight", BYTES_IN_FLIGHT_RANGE)
            .map_or(default.bytes_in_flight, |size| size.value),
        shutdown_timeout: duration("shutdown_timeout").unwrap_or(default.shutdown_timeout),
    }
}
