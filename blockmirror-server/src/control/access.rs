//! Who may open what: the access rules of the configuration, held against who a client is.

use std::net::{IpAddr, ToSocketAddrs};

use blockmirror_client::uri::Address;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::client::{ClientAddress, ClientIdentity};
use super::roster::Present;
use crate::config::{AccessRule, LOCAL, Peer, Permit, Who};

/// What a client may do with an export that has these rules: the first one that is about the client counts.
pub(super) fn permit(rules: &[AccessRule], client: &ClientIdentity) -> Permit {
    if rules.is_empty() {
        return if is_local(client) {
            Permit::ReadWrite
        } else {
            Permit::Nothing
        };
    }
    rules
        .iter()
        .find(|rule| is_among(&rule.from, client))
        .map_or(Permit::Nothing, |rule| rule.permit)
}

/// Whether the client is on this machine.
pub(super) fn is_local(client: &ClientIdentity) -> bool {
    is_among(&LOCAL, client)
}

/// Whether the client may come as this peer. Looks a host name up, which may take a while.
pub(super) fn comes_as(peer: &Peer, client: &ClientIdentity) -> bool {
    if !peer.from.is_empty() {
        return is_among(&peer.from, client);
    }
    let Address::Tcp { host, port } = &peer.uri.address else {
        return is_local(client);
    };
    if is_about(&Who::Certificate(host.clone()), client) {
        return true;
    }
    let Some(address) = ip(client) else {
        return is_local(client) && addresses(host, *port).iter().any(IpAddr::is_loopback);
    };
    let known = addresses(host, *port);
    known.contains(&address) || (address.is_loopback() && known.iter().any(IpAddr::is_loopback))
}

/// The addresses of a host. What cannot be looked up has none.
fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let look_up = || {
        let found = (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        found.unwrap_or_default().iter().map(|found| found.ip()).collect()
    };
    match (host.parse(), Handle::try_current()) {
        (Ok(address), _) => vec![address],
        (Err(_), Ok(runtime)) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(look_up)
        }
        (Err(_), _) => look_up(),
    }
}

fn is_among(those: &[Who], client: &ClientIdentity) -> bool {
    those.iter().any(|who| is_about(who, client))
}

fn is_about(who: &Who, client: &ClientIdentity) -> bool {
    match (who, &client.address) {
        (Who::Anyone, _) | (Who::Unix, ClientAddress::Unix { .. } | ClientAddress::Given) => true,
        (Who::User(wanted), ClientAddress::Unix { user, .. }) => *user == Some(*wanted),
        (Who::Loopback, _) => ip(client).is_some_and(|address| address.is_loopback()),
        (Who::Network(network), _) => ip(client).is_some_and(|address| network.contains(&address)),
        // Host names are the same in any case (RFC 4343).
        (Who::Certificate(name), _) => {
            let names = client.certificate.as_deref().unwrap_or_default();
            names.iter().any(|shown| shown.eq_ignore_ascii_case(name))
        }
        (Who::Unix | Who::User(_), _) => false,
    }
}

/// An IPv4 address may come in the clothes of IPv6.
fn ip(client: &ClientIdentity) -> Option<IpAddr> {
    match client.address {
        ClientAddress::Tcp(address) => Some(address.ip().to_canonical()),
        ClientAddress::Unix { .. } | ClientAddress::Given => None,
    }
}

impl Present {
    /// What a client may do with what is exported by this name; nothing, when nothing is.
    pub(super) fn permit(&self, export: &str, client: &ClientIdentity) -> Permit {
        let volume = self.volume(export).map(|view| view.config);
        let branch = || self.branch(export).map(|branch| &branch.volume);
        let found = volume.or_else(branch);
        found.map_or(Permit::Nothing, |volume| permit(&volume.access, client))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A client at this address, or on a Unix socket with this user.
    pub(in crate::control) fn client(address: &str) -> ClientIdentity {
        let address = match address.strip_prefix("unix:") {
            Some(user) => ClientAddress::Unix {
                process: None,
                user: user.parse().ok(),
            },
            None => ClientAddress::Tcp((address.parse::<IpAddr>().unwrap(), 1).into()),
        };
        ClientIdentity {
            listener: "here".into(),
            address,
            certificate: None,
        }
    }

    fn rule(from: &[&str], permit: Permit) -> AccessRule {
        AccessRule {
            from: from.iter().map(|who| who.parse().unwrap()).collect(),
            permit,
        }
    }

    #[test]
    fn without_rules_whoever_is_on_this_machine_may_come() {
        for here in [
            "unix:0",
            "unix:1000",
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(permit(&[], &client(here)), Permit::ReadWrite, "{here}");
        }
        for elsewhere in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1"] {
            assert_eq!(permit(&[], &client(elsewhere)), Permit::Nothing, "{elsewhere}");
        }
    }

    #[test]
    fn the_first_rule_about_a_client_counts() {
        let rules = [
            rule(&["192.0.2.66"], Permit::Nothing),
            rule(&["unix:7", "192.0.2.0/24"], Permit::ReadWrite),
            rule(&["unix", "2001:db8::/32"], Permit::ReadOnly),
        ];
        for (address, wanted) in [
            ("192.0.2.66", Permit::Nothing),
            ("192.0.2.65", Permit::ReadWrite),
            ("::ffff:192.0.2.65", Permit::ReadWrite),
            ("unix:7", Permit::ReadWrite),
            ("unix:8", Permit::ReadOnly),
            ("2001:db8::9", Permit::ReadOnly),
            ("127.0.0.1", Permit::Nothing),
            ("192.0.3.1", Permit::Nothing),
        ] {
            assert_eq!(permit(&rules, &client(address)), wanted, "{address}");
        }
    }

    #[test]
    fn a_certificate_counts_wherever_its_holder_is() {
        let rules = [rule(&["certificate:backup.example"], Permit::ReadOnly)];
        let mut backup = client("198.51.100.9");
        assert_eq!(permit(&rules, &backup), Permit::Nothing);
        backup.certificate = Some(vec!["other.example".to_owned()]);
        assert_eq!(permit(&rules, &backup), Permit::Nothing);
        backup.certificate = Some(vec!["other.example".to_owned(), "Backup.example".to_owned()]);
        assert_eq!(permit(&rules, &backup), Permit::ReadOnly);
    }
}
