//! A configuration in plain words, for `--check`.

use std::fmt::{self, Write as _};

use super::value::show_size;
use super::{Config, Engine, ImageSource, Io, Mode, OnDisconnect, Peer, Resource, Volume};

/// The whole text, ending with a newline.
pub(super) fn explain(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_config(&mut text, config);
    text
}

fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(out, "Node \"{}\".", config.name)?;
    match &config.admin {
        Some(path) => writeln!(out, "Admin socket: {}.", path.display())?,
        None => writeln!(out, "No admin socket: `blockmirror status` and its kin will not work.")?,
    }
    for listen in &config.listen {
        writeln!(out, "NBD clients connect to {listen}.")?;
    }
    let engine = match config.engine {
        Engine::Auto => "io_uring where the kernel allows it, a thread pool where not",
        Engine::Uring => "io_uring; without it the daemon does not start",
        Engine::Threads => "a thread pool",
    };
    writeln!(out, "I/O: {engine}.")?;
    let limits = &config.limits;
    writeln!(
        out,
        "At most {} client connections, {} per export; per volume at most {} requests and {} in flight.",
        limits.max_connections,
        limits.max_connections_per_export,
        limits.requests_in_flight,
        show_size(limits.bytes_in_flight)
    )?;
    for resource in &config.resources {
        write_resource(out, resource)?;
    }
    Ok(())
}

fn write_resource(out: &mut String, resource: &Resource) -> fmt::Result {
    writeln!(out)?;
    let how = match (resource.mirror, resource.peers.len()) {
        (false, _) => "served plain, mirrored nowhere".to_owned(),
        (true, 0) => "ready to be mirrored, no peer yet".to_owned(),
        (true, 1) => "mirrored to 1 peer".to_owned(),
        (true, count) => format!("mirrored to {count} peers"),
    };
    writeln!(out, "Resource \"{}\": {how}.", resource.name)?;
    for volume in &resource.volumes {
        write_volume(out, volume)?;
        for peer in &resource.peers {
            write_peer(out, peer, volume)?;
        }
    }
    Ok(())
}

fn write_volume(out: &mut String, volume: &Volume) -> fmt::Result {
    let access = if volume.read_only { ", read-only" } else { "" };
    let size = match volume.size {
        Some(size) => format!(" of {}", show_size(size)),
        None => String::new(),
    };
    match &volume.image {
        ImageSource::Memory => writeln!(
            out,
            "  Export \"{}\"{size} in memory{access}: its data is gone when the daemon ends.",
            volume.export
        )?,
        ImageSource::Path(path) => {
            let io = match volume.io {
                Io::Buffered => "through the page cache",
                Io::Direct => "with direct I/O",
            };
            let creation = match (volume.size, volume.preallocate) {
                (None, _) => "",
                (Some(_), false) => ", created sparse when absent",
                (Some(_), true) => ", created fully allocated when absent",
            };
            let (export, path) = (&volume.export, path.display());
            writeln!(out, "  Export \"{export}\"{size} from {path} {io}{access}{creation}.")?;
        }
    }
    match &volume.metadata {
        Some(path) => writeln!(out, "    Metadata: {}.", path.display()),
        None => Ok(()),
    }
}

fn write_peer(out: &mut String, peer: &Peer, volume: &Volume) -> fmt::Result {
    let mode = match peer.mode {
        Mode::Sync => "a write is answered when it is applied here and there".to_owned(),
        Mode::Async => format!(
            "a write is answered when it is applied here; at most {} wait for the peer",
            show_size(peer.queue)
        ),
    };
    let gone = match peer.on_disconnect {
        OnDisconnect::Continue => "writes go on, and what it misses is copied when it is back",
        OnDisconnect::Suspend => "writes wait until it is back",
        OnDisconnect::Fail => "writes fail until it is back",
    };
    let export = peer.export_for(&volume.export);
    writeln!(
        out,
        "    Peer \"{}\" at {}, export \"{export}\": {mode}. While it is gone {gone}.",
        peer.name, peer.uri
    )?;
    if peer.skip_initial_sync {
        writeln!(
            out,
            "      When the metadata is made, it is taken to be equal and nothing is copied: remove skip_initial_sync then."
        )?;
    }
    Ok(())
}
