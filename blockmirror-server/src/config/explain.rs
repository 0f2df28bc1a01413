//! A configuration in plain words, for `--check`.

use std::fmt::{self, Write as _};

use super::access::show_who;
use super::value::{show_duration, show_size};
use super::{
    AccessRule, BranchKeep, ClientCertificates, Config, Engine, ImageSource, Io, KernelTls, Listener, Mode,
    OnDisconnect, OnIoError, Peer, Permit, Protocol, Resource, RoleAfterRestart, SplitBrain, Tls, TlsMode,
    VerifySchedule, Volume,
};

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
    for listener in &config.listeners {
        write_listener(out, listener)?;
    }
    write_tls(out, &config.tls)?;
    let engine = match config.engine {
        Engine::Auto => "io_uring where the kernel allows it, a thread pool where not",
        Engine::Uring => "io_uring; without it the daemon does not start",
        Engine::Threads => "a thread pool",
    };
    writeln!(out, "I/O: {engine}.")?;
    let limits = &config.limits;
    writeln!(
        out,
        "At most {} client connections, {} per export, {} per client with {} handshakes per second; per volume at most {} requests and {} in flight.",
        limits.max_connections,
        limits.max_connections_per_export,
        limits.max_connections_per_client,
        limits.handshakes_per_second,
        limits.requests_in_flight,
        show_size(limits.bytes_in_flight)
    )?;
    for resource in &config.resources {
        write_resource(out, resource)?;
    }
    Ok(())
}

fn write_listener(out: &mut String, listener: &Listener) -> fmt::Result {
    let tls = match listener.tls {
        TlsMode::Off if listener.trusted_network => "without TLS, on a network that is trusted",
        TlsMode::Off => "without TLS",
        TlsMode::Allow => "with TLS if they ask for it",
        TlsMode::Require => "with TLS, or not at all",
    };
    let certificates = match listener.client_certificates {
        ClientCertificates::Ignore if listener.tls == TlsMode::Off => "",
        ClientCertificates::Ignore => "; they are not asked who they are",
        ClientCertificates::Allow => "; a certificate they show is verified, and they may have none",
        ClientCertificates::Require => "; each needs a certificate signed by client_ca",
    };
    writeln!(out, "NBD clients connect to {} {tls}{certificates}.", listener.address)
}

fn write_tls(out: &mut String, tls: &Tls) -> fmt::Result {
    if let Some(identity) = &tls.identity {
        writeln!(out, "Certificate of this node: {}.", identity.certificate.display())?;
    }
    if let Some(ca) = &tls.client_ca {
        writeln!(out, "Clients are verified by {}.", ca.display())?;
    }
    match tls.kernel {
        KernelTls::Off => writeln!(out, "TLS records: in user space."),
        KernelTls::Auto if *tls == Tls::default() => Ok(()),
        KernelTls::Auto => writeln!(out, "TLS records: in the kernel where it can, in user space where not."),
    }
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
    // Without a partner there is no role, and nobody to disagree with.
    if resource.peers.iter().any(|peer| peer.protocol != Protocol::Nbd) {
        write_role(out, resource)?;
    }
    if !resource.peers.is_empty() {
        write_care(out, resource)?;
    }
    for volume in &resource.volumes {
        write_volume(out, volume)?;
        for peer in &resource.peers {
            write_peer(out, peer, volume)?;
        }
    }
    Ok(())
}

fn write_role(out: &mut String, resource: &Resource) -> fmt::Result {
    let restart = match resource.role_after_restart {
        RoleAfterRestart::Resume => {
            "it is Primary again if it was, once every partner is connected and none has newer data"
        }
        RoleAfterRestart::Secondary => "it is Secondary until somebody promotes it",
    };
    let hosts = if resource.read_only_secondary {
        "hosts may read"
    } else {
        "hosts are sent to the Primary"
    };
    writeln!(out, "  After a restart {restart}. While it is Secondary {hosts}.")?;
    let split = match resource.split_brain {
        SplitBrain::Manual => "an operator decides whose data is given up",
        SplitBrain::DiscardYounger => {
            "the data of the node that became Primary later is given up, if it is not Primary now"
        }
        SplitBrain::DiscardLeastChanges => {
            "the data of the node that changed less is given up, if it is not Primary now"
        }
        SplitBrain::DiscardZeroChanges => {
            "a node that changed nothing takes the other's data; when both changed something, an operator decides"
        }
    };
    let place = match &resource.branch_dir {
        Some(dir) => format!("in {}", dir.display()),
        None => "beside the image".to_owned(),
    };
    let keep = match resource.branch_keep {
        BranchKeep::Forever => "until it is removed".to_owned(),
        BranchKeep::For(time) => format!("for {}", show_duration(time)),
    };
    writeln!(
        out,
        "  After a split brain {split}; what is overwritten is saved {place} first, and kept {keep}."
    )
}

fn write_care(out: &mut String, resource: &Resource) -> fmt::Result {
    let errors = match resource.on_io_error {
        OnIoError::Detach => "gives the image up where a peer that has everything can serve in its place",
        OnIoError::Pass => "goes to the host",
    };
    let cap = match resource.resync_max {
        Some(cap) => format!("at most {}/s", show_size(cap)),
        None => "as fast as it can".to_owned(),
    };
    let verify = match (resource.verify, resource.verify_repair) {
        (VerifySchedule::Never, _) => "only when asked".to_owned(),
        (VerifySchedule::Every(time), false) => format!("every {}", show_duration(time)),
        (VerifySchedule::Every(time), true) => format!("every {}, and what differs is copied", show_duration(time)),
    };
    writeln!(
        out,
        "  An I/O error of an image {errors}. Resync goes {cap}, and makes way for hosts down to {}/s. The legs are \
         compared {verify}.",
        show_size(resource.resync_min)
    )
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
    write_access(out, &volume.access)?;
    match &volume.metadata {
        Some(path) => writeln!(out, "    Metadata: {}.", path.display()),
        None => Ok(()),
    }
}

fn write_access(out: &mut String, rules: &[AccessRule]) -> fmt::Result {
    if rules.is_empty() {
        return writeln!(out, "    Clients of this machine may open it, others do not see it.");
    }
    for rule in rules {
        let what = match rule.permit {
            Permit::Nothing => "do not see it",
            Permit::ReadOnly => "may read it",
            Permit::ReadWrite => "may read and change it",
        };
        writeln!(out, "    Clients {what}: {}.", show_who(&rule.from))?;
    }
    writeln!(out, "    The first line about a client counts; others do not see it.")
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
    let spoken = match peer.protocol {
        Protocol::Auto => format!("as a partner, or as export \"{export}\" of a plain NBD server"),
        Protocol::Nbd => format!("as export \"{export}\" of a plain NBD server"),
        Protocol::Blockmirror => "as a partner".to_owned(),
    };
    writeln!(
        out,
        "    Peer \"{}\" at {}, {spoken}: {mode}. While it is gone {gone}.",
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
