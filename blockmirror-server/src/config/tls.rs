//! Reading `[tls]`.

use std::path::PathBuf;

use super::section::{Located, Section};
use super::{Identity, Tls};

/// Keys of `[tls]`.
pub(super) const KEYS: [&str; 4] = ["certificate", "key", "client_ca", "ca"];

/// Read the table.
pub(super) fn read(section: &Section<'_>) -> Tls {
    let path = |key| section.path(key).map(|path| path.value);
    Tls {
        identity: identity(section, ("certificate", "key")),
        client_ca: path("client_ca"),
        ca: path("ca"),
    }
}

/// A certificate and its key, under these names: both or none.
pub(super) fn identity(section: &Section<'_>, (certificate, key): (&'static str, &'static str)) -> Option<Identity> {
    let found = (section.path(certificate), section.path(key));
    let alone = |path: &Located<PathBuf>, has: &str, lacks: &str| {
        // A key of the wrong type has been noted already.
        if section.key_span(lacks).is_none() {
            section.problems().add(
                path.span.clone(),
                format!("`{has}` has no `{lacks}` beside it: neither can be used alone"),
                format!("add: {lacks} = \"/PATH/{lacks}.pem\""),
            );
        }
    };
    match found {
        (Some(certificate), Some(key)) => {
            return Some(Identity {
                certificate: certificate.value,
                key: key.value,
            });
        }
        (Some(path), None) => alone(&path, certificate, key),
        (None, Some(path)) => alone(&path, key, certificate),
        (None, None) => {}
    }
    None
}
