//! A device whose server runs on the machine that uses it.
//!
//! The kernel writes dirty memory out to the device in order to get free memory. If the server needs memory for that, the kernel
//! may wait for the very write that waits for it: the machine stands still. A server is safe from this when it writes
//! past the page cache, or has told the kernel that it is what memory is written out by (`PR_SET_IO_FLUSHER`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockmirror_client::admin::{AdminClient, StatusReport};
use blockmirror_client::uri::{Address, NbdUri, UriList};
use raid1_glue::nbd::sysfs::{Standing, System};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::human::clean;
use crate::socket;

/// For a daemon's answer, and for the address of a name.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a daemon says of a volume.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    io_flusher: bool,
    is_direct: bool,
    /// `None`: it is in memory.
    image: Option<PathBuf>,
}

/// Why a device may come to wait for itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Danger {
    /// Nobody says that he is its server: it may not have been started yet.
    Unknown(String),
    /// As its server says.
    Certain(String),
}

impl From<Danger> for Failure {
    fn from(danger: Danger) -> Self {
        let (Danger::Unknown(text) | Danger::Certain(text)) = danger;
        Self::Failed(text)
    }
}

/// Whether a device of `uris` may come to wait for itself. `admin` is the socket of a daemon that may be its server, beside
/// those that are where they usually are.
pub async fn check(uris: &UriList, admin: Option<&Path>) -> Result<(), Danger> {
    let mut here = Vec::new();
    for uri in uris.as_slice() {
        if is_here(&uri.address).await {
            here.push(uri);
        }
    }
    if here.is_empty() {
        return Ok(());
    }
    let reports = reports(admin).await;
    for uri in here {
        let told = reports.iter().find_map(|report| told(report, uri));
        judge(uri, told.as_ref())?;
        let Some(Told { image: Some(image), .. }) = told else {
            continue;
        };
        if let Some(device) = lies_on_own(&System::here(), &image).await {
            return Err(Danger::Certain(format!(
                "the image {} lies on {device}, which this machine serves itself: both would wait for each other; put the image \
                 elsewhere, or accept it with --allow-loop",
                image.display()
            )));
        }
    }
    Ok(())
}

fn judge(uri: &NbdUri, told: Option<&Told>) -> Result<(), Danger> {
    let why = match told {
        Some(told) if told.io_flusher || told.is_direct || told.image.is_none() => return Ok(()),
        Some(_) => {
            "its image is written through the page cache, and it may not tell the kernel that memory is written out by it \
             (CAP_SYS_RESOURCE). Start the daemon as root or with that capability, or give the volume `io = \"direct\"`"
        }
        None => {
            "no daemon in /run/blockmirror says that it is its server (--admin names another socket). Should it be another \
             program, let it write past the page cache"
        }
    };
    let text = format!(
        "{uri} is served by this machine. When memory runs short the kernel writes to the device, waits for the server, and the \
         server waits for memory: everything may stand still. Here {why}; --allow-loop accepts the danger"
    );
    Err(match told {
        Some(_) => Danger::Certain(text),
        None => Danger::Unknown(text),
    })
}

/// Whether an address is one of this machine.
async fn is_here(address: &Address) -> bool {
    match address {
        Address::Unix(_) => true,
        // Only an address of its own can be bound.
        Address::Tcp { host, .. } => matches!(timeout(PATIENCE, UdpSocket::bind((host.as_str(), 0))).await, Ok(Ok(_))),
    }
}

/// What the daemons of this machine say.
async fn reports(admin: Option<&Path>) -> Vec<StatusReport> {
    let mut sockets = socket::all();
    sockets.extend(admin.map(Path::to_owned));
    let mut reports = Vec::new();
    for socket in sockets {
        if let Ok(Ok(report)) = timeout(PATIENCE, AdminClient::new(socket).status()).await {
            reports.push(report);
        }
    }
    reports
}

/// What the daemon of `report` says of the volume behind `uri`; `None`: it is not its server.
fn told(report: &StatusReport, uri: &NbdUri) -> Option<Told> {
    let mut listens = report.uris.iter().flat_map(|uri| uri.parse::<NbdUri>());
    listens.find(|listens| is_same(&listens.address, &uri.address))?;
    let export = uri.export.as_deref().unwrap_or_default();
    let mut volumes = report.resources.iter().flat_map(|resource| &resource.volumes);
    let volume = volumes.find(|volume| volume.export == export || export.is_empty())?;
    Some(Told {
        io_flusher: report.io_flusher,
        is_direct: volume.io == "direct",
        image: (volume.image != "memory:").then(|| PathBuf::from(&volume.image)),
    })
}

/// Of two addresses of this machine: whoever has the port has it on all of them, as a rule.
fn is_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp { port: one, .. }, Address::Tcp { port: other, .. }) => one == other,
        (one, other) => one == other,
    }
}

/// The device below `image` that this machine serves itself.
async fn lies_on_own(system: &System, image: &Path) -> Option<String> {
    for index in system.nbd_below(image).ok()? {
        let Standing::Attached(Some(backend)) = system.standing(index) else {
            continue;
        };
        let Ok(uris) = backend.parse::<UriList>() else {
            continue;
        };
        for uri in uris.as_slice() {
            if is_here(&uri.address).await {
                return Some(clean(&index.to_string()).into_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use blockmirror_client::admin::{ResourceStatus, VolumeStatus};

    use super::*;

    fn report(io: &str, image: &str) -> StatusReport {
        let volume = VolumeStatus {
            export: "db".to_owned(),
            image: image.to_owned(),
            io: io.to_owned(),
            ..VolumeStatus::default()
        };
        StatusReport {
            name: "alpha".to_owned(),
            version: String::new(),
            engine: String::new(),
            tls: None,
            io_flusher: false,
            uris: vec![
                "nbd+unix:///?socket=/run/b.sock".to_owned(),
                "nbd://0.0.0.0:10810".to_owned(),
            ],
            uptime_seconds: 1.0,
            resources: vec![ResourceStatus {
                volumes: vec![volume],
                ..ResourceStatus::default()
            }],
        }
    }

    #[test]
    fn a_server_here_has_to_be_safe_from_waiting_for_itself() {
        let uri: NbdUri = "nbd+unix:///db?socket=/run/b.sock".parse().unwrap();
        let flusher = StatusReport {
            io_flusher: true,
            ..report("buffered", "/i/db")
        };
        for safe in [flusher, report("direct", "/i/db"), report("buffered", "memory:")] {
            judge(&uri, told(&safe, &uri).as_ref()).unwrap();
        }
        let Danger::Certain(refused) = judge(&uri, told(&report("buffered", "/i/db"), &uri).as_ref()).unwrap_err()
        else {
            panic!("its server is known");
        };
        assert!(
            refused.contains("io = \"direct\"") && refused.contains("--allow-loop"),
            "{refused}"
        );
        let Danger::Unknown(refused) = judge(&uri, None).unwrap_err() else {
            panic!("nobody is its server");
        };
        assert!(
            refused.contains("another program") && refused.contains("--allow-loop"),
            "{refused}"
        );
    }

    #[test]
    fn the_daemon_of_a_uri_is_found_by_where_it_listens() {
        let report = report("buffered", "/i/db");
        let found = |uri: &str| told(&report, &uri.parse().unwrap()).is_some();
        assert!(found("nbd+unix:///db?socket=/run/b.sock") && found("nbd://127.0.0.1:10810/db"));
        assert!(!found("nbd+unix:///db?socket=/run/c.sock") && !found("nbd://127.0.0.1:10809/db"));
        assert!(!found("nbd://127.0.0.1:10810/other"));
    }

    #[tokio::test]
    async fn addresses_of_this_machine() {
        let here = |uri: &str| {
            let uri: NbdUri = uri.parse().unwrap();
            async move { is_here(&uri.address).await }
        };
        assert!(here("nbd+unix:///db?socket=/run/b.sock").await && here("nbd://127.0.0.1/db").await);
        // For documentation (RFC 5737): nobody has it.
        assert!(!here("nbd://192.0.2.1/db").await);
    }
}
