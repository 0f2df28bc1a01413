//! Reading `listen` and `[[listener]]`: where NBD clients connect, and how safely.

use toml::de::DeTable;

use super::files::Files;
use super::listen::Listen;
use super::names::Unique;
use super::problem::{Problems, Span};
use super::section::{Located, Section};
use super::{ClientCertificates, Listener, Sockets, Tls, TlsMode};

const KEYS: [&str; 4] = ["address", "tls", "client_certificates", "plaintext"];
/// What has to be said before other machines may come without TLS.
pub(super) const TRUSTED: &str = "the network is trusted";
const EXAMPLE: &str = "listen = [\"unix:/run/blockmirror/nbd.sock\", \"tcp:127.0.0.1:10809\"]";
const FORMS: &str = "write \"unix:/PATH\", \"tcp:HOST:PORT\" or \"tcp:[IPv6]:PORT\"";

/// Addresses read so far.
pub(super) struct Listeners<'a, 'u> {
    pub(super) unique: &'u mut Unique<'a>,
    pub(super) files: &'u mut Files,
    pub(super) problems: &'a Problems,
    pub(super) tls: &'u Tls,
    pub(super) sockets: Sockets,
    /// Where `client_ca` stands.
    pub(super) client_ca: Option<Span>,
}

impl<'a> Listeners<'a, '_> {
    /// Every address of the top table, those of `listen` first.
    pub(super) fn read(mut self, top: &Section<'a>) -> Vec<Listener> {
        let texts = top.texts("listen");
        let tables = top.tables("listener");
        if top.key_span("listener").is_none() {
            match top.key_span("listen") {
                None if self.sockets == Sockets::Given => {}
                None => top.missing("listen", EXAMPLE),
                Some(span) if top.is_empty_list("listen") => self.problems.add(
                    span,
                    "`listen` names no address: no client could connect",
                    format!("write: {EXAMPLE}"),
                ),
                Some(_) => {}
            }
        }
        let mut listeners: Vec<Listener> = texts
            .into_iter()
            .filter_map(|text| {
                let span = text.span.clone();
                let listener = Listener::plain(self.address("listen", text)?);
                self.check_exposed(&listener, span);
                Some(listener)
            })
            .collect();
        for (table, span) in tables {
            listeners.extend(self.listener(table, span));
        }
        self.check_client_ca(&listeners);
        listeners
    }

    fn listener(&mut self, table: &'a DeTable<'a>, span: Span) -> Option<Listener> {
        let section = Section::new(table, span, "a listener", &KEYS, self.problems);
        let address = section
            .required_text("address", "address = \"tcp:192.0.2.1:10809\"")
            .and_then(|text| self.address("address", text));
        let modes = [
            ("off", TlsMode::Off),
            ("allow", TlsMode::Allow),
            ("require", TlsMode::Require),
        ];
        let tls = section.choice("tls", &modes);
        let certificates = [
            ("ignore", ClientCertificates::Ignore),
            ("allow", ClientCertificates::Allow),
            ("require", ClientCertificates::Require),
        ];
        let client_certificates = section.choice("client_certificates", &certificates);
        self.check(tls.as_ref(), client_certificates.as_ref());
        let span = section.key_span("address").unwrap_or_else(|| section.span());
        let listener = Listener {
            address: address?,
            tls: tls.map_or(TlsMode::Off, |tls| tls.value),
            client_certificates: client_certificates.map_or(ClientCertificates::Ignore, |chosen| chosen.value),
            trusted_network: section.choice("plaintext", &[(TRUSTED, ())]).is_some(),
        };
        // Another value has been noted.
        if section.key_span("plaintext").is_none() {
            self.check_exposed(&listener, span);
        } else if listener.trusted_network && (listener.tls == TlsMode::Require || listener.address.is_local()) {
            section.forbid(
                "plaintext",
                "`plaintext` has no meaning here: nothing of this listener goes over a network in the clear",
                "remove it",
            );
        }
        Some(listener)
    }

    /// Where other machines can connect, nothing is said in the clear unless somebody has answered for it.
    fn check_exposed(&self, listener: &Listener, span: Span) {
        if listener.tls == TlsMode::Require || listener.address.is_local() {
            return;
        }
        self.problems.add(
            span,
            format!(
                "other machines can connect to {}, and what they say is not encrypted: whoever is on the way can read and \
                 change the data",
                listener.address
            ),
            format!(
                "set tls = \"require\" in a [[listener]] with this address; or, where nobody else can be on the way, \
                 plaintext = \"{TRUSTED}\" there"
            ),
        );
    }

    /// What the keys of a listener need of each other and of `[tls]`.
    fn check(&self, tls: Option<&Located<TlsMode>>, certificates: Option<&Located<ClientCertificates>>) {
        if let Some(tls) = tls
            && tls.value != TlsMode::Off
            && self.tls.identity.is_none()
        {
            self.problems.add(
                tls.span.clone(),
                "TLS needs a certificate, and [tls] names none",
                "add: [tls] with certificate = \"/PATH/server-cert.pem\" and key = \"/PATH/server-key.pem\" (scripts/pki \
                 makes a set to try)",
            );
        }
        let Some(certificates) = certificates else { return };
        if tls.is_none_or(|tls| tls.value == TlsMode::Off) {
            self.problems.add(
                certificates.span.clone(),
                "`client_certificates` has no meaning without TLS",
                "add tls = \"require\" to this listener, or remove it",
            );
        } else if certificates.value != ClientCertificates::Ignore && self.tls.client_ca.is_none() {
            self.problems.add(
                certificates.span.clone(),
                "nothing says who signs the certificates of clients",
                "add client_ca = \"/PATH/ca-cert.pem\" to [tls]",
            );
        }
    }

    /// Who writes `client_ca` believes that clients are looked at.
    fn check_client_ca(&self, listeners: &[Listener]) {
        let looks = |listener: &Listener| listener.client_certificates != ClientCertificates::Ignore;
        if let Some(span) = &self.client_ca
            && !listeners.iter().any(looks)
        {
            self.problems.add(
                span.clone(),
                "`client_ca` is never used: no listener looks at certificates of clients",
                "add client_certificates = \"require\" to the [[listener]] it is meant for, or remove it",
            );
        }
    }

    fn address(&mut self, key: &str, text: Located<String>) -> Option<Listen> {
        match text.value.parse::<Listen>() {
            Ok(address) => {
                if !matches!(address, Listen::Tcp { port: 0, .. }) {
                    self.unique.claim(&address.to_string(), text.span.clone());
                }
                if let Listen::Unix(path) = &address {
                    self.files.socket(path.clone(), text.span);
                }
                Some(address)
            }
            Err(why) => {
                self.problems.add(text.span, format!("`{key}`: {why}"), FORMS);
                None
            }
        }
    }
}
