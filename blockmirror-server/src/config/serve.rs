//! The configuration that a command line stands for: `blockmirror-server serve IMAGE` is a file with one plain export
//! that need not be written. Mistakes are found and shown as in a file.

mod tls;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::tls::Encryption;
use super::TlsMode;
use super::listen::Listen;
use super::listener::TRUSTED;

/// What its configuration is called in errors.
pub const SERVE: &str = "serve, written as a configuration";

/// What the remedies of a configuration are on a command line.
pub(super) const AS_ARGUMENTS: &str = "on the command line `image` is the first argument, `size` is --size, `read_only` --read-only, `minimum_block` \
     --minimum-block, `listen` --unix and --tcp, `tls = \"require\"` --tls-certificates, `plaintext` --trusted-network, \
     `from` --allow";

/// The name of the node, and of an export without a better one.
const NAME: &str = "serve";
/// An image in memory.
const MEMORY: &str = "memory:";

/// One plain export.
#[derive(Clone, Debug, Default)]
pub struct Serve {
    /// A path, `memory:`, or `memory:SIZE`.
    pub image: String,
    /// The export name; `None`: the name of the image's file.
    pub export: Option<String>,
    /// Text for people.
    pub description: Option<String>,
    /// As in a configuration.
    pub size: Option<String>,
    /// Refuse every change.
    pub read_only: bool,
    /// Past the page cache.
    pub direct: bool,
    /// As in a configuration.
    pub minimum_block: Option<String>,
    /// As in a configuration.
    pub engine: Option<String>,
    /// As in a configuration; empty when somebody else makes the sockets.
    pub listen: Vec<String>,
    /// Whether connections are encrypted; `None`: all of them, when there are certificates.
    pub tls: Option<TlsMode>,
    /// The directory with `server-cert.pem`, `server-key.pem` and `ca-cert.pem`.
    pub certificates: Option<PathBuf>,
    /// Clients show a certificate that `ca-cert.pem` has signed.
    pub verify_peer: bool,
    /// Other machines may connect, without TLS.
    pub trusted_network: bool,
    /// Who may open the export, as in a configuration. Empty: whoever is on this machine; on a trusted network whoever can
    /// connect, and with TLS and `verify_peer` whoever has a certificate.
    pub allow: Vec<String>,
}

impl Serve {
    /// As a configuration file.
    ///
    /// # Errors
    /// What no file could say.
    pub fn text(&self) -> Result<String, String> {
        let (image, size) = self.image_and_size()?;
        let encryption = Encryption::new(self)?;
        let mut text = format!("name = \"{NAME}\"\n");
        put_text(&mut text, "engine", self.engine.as_deref());
        self.put_listeners(encryption.as_ref(), &mut text);
        text.push_str("[[resource]]\nname = \"serve\"\nmirror = false\n[[resource.volume]]\n");
        put_text(&mut text, "export", Some(&self.export_name()));
        put_text(&mut text, "description", self.description.as_deref());
        put_text(&mut text, "image", Some(&image));
        put_text(&mut text, "size", size.as_deref());
        if self.read_only {
            put(&mut text, "read_only", "true");
        }
        if self.direct {
            put_text(&mut text, "io", Some("direct"));
        }
        put_text(&mut text, "minimum_block", self.minimum_block.as_deref());
        let everybody = self.trusted_network || encryption.is_some_and(|tls| tls.knows_clients());
        let anyone = ["anyone".to_owned()];
        let allow = match self.allow.as_slice() {
            [] if everybody => &anyone,
            allow => allow,
        };
        if !allow.is_empty() {
            text.push_str("[[resource.volume.access]]\n");
            put(&mut text, "from", &list(allow));
            put_text(&mut text, "permit", Some("read-write"));
        }
        Ok(text)
    }

    /// A list of those of which there is nothing else to say, a table of each of the others.
    fn put_listeners(&self, encryption: Option<&Encryption>, text: &mut String) {
        let is_local = |address: &str| address.parse::<Listen>().is_ok_and(|address| address.is_local());
        let needs_word = |address: &str| self.trusted_network && !is_local(address);
        let is_bare = |address: &&String| encryption.is_none() && !needs_word(address);
        let (bare, others): (Vec<_>, Vec<_>) = self.listen.iter().partition(is_bare);
        if !bare.is_empty() {
            put(text, "listen", &list(&bare));
        }
        for address in others {
            text.push_str("[[listener]]\n");
            put_text(text, "address", Some(address));
            if let Some(encryption) = encryption {
                encryption.put_listener(text);
            }
            if needs_word(address) {
                put_text(text, "plaintext", Some(TRUSTED));
            }
        }
        if let Some(encryption) = encryption {
            encryption.put_table(text);
        }
    }

    fn image_and_size(&self) -> Result<(String, Option<String>), String> {
        let Some(inside) = self.image.strip_prefix(MEMORY) else {
            let path = std::path::absolute(&self.image).map_err(|error| format!("{}: {error}", self.image))?;
            return Ok((path.to_string_lossy().into_owned(), self.size.clone()));
        };
        match (inside, &self.size) {
            ("", size) => Ok((MEMORY.to_owned(), size.clone())),
            (size, None) => Ok((MEMORY.to_owned(), Some(size.to_owned()))),
            (size, Some(other)) => Err(format!("the image says {size} and --size says {other}: say it once")),
        }
    }

    fn export_name(&self) -> String {
        let of_file = || {
            let name = Path::new(&self.image).file_name()?;
            Some(name.to_string_lossy().into_owned())
        };
        match &self.export {
            Some(export) => export.clone(),
            None if self.image.starts_with(MEMORY) => "memory".to_owned(),
            None => of_file().unwrap_or_else(|| NAME.to_owned()),
        }
    }
}

fn put_text(text: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        put(text, key, &quoted(value));
    }
}

fn put(text: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn list(texts: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, ImageSource, Io, Sockets, Who};
    use super::*;

    fn config(serve: &Serve) -> Config {
        let sockets = if serve.listen.is_empty() {
            Sockets::Given
        } else {
            Sockets::Ours
        };
        Config::check(&serve.text().unwrap(), SERVE, sockets).unwrap()
    }

    #[test]
    fn a_path_is_served_by_the_name_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a \"quoted\\\" name.img");
        let serve = Serve {
            image: image.display().to_string(),
            size: Some("1MiB".to_owned()),
            direct: true,
            listen: vec!["tcp:127.0.0.1:0".to_owned()],
            ..Serve::default()
        };
        let config = config(&serve);
        let volume = &config.resources[0].volumes[0];
        assert_eq!(volume.export, "a \"quoted\\\" name.img");
        assert_eq!(volume.image, ImageSource::Path(image));
        assert_eq!((volume.size, volume.io), (Some(1 << 20), Io::Direct));
        assert!(!config.resources[0].mirror, "plain");
        assert_eq!(volume.metadata, None);
    }

    #[test]
    fn memory_says_its_size_once() {
        let mut serve = Serve {
            image: "memory:64MiB".to_owned(),
            ..Serve::default()
        };
        let volume = config(&serve).resources[0].volumes[0].clone();
        assert_eq!((volume.image, volume.size), (ImageSource::Memory, Some(64 << 20)));
        assert_eq!(volume.export, "memory");
        serve.size = Some("1GiB".to_owned());
        assert!(serve.text().unwrap_err().contains("say it once"));
        serve.image = "memory:".to_owned();
        serve.export = Some("ram".to_owned());
        assert_eq!(config(&serve).resources[0].volumes[0].export, "ram");
    }

    #[test]
    fn other_machines_come_in_when_somebody_says_so() {
        let mut serve = Serve {
            image: "memory:1MiB".to_owned(),
            listen: vec!["tcp:0.0.0.0:0".to_owned(), "tcp:[::1]:0".to_owned()],
            ..Serve::default()
        };
        let error = Config::check(&serve.text().unwrap(), SERVE, Sockets::Ours).unwrap_err();
        assert!(error.to_string().contains("other machines can connect"), "{error}");
        serve.trusted_network = true;
        let anyone = config(&serve);
        let trusted: Vec<bool> = anyone
            .listeners
            .iter()
            .map(|listener| listener.trusted_network)
            .collect();
        assert_eq!(trusted, [false, true]);
        assert_eq!(anyone.resources[0].volumes[0].access[0].from, [Who::Anyone]);
        serve.allow = vec!["192.0.2.0/24".to_owned()];
        let some = config(&serve);
        assert_eq!(
            some.resources[0].volumes[0].access[0].from[0].to_string(),
            "192.0.2.0/24"
        );
    }

    #[test]
    fn mistakes_are_shown_as_in_a_file() {
        let serve = Serve {
            image: "memory:1000".to_owned(),
            ..Serve::default()
        };
        let error = Config::check(&serve.text().unwrap(), SERVE, Sockets::Given).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("use 512 or 1024") && told.ends_with(AS_ARGUMENTS),
            "{told}"
        );
        let nowhere = Config::check(&serve.text().unwrap(), SERVE, Sockets::Ours).unwrap_err();
        assert!(nowhere.to_string().contains("no `listen`"), "{nowhere}");
    }
}
