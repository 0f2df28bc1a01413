//! The status report for people: one short table per volume.

mod clients;
pub mod raid;
mod resource;

use std::fmt::Write;

use blockmirror_client::admin::{
    ConnectionState, DiskState, LinkKind, PeerStatus, ReplicationState, ResyncStatus, StatusReport, VerifyStatus,
    VolumeStatus,
};

use crate::human::{bytes, clean, duration, percent, rate};
use crate::terminal::{Style, Tone};
use clients::push_clients;
use resource::{has_partners, push_resource};

const HEADINGS: [&str; 8] = [
    "PEER",
    "MODE",
    "CONNECTION",
    "REPLICATION",
    "DISK",
    "DIRTY",
    "IN FLIGHT",
    "QUEUE",
];
/// Between two columns.
const GAP: &str = "  ";
/// Before everything that belongs to a volume.
const INDENT: &str = "  ";

/// The whole report, ending in a newline.
pub fn status(report: &StatusReport, style: Style) -> String {
    let tls = report.tls.as_ref().map(|tls| format!(", TLS {}", clean(tls)));
    let mut text = format!(
        "{}  blockmirror {}, {}{}, up {}\n",
        style.paint(Tone::Strong, &clean(&report.name)),
        clean(&report.version),
        clean(&report.engine),
        tls.unwrap_or_default(),
        duration(report.uptime_seconds)
    );
    for resource in &report.resources {
        if has_partners(resource) {
            text.push('\n');
            push_resource(&mut text, resource, style);
        }
        for volume in &resource.volumes {
            text.push('\n');
            push_volume(&mut text, &resource.name, volume, style);
        }
    }
    text
}

/// One line about a resync under way.
pub fn resync(resync: &ResyncStatus) -> String {
    let mut text = format!(
        "{}: {} of {} dirty, {}",
        percent(resync.done_bytes, resync.dirty_at_start_bytes),
        bytes(resync.done_bytes),
        bytes(resync.dirty_at_start_bytes),
        rate(resync.bytes_per_second)
    );
    if let Some(seconds) = resync.eta_seconds {
        text.push_str(&format!(", {} left", duration(seconds)));
    }
    if let Some(limit) = resync.limit {
        text.push_str(&format!(", {limit}"));
    }
    text.push_str(&format!(" ({})", moved(resync)));
    text
}

/// One line about a comparison under way.
pub fn verify(verify: &VerifyStatus) -> String {
    let mut text = format!(
        "{}: {} of {} compared, {}",
        percent(verify.done_bytes, verify.total_bytes),
        bytes(verify.done_bytes),
        bytes(verify.total_bytes),
        rate(verify.bytes_per_second)
    );
    if let Some(seconds) = verify.eta_seconds {
        text.push_str(&format!(", {} left", duration(seconds)));
    }
    text.push_str(&format!(", {}", differing(verify)));
    text
}

/// One line about a comparison that ended.
pub fn verify_done(verify: &VerifyStatus) -> String {
    let stopped = if verify.finished { "" } else { "stopped: " };
    format!(
        "{stopped}{} compared in {}, {}",
        bytes(verify.done_bytes),
        duration(verify.elapsed_seconds),
        differing(verify)
    )
}

fn differing(verify: &VerifyStatus) -> String {
    let mut text = match verify.differing_bytes {
        0 => "no difference".to_owned(),
        differing => format!("{} differ", bytes(differing)),
    };
    if verify.differing_bytes > 0 && verify.repair {
        text.push_str(" and are copied to the peer");
    }
    if verify.unread_bytes > 0 {
        text.push_str(&format!(", {} cannot be read", bytes(verify.unread_bytes)));
    }
    text
}

/// One line about a resync that ended.
pub fn resync_done(resync: &ResyncStatus) -> String {
    format!(
        "{} dirty, done in {} ({})",
        bytes(resync.dirty_at_start_bytes),
        duration(resync.elapsed_seconds),
        moved(resync)
    )
}

fn moved(resync: &ResyncStatus) -> String {
    let mut text = format!(
        "copied {}, zeroed {}",
        bytes(resync.copied_bytes),
        bytes(resync.zeroed_bytes)
    );
    if resync.equal_bytes > 0 {
        text.push_str(&format!(", found equal {}", bytes(resync.equal_bytes)));
    }
    text
}

fn push_volume(text: &mut String, resource: &str, volume: &VolumeStatus, style: Style) {
    let mut head = vec![
        bytes(volume.size_bytes),
        format!("{} ({})", clean(&volume.image), volume_io(volume)),
    ];
    if resource != volume.export {
        head.insert(0, format!("resource {}", clean(resource)));
    }
    line(
        text,
        &[&style.paint(Tone::Strong, &clean(&volume.export)), &head.join(", ")],
    );
    if let Some(reason) = &volume.failed {
        let refusal = format!("refuses changes: {}", clean(reason));
        line(text, &["", &style.paint(Tone::Bad, &refusal)]);
    }
    let mut facts = format!(
        "{}, {} in flight ({})",
        counted(volume.connections, "connection"),
        counted(volume.requests_in_flight, "request"),
        bytes(volume.bytes_in_flight)
    );
    if let Some(generation) = &volume.generation {
        facts.push_str(&format!(
            ", {}, generation {}",
            counted(volume.hot_extents, "hot extent"),
            clean(generation)
        ));
    }
    if let Some(disk) = volume.disk_state.filter(|disk| *disk != DiskState::UpToDate) {
        facts.push_str(&format!(", {}", style.paint(tone_of(disk), &format!("image {disk}"))));
    }
    line(text, &["", &facts]);
    push_clients(text, volume);
    push_peers(text, &volume.peers, style);
}

fn volume_io(volume: &VolumeStatus) -> String {
    match volume.image_engine.as_str() {
        "" => clean(&volume.io).into_owned(),
        // The engine's own words may begin with it.
        engine if engine.starts_with(volume.io.as_str()) => clean(engine).into_owned(),
        engine => format!("{}, {}", clean(&volume.io), clean(engine)),
    }
}

fn push_peers(text: &mut String, peers: &[PeerStatus], style: Style) {
    if peers.is_empty() {
        return line(text, &["", "no peers"]);
    }
    let rows: Vec<[String; 8]> = peers.iter().map(cells).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let headings = row(&HEADINGS.map(str::to_owned), widths, |_, cell| {
        style.paint(Tone::Dim, cell)
    });
    line(text, &["", &headings]);
    let beside = format!("{INDENT}{}", " ".repeat(widths[0]));
    for (peer, cells) in peers.iter().zip(&rows) {
        line(
            text,
            &[
                "",
                &row(cells, widths, |column, cell| painted(peer, column, cell, style)),
            ],
        );
        for note in notes(peer, style) {
            line(text, &[&beside, &note]);
        }
    }
}

fn cells(peer: &PeerStatus) -> [String; 8] {
    [
        clean(&peer.name).into_owned(),
        peer.mode.to_string(),
        peer.connection_state.to_string(),
        peer.replication_state.to_string(),
        peer.disk_state.to_string(),
        bytes(peer.dirty_bytes),
        peer.in_flight.to_string(),
        bytes(peer.queue_bytes),
    ]
}

/// One row; cells are padded before they are painted, since colour has no width.
fn row(cells: &[String; 8], widths: [usize; 8], paint: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let last = column + 1 == cells.len();
        let padding = if last {
            0
        } else {
            width - cell.chars().count().min(width)
        };
        text.push_str(&paint(column, cell));
        text.push_str(&" ".repeat(padding));
        if !last {
            text.push_str(GAP);
        }
    }
    text
}

fn painted(peer: &PeerStatus, column: usize, cell: &str, style: Style) -> String {
    let tone = match HEADINGS[column] {
        "PEER" => Tone::Strong,
        "CONNECTION" => match peer.connection_state {
            ConnectionState::Connected => Tone::Good,
            ConnectionState::Connecting => Tone::Warn,
            ConnectionState::StandAlone => Tone::Bad,
        },
        "REPLICATION" => match peer.replication_state {
            ReplicationState::Established => Tone::Good,
            ReplicationState::Off => Tone::Dim,
            _ => Tone::Warn,
        },
        "DISK" => tone_of(peer.disk_state),
        "DIRTY" if peer.dirty_bytes > 0 => Tone::Warn,
        _ => return cell.to_owned(),
    };
    style.paint(tone, cell)
}

const fn tone_of(disk: DiskState) -> Tone {
    match disk {
        DiskState::UpToDate => Tone::Good,
        DiskState::Diskless => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// What does not fit into a column.
fn notes(peer: &PeerStatus, style: Style) -> Vec<String> {
    let mut notes = Vec::new();
    match (&peer.resync, &peer.last_resync) {
        (Some(under_way), _) => notes.push(style.paint(Tone::Warn, &format!("resync {}", resync(under_way)))),
        (None, Some(last)) => notes.push(style.paint(Tone::Dim, &format!("last resync: {}", resync_done(last)))),
        (None, None) => {}
    }
    // A partner is connected to the resource as a whole, which has told what there is to tell.
    let of_resource = peer.link != LinkKind::Nbd;
    if peer.connection_state != ConnectionState::Connected && !of_resource {
        let attempts = if peer.attempts > 0 {
            format!(", attempt {}", peer.attempts)
        } else {
            String::new()
        };
        notes.push(format!(
            "{}{attempts}; on_disconnect = \"{}\"",
            clean(&peer.uri),
            peer.on_disconnect
        ));
    }
    match (&peer.verify, &peer.last_verify) {
        (Some(under_way), _) => notes.push(style.paint(Tone::Warn, &format!("verify {}", verify(under_way)))),
        (None, Some(last)) => {
            let tone = if last.unread_bytes > 0 || (last.differing_bytes > 0 && !last.repair) {
                Tone::Bad
            } else {
                Tone::Dim
            };
            notes.push(style.paint(tone, &format!("last verify: {}", verify_done(last))));
        }
        (None, None) => {}
    }
    if let Some(error) = peer.last_error.as_ref().filter(|_| !of_resource) {
        let tone = if peer.connection_state == ConnectionState::Connected {
            Tone::Dim
        } else {
            Tone::Bad
        };
        notes.push(style.paint(tone, &format!("last error: {}", clean(error))));
    }
    notes
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Parts with two spaces between them, without spaces at the end.
fn line(text: &mut String, parts: &[&str]) {
    let joined = parts.join(GAP);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", joined.trim_end());
}

#[cfg(test)]
mod tests;
