//! Access rules: who may open an export, and how.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use toml::de::DeTable;

use super::problem::Span;
use super::section::Section;

/// Keys of `[[resource.volume.access]]`.
const KEYS: [&str; 2] = ["from", "permit"];
const FORMS: &str = "write \"unix\", \"unix:1000\" (a user id), \"loopback\", an address, a range such as \"192.0.2.0/24\", \
                     \"certificate:NAME\", or \"anyone\"";

/// What some clients may do with an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Whom it is about; never empty.
    pub from: Vec<Who>,
    /// What they may do.
    pub permit: Permit,
}

/// What a client may do with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Not even know that it is there.
    Nothing,
    /// Read it.
    ReadOnly,
    /// Read and change it.
    ReadWrite,
}

/// Some clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// All of them.
    Anyone,
    /// Those that come by a Unix socket.
    Unix,
    /// Those of them that this user runs (its id).
    User(u32),
    /// Those that come by the loopback interface: 127.0.0.0/8 and ::1.
    Loopback,
    /// Those with an address in this range.
    Network(IpNet),
    /// Those with a verified certificate for this name.
    Certificate(String),
}

/// Who may open an export that has no rules.
pub(crate) const LOCAL: [Who; 2] = [Who::Unix, Who::Loopback];

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "anyone" => return Ok(Self::Anyone),
            "unix" => return Ok(Self::Unix),
            "loopback" => return Ok(Self::Loopback),
            _ => {}
        }
        if let Some(user) = text.strip_prefix("unix:") {
            let user = user.parse().map_err(|_| format!("\"{user}\" is not a user id"))?;
            return Ok(Self::User(user));
        }
        match text.strip_prefix("certificate:") {
            Some("") => return Err("the name of the certificate is missing".to_owned()),
            Some(name) => return Ok(Self::Certificate(name.to_owned())),
            None => {}
        }
        let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(network), _) => network,
            (_, Ok(address)) => IpNet::from(address),
            _ => {
                return Err(format!(
                    "\"{text}\" is neither an address nor a range nor a word that is known here"
                ));
            }
        };
        if network != network.trunc() {
            let meant = network.trunc();
            return Err(format!(
                "\"{text}\" is an address inside of a range: did you mean {meant}?"
            ));
        }
        Ok(Self::Network(network))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Unix => f.write_str("unix"),
            Self::User(user) => write!(f, "unix:{user}"),
            Self::Loopback => f.write_str("loopback"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Self::Network(network) => write!(f, "{network}"),
            Self::Certificate(name) => write!(f, "certificate:{name}"),
        }
    }
}

/// Read the rules of a volume.
pub(super) fn read_rules(section: &Section<'_>) -> Vec<AccessRule> {
    let tables = section.tables("access");
    tables
        .into_iter()
        .filter_map(|(table, span)| read_rule(section, table, span))
        .collect()
}

fn read_rule(volume: &Section<'_>, table: &DeTable<'_>, span: Span) -> Option<AccessRule> {
    let section = Section::new(table, span, "an access rule", &KEYS, volume.problems());
    let example = "from = [\"192.0.2.0/24\"]";
    if section.key_span("from").is_none() {
        section.missing("from", example);
    } else if section.is_empty_list("from") {
        let span = section.key_span("from").unwrap_or_default();
        section.problems().add(
            span,
            "`from` names nobody: the rule would be about no client",
            format!("write: {example}"),
        );
    }
    let from = read_who(&section, "from");
    let choices = [
        ("nothing", Permit::Nothing),
        ("read-only", Permit::ReadOnly),
        ("read-write", Permit::ReadWrite),
    ];
    if section.key_span("permit").is_none() {
        section.missing("permit", "permit = \"read-only\"");
    }
    let permit = section.choice("permit", &choices)?.value;
    (!from.is_empty()).then_some(AccessRule { from, permit })
}

/// The clients in a list.
pub(super) fn read_who(section: &Section<'_>, key: &str) -> Vec<Who> {
    let mut known = Vec::new();
    for text in section.texts(key) {
        match text.value.parse() {
            Ok(who) => known.push(who),
            Err(why) => section.problems().add(text.span, format!("`{key}`: {why}"), FORMS),
        }
    }
    known
}

/// Clients for people: "unix, 192.0.2.0/24".
pub(super) fn show_who(from: &[Who]) -> String {
    let names: Vec<String> = from.iter().map(Who::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clients_read_back_as_written() {
        for text in [
            "anyone",
            "unix",
            "unix:1000",
            "loopback",
            "192.0.2.7",
            "192.0.2.0/24",
            "2001:db8::/32",
            "::1",
            "certificate:backup.example",
        ] {
            assert_eq!(text.parse::<Who>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_means_nobody_is_refused() {
        for text in [
            "",
            "unix:root",
            "certificate:",
            "192.0.2.0/33",
            "backup.example",
            "192.0.2.5/24",
        ] {
            assert!(text.parse::<Who>().is_err(), "{text}");
        }
        let why = "192.0.2.5/24".parse::<Who>().unwrap_err();
        assert!(why.contains("did you mean 192.0.2.0/24"), "{why}");
    }
}
