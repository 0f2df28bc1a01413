//! Who is connected to a volume: one line for those that differ by nothing but their port or process.

use std::net::SocketAddr;

use blockmirror_client::admin::{ClientStatus, VolumeStatus};

use super::{counted, line};
use crate::human::clean;

/// Lines at most.
const LINES_MAX: usize = 8;

/// Its lines.
pub(super) fn push_clients(text: &mut String, volume: &VolumeStatus) {
    let mut groups: Vec<(String, u64)> = Vec::new();
    for client in &volume.clients {
        let who = words(client);
        match groups.iter_mut().find(|(known, _)| *known == who) {
            Some((_, count)) => *count += 1,
            None => groups.push((who, 1)),
        }
    }
    for (who, count) in groups.iter().take(LINES_MAX) {
        let times = if *count > 1 {
            format!(" ({count} times)")
        } else {
            String::new()
        };
        line(text, &["", &format!("client {}{times}", clean(who))]);
    }
    let told: u64 = groups.iter().take(LINES_MAX).map(|(_, count)| count).sum();
    if told > 0 && told < volume.connections {
        let others = counted(volume.connections - told, "connection");
        line(text, &["", &format!("and {others} more")]);
    }
}

/// All but what is new at each connection.
fn words(client: &ClientStatus) -> String {
    let address = client.address.parse::<SocketAddr>();
    let mut words = address.map_or_else(|_| client.address.clone(), |address| address.ip().to_string());
    if let Some(user) = client.user {
        words.push_str(&format!(", user {user}"));
    }
    if !client.certificate.is_empty() {
        words.push_str(&format!(", certificate of {}", client.certificate.join(", ")));
    }
    if let Some(tls) = &client.tls {
        words.push_str(&format!(", {tls}"));
    }
    words
}
