//! Reading `[tls]`, and what a peer says about TLS.

use std::path::PathBuf;

use blockmirror_client::uri::NbdUri;

use super::files::Files;
use super::problem::Span;
use super::section::{Located, Section};
use super::{ClientTls, Identity, KernelTls, Tls};

/// Keys of `[tls]`.
pub(super) const KEYS: [&str; 5] = ["certificate", "key", "client_ca", "ca", "kernel"];

/// Read the table.
pub(super) fn read(section: &Section<'_>) -> Tls {
    let path = |key| section.path(key).map(|path| path.value);
    let kernel = section.choice("kernel", &[("auto", KernelTls::Auto), ("off", KernelTls::Off)]);
    Tls {
        identity: identity(section, ("certificate", "key")),
        client_ca: path("client_ca"),
        ca: path("ca"),
        kernel: kernel.map_or(KernelTls::Auto, |kernel| kernel.value),
    }
}

/// The files it names, to be looked at.
pub(super) fn note_files(section: &Section<'_>, tls: &Tls, files: &mut Files) {
    let span = |key| section.key_span(key).unwrap_or_else(|| section.span());
    if let Some(identity) = &tls.identity {
        files.identity(identity, span("certificate"));
    }
    for (key, path) in [("client_ca", &tls.client_ca), ("ca", &tls.ca)] {
        if let Some(path) = path {
            files.authority(path, span(key));
        }
    }
}

/// The files a peer's TLS needs, to be looked at.
pub(super) fn note_peer_files(settings: &ClientTls, span: &Span, files: &mut Files) {
    if let Some(identity) = &settings.identity {
        files.identity(identity, span.clone());
    }
    if let Some(ca) = &settings.ca {
        files.authority(ca, span.clone());
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

/// Keys of a peer that have a meaning with TLS only.
const PEER_KEYS: [&str; 4] = ["tls_ca", "tls_certificate", "tls_key", "tls_name"];

/// How TLS with a peer is done: its own keys first, then its URI, then `[tls]`. `None`: there is none.
pub(super) fn read_peer(section: &Section<'_>, uri: &Located<NbdUri>, ours: &Tls) -> Option<ClientTls> {
    let Some(mut settings) = uri.value.client_tls() else {
        for key in PEER_KEYS {
            section.forbid(
                key,
                &format!("`{key}` has no meaning without TLS, and the URI says that there is none"),
                "write nbds:// (or nbds+unix://) in `uri`, or remove it",
            );
        }
        return None;
    };
    if settings.anybody {
        section.problems().add(
            uri.span.clone(),
            "a peer that is not verified could be anybody, and gets all the data",
            "remove tls-verify-peer; tls_ca says who signs its certificate, tls_name which name that is for",
        );
    }
    if let Some(ca) = section.path("tls_ca") {
        settings.ca = Some(ca.value);
    } else if settings.ca.is_none() {
        settings.ca.clone_from(&ours.ca);
    }
    if settings.ca.is_none() && !settings.anybody {
        section.problems().add(
            uri.span.clone(),
            "nothing says who signs the certificate of this peer",
            "add tls_ca = \"/PATH/ca-cert.pem\" here, or ca to [tls]",
        );
    }
    let own = identity(section, ("tls_certificate", "tls_key"));
    settings.identity = own.or(settings.identity).or_else(|| ours.identity.clone());
    if let Some(name) = section.text("tls_name") {
        settings.name = name.value;
    }
    Some(settings)
}
