//! What the volumes of a resource have in common: its role, its partners, and what needs somebody.

use blockmirror_client::admin::{ConnectionState, HostAccess, LinkKind, PartnerStatus, ResourceStatus, Role};

use super::{counted, line};
use crate::human::{bytes, clean};
use crate::terminal::{Style, Tone};

/// A resource without partners has nothing to say beyond its volumes.
pub(super) fn has_partners(resource: &ResourceStatus) -> bool {
    resource.role == Some(Role::Secondary)
        || !resource.alerts.is_empty()
        || !resource.branches.is_empty()
        || resource.partners.iter().any(|partner| partner.link != LinkKind::Nbd)
}

/// Its lines.
pub(super) fn push_resource(text: &mut String, resource: &ResourceStatus, style: Style) {
    let role = match resource.role {
        Some(Role::Primary) => style.paint(Tone::Good, "Primary"),
        Some(Role::Secondary) => style.paint(Tone::Strong, "Secondary"),
        None => "not mirrored".to_owned(),
    };
    let hosts = match (resource.role, resource.hosts) {
        (_, HostAccess::ReadOnly) => ", hosts may read",
        (_, HostAccess::Shut) => ", hosts are shut out",
        (Some(Role::Secondary), HostAccess::ReadWrite) | (None | Some(Role::Primary), HostAccess::ReadWrite) => "",
    };
    let head = format!("resource {}", clean(&resource.name));
    line(text, &[&style.paint(Tone::Strong, &head), &format!("{role}{hosts}")]);
    for alert in &resource.alerts {
        line(text, &["", &style.paint(Tone::Bad, &clean(alert))]);
    }
    for partner in resource.partners.iter().filter(|partner| partner.link != LinkKind::Nbd) {
        push_partner(text, partner, style);
    }
    if !resource.branches.is_empty() {
        let saved: u64 = resource.branches.iter().map(|branch| branch.saved_bytes).sum();
        let branches = counted(resource.branches.len() as u64, "saved branch").replace("branchs", "branches");
        line(
            text,
            &["", &format!("{branches} ({}): `blockmirror branch list`", bytes(saved))],
        );
    }
}

fn push_partner(text: &mut String, partner: &PartnerStatus, style: Style) {
    let tone = match partner.connection_state {
        ConnectionState::Connected => Tone::Good,
        ConnectionState::Connecting => Tone::Warn,
        ConnectionState::StandAlone => Tone::Bad,
    };
    let mut words = style.paint(tone, &partner.connection_state.to_string());
    if let Some(role) = partner.role {
        words.push_str(&format!(", {role}"));
    }
    if partner.connection_state == ConnectionState::Connected {
        words.push_str(&format!(
            ", {} in flight ({})",
            counted(partner.in_flight, "request"),
            bytes(partner.bytes_in_flight)
        ));
    } else if partner.attempts > 0 {
        words.push_str(&format!(", attempt {}", partner.attempts));
    }
    line(
        text,
        &[
            "",
            &format!("node {}: {words}", style.paint(Tone::Strong, &clean(&partner.name))),
        ],
    );
    // What stands alone has told why among the alerts.
    if let (Some(error), ConnectionState::Connecting) = (&partner.last_error, partner.connection_state) {
        line(text, &["", "", &format!("last error: {}", clean(error))]);
    }
}
