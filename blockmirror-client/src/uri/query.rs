//! The parameters behind the `?`.

use super::{UriProblem, decode};

/// Parameters of TLS, with and without meaning to us.
const TLS: [&str; 6] = [
    "tls-certificates",
    "tls-hostname",
    "tls-verify-peer",
    "tls-type",
    "tls-username",
    "tls-psk-file",
];

/// Parameters that nobody has taken yet: name and decoded value.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, UriProblem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if found.iter().any(|(known, _)| known == key) {
                return Err(UriProblem::RepeatedParameter(key.to_owned()));
            }
            found.push((key.to_owned(), decode(value)?));
        }
        Ok(Self(found))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    /// Without TLS nothing is said about it.
    pub(super) fn refuse_tls(&self) -> Result<(), UriProblem> {
        match self.0.iter().find(|(key, _)| TLS.contains(&key.as_str())) {
            Some((key, _)) => Err(UriProblem::NotTls(key.clone())),
            None => Ok(()),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), UriProblem> {
        match self.0.into_iter().next() {
            Some((key, _)) => Err(UriProblem::UnknownParameter(key)),
            None => Ok(()),
        }
    }
}
