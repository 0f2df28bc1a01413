//! Reading the whole text, and the checks that look at more than one table.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeTable;

use super::files::Files;
use super::limits;
use super::listen::{self, Listen};
use super::listener::Listeners;
use super::names::{Unique, check_name};
use super::peer::{self, ReadPeer};
use super::problem::{ConfigError, Problems, Span};
use super::resource;
use super::section::Section;
use super::tls;
use super::volume::{self, ReadVolume};
use super::{Config, Engine, ImageSource, Limits, Listener, Resource, Sockets, Tls};

const TOP_KEYS: [&str; 9] = [
    "name",
    "admin",
    "listen",
    "listener",
    "tls",
    "engine",
    "data_threads",
    "limits",
    "resource",
];
/// Peers one resource can have.
const PEERS_MAX: usize = mirror_core::config::PEERS_MAX;
/// Threads one daemon can have.
const DATA_THREADS_MAX: u64 = 256;
const HOT_EXTENTS_RANGE: std::ops::RangeInclusive<u64> =
    mirror_core::config::HOT_EXTENTS_MIN as u64..=mirror_core::config::HOT_EXTENTS_MAX as u64;
/// The configuration in `text`, and the files it speaks of.
pub(super) fn parse(text: &str, file: &str, sockets: Sockets) -> Result<(Config, Files), ConfigError> {
    let problems = Problems::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(
            error.span().unwrap_or(0..0),
            format!("this is not TOML: {}", error.message()),
            "see https://toml.io for the syntax",
        );
    }
    let read = if errors.is_empty() {
        Reader::new(text, &problems, sockets).top(&table)
    } else {
        None
    };
    problems.into_result(text, file)?;
    // Without a problem every required key was there; the fallback keeps this total.
    read.ok_or_else(|| ConfigError::Wrong(Vec::new()))
}

struct Reader<'a> {
    problems: &'a Problems,
    sockets: Sockets,
    resources: Unique<'a>,
    exports: Unique<'a>,
    paths: Unique<'a>,
    listeners: Unique<'a>,
    remote_legs: Unique<'a>,
    files: Files,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, problems: &'a Problems, sockets: Sockets) -> Self {
        let unique = |what, remedy| Unique::new(what, remedy, text, problems);
        Self {
            problems,
            sockets,
            resources: unique("the resource name", "give every resource a name of its own"),
            exports: unique("the export name", "give every volume an export name of its own"),
            paths: unique(
                "the file",
                "what shares a file destroys it: give each image and metadata file a path of its own",
            ),
            listeners: unique("the address", "list every address once"),
            remote_legs: unique(
                "the remote export",
                "two volumes mirrored to one export destroy each other: give each a remote export of its own",
            ),
            files: Files::default(),
        }
    }

    fn top(mut self, table: &'a Spanned<DeTable<'a>>) -> Option<(Config, Files)> {
        // The whole text is the span of the top table; a missing key is shown at its start.
        let top = Section::new(table.get_ref(), 0..0, "the configuration", &TOP_KEYS, self.problems);
        let name = top.required_text("name", "name = \"alpha\"");
        if let Some(name) = &name {
            check_name("name", name, self.problems);
        }
        let admin = self.admin(&top);
        let (listeners, tls) = self.listeners(&top);
        let engines = [
            ("auto", Engine::Auto),
            ("uring", Engine::Uring),
            ("threads", Engine::Threads),
        ];
        let engine = top
            .choice("engine", &engines)
            .map_or(Engine::Auto, |engine| engine.value);
        let data_threads = top
            .count("data_threads", 1..=DATA_THREADS_MAX)
            .and_then(|count| usize::try_from(count).ok());
        let limits = top.table("limits").map_or_else(Limits::default, |(table, span)| {
            limits::read(&Section::new(table, span, "[limits]", &limits::KEYS, self.problems))
        });
        let tables = top.tables("resource");
        if top.key_span("resource").is_none() {
            top.missing("[[resource]]", "[[resource]] with a name and a [[resource.volume]]");
        }
        let resources = tables
            .into_iter()
            .filter_map(|(table, span)| self.resource(table, span, &tls))
            .collect();
        let config = Config {
            name: name?.value,
            admin,
            listeners,
            tls,
            engine,
            data_threads,
            limits,
            resources,
        };
        Some((config, self.files))
    }

    fn admin(&mut self, top: &Section<'_>) -> Option<PathBuf> {
        let path = top.path("admin")?;
        if let Err(why) = listen::check_unix_path(&path.value.to_string_lossy()) {
            self.problems.add(
                path.span.clone(),
                format!("`admin`: {why}"),
                "use a shorter path, such as /run/blockmirror/alpha.sock",
            );
        }
        self.listeners
            .claim(&Listen::Unix(path.value.clone()).to_string(), path.span.clone());
        self.files.socket(path.value.clone(), path.span);
        Some(path.value)
    }

    fn listeners(&mut self, top: &Section<'a>) -> (Vec<Listener>, Tls) {
        let section = top
            .table("tls")
            .map(|(table, span)| Section::new(table, span, "[tls]", &tls::KEYS, self.problems));
        let tls = section.as_ref().map_or_else(Tls::default, tls::read);
        if let Some(section) = &section {
            tls::note_files(section, &tls, &mut self.files);
        }
        let listeners = Listeners {
            unique: &mut self.listeners,
            files: &mut self.files,
            problems: self.problems,
            tls: &tls,
            sockets: self.sockets,
            client_ca: section.and_then(|section| section.key_span("client_ca")),
        };
        (listeners.read(top), tls)
    }

    fn resource(&mut self, table: &'a DeTable<'a>, span: Span, tls: &Tls) -> Option<Resource> {
        let section = Section::new(table, span, "a resource", &resource::KEYS, self.problems);
        let name = section.required_text("name", "name = \"db\"");
        if let Some(name) = &name {
            check_name("name", name, self.problems);
            self.resources.claim(&name.value, name.span.clone());
        }
        let mirror = section.boolean("mirror").unwrap_or(true);
        let hot_extents = section
            .count("hot_extents", HOT_EXTENTS_RANGE)
            .and_then(|count| u32::try_from(count).ok());
        let roles = resource::read(&section, mirror);
        if let Some(dir) = &roles.branch_dir {
            self.files.branch_dir(dir.value.clone(), dir.span.clone());
        }
        let volumes = self.volumes(&section, mirror);
        let peers = self.peers(&section, tls);
        self.cross_check(&volumes, &peers);
        Some(Resource {
            name: name?.value,
            mirror,
            hot_extents,
            role_after_restart: roles.role_after_restart,
            read_only_secondary: roles.read_only_secondary,
            split_brain: roles.split_brain,
            on_io_error: roles.on_io_error,
            resync_min: roles.resync_min,
            resync_max: roles.resync_max,
            verify: roles.verify,
            verify_repair: roles.verify_repair,
            branch_dir: roles.branch_dir.map(|dir| dir.value),
            branch_keep: roles.branch_keep,
            volumes: volumes.into_iter().map(|read| read.volume).collect(),
            peers: peers.into_iter().map(|read| read.peer).collect(),
        })
    }

    fn volumes(&mut self, section: &Section<'a>, mirror: bool) -> Vec<ReadVolume> {
        if section.key_span("volume").is_none() {
            section.missing("[[resource.volume]]", "[[resource.volume]] with an export and an image");
        }
        let tables = section.tables("volume");
        let read = |(table, span)| {
            let section = Section::new(table, span, "a volume", &volume::KEYS, self.problems);
            volume::read(&section, mirror)
        };
        let volumes: Vec<ReadVolume> = tables.into_iter().filter_map(read).collect();
        for read in &volumes {
            self.exports.claim(&read.volume.export, read.export_span.clone());
            if let ImageSource::Path(path) = &read.volume.image {
                self.paths.claim(&path.to_string_lossy(), read.image_span.clone());
            }
            if let Some(path) = &read.volume.metadata {
                self.paths.claim(&path.to_string_lossy(), read.metadata_span.clone());
            }
            self.files.volume(read);
        }
        volumes
    }

    fn peers(&mut self, section: &Section<'a>, tls: &Tls) -> Vec<ReadPeer> {
        let tables = section.tables("peer");
        if let Some((_, span)) = tables.get(PEERS_MAX) {
            self.problems.add(
                span.clone(),
                format!("a resource has at most {PEERS_MAX} peers"),
                "remove the others",
            );
        }
        let peers: Vec<ReadPeer> = tables
            .into_iter()
            .filter_map(|(table, span)| {
                let section = Section::new(table, span, "a peer", &peer::KEYS, self.problems);
                peer::read(&section, tls)
            })
            .collect();
        for read in &peers {
            if let Some(settings) = &read.peer.tls {
                tls::note_peer_files(settings, &read.uri_span, &mut self.files);
            }
        }
        peers
    }

    /// What volumes and peers of one resource mean to each other.
    fn cross_check(&mut self, volumes: &[ReadVolume], peers: &[ReadPeer]) {
        for (index, read) in peers.iter().enumerate() {
            let peer = &read.peer;
            if peers[..index].iter().any(|other| other.peer.name == peer.name) {
                self.problems.add(
                    read.name_span.clone(),
                    format!("the peer name \"{}\" is used twice in this resource", peer.name),
                    "give every peer of a resource a name of its own",
                );
            }
            if peer.uri.export.is_some() && volumes.len() > 1 {
                self.problems.add(
                    read.uri_span.clone(),
                    format!(
                        "the URI names one export, but the resource has {} volumes: they would overwrite each other",
                        volumes.len()
                    ),
                    "leave the export out of the URI: each volume then uses its own export name on the peer",
                );
                continue;
            }
            for volume in volumes {
                let export = peer.export_for(&volume.volume.export);
                let leg = format!("{:?} {export}", peer.uri.address);
                self.remote_legs.claim(&leg, read.uri_span.clone());
            }
        }
        if peers.is_empty() {
            return;
        }
        for read in volumes {
            if read.volume.image == ImageSource::Memory {
                self.problems.add(
                    read.image_span.clone(),
                    "a volume in memory cannot have peers: after a restart nothing would say what the peer misses",
                    "name a file, or put the volume into a resource without peers",
                );
            }
            if read.volume.read_only {
                self.problems.add(
                    read.export_span.clone(),
                    "a read-only volume cannot have peers: it has no writes to replicate",
                    "remove read_only, or put the volume into a resource without peers",
                );
            }
        }
    }
}
