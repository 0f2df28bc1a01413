//! Several URIs: the same export on the nodes of one resource.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{NbdUri, UriError, UriProblem};
use crate::tls::Identity;

/// Nodes one list can name.
pub(super) const URIS_MAX: usize = 16;

/// One export, and where it may be served: by whichever node is Primary. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UriList(Vec<NbdUri>);

impl UriList {
    /// All of them, in the order they are preferred.
    pub fn as_slice(&self) -> &[NbdUri] {
        &self.0
    }

    /// With these certificates, where a URI has TLS and names none itself.
    #[must_use]
    pub fn with_certificates(mut self, ca: Option<&Path>, identity: Option<&Identity>) -> Self {
        for tls in self.0.iter_mut().filter_map(|uri| uri.tls.as_mut()) {
            if tls.certificates.is_none() {
                tls.ca = ca.map(Path::to_owned);
                tls.identity = identity.cloned();
            }
        }
        self
    }
}

impl From<NbdUri> for UriList {
    fn from(uri: NbdUri) -> Self {
        Self(vec![uri])
    }
}

impl FromStr for UriList {
    type Err = UriError;

    /// URIs with commas between them. A comma inside of a URI stays there, unless what follows looks like another one.
    fn from_str(text: &str) -> Result<Self, UriError> {
        let mut parts: Vec<String> = Vec::new();
        for part in text.split(',') {
            match parts.last_mut() {
                Some(last) if !begins_a_uri(part) => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => parts.push(part.trim().to_owned()),
            }
        }
        if parts.len() > URIS_MAX {
            return Err(UriError {
                uri: text.to_owned(),
                problem: UriProblem::TooMany(parts.len()),
            });
        }
        parts
            .iter()
            .map(|part| part.parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for UriList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, uri) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{uri}")?;
        }
        Ok(())
    }
}

fn begins_a_uri(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        let scheme = scheme.trim_start();
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphabetic() || c == '+')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists() {
        let list = |text: &str| text.parse::<UriList>().unwrap();
        for (text, count) in [
            ("nbd://a/db", 1),
            ("nbd://a/db,nbd://b:1/db", 2),
            ("nbd+unix:///db?socket=/a,nbd://b/db,nbd://c/db", 3),
            ("nbd://a/d%2Cb", 1),
        ] {
            assert_eq!(list(text).as_slice().len(), count, "{text}");
            assert_eq!(list(&list(text).to_string()), list(text), "{text}");
        }
        assert_eq!(list("nbd://a/x,y").as_slice()[0].export.as_deref(), Some("x,y"));
        assert_eq!(list("nbd://a/x, nbd://b/x"), list("nbd://a/x,nbd://b/x"));
        for text in ["", "nbd://a/x,http://b/x", ",nbd://a/x", "nbd://a/x,nbd://"] {
            assert!(text.parse::<UriList>().is_err(), "{text}");
        }
    }
}
