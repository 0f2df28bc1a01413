//! Our daemon in guests.

use std::time::Duration;

use anyhow::Result;

use crate::guest::Guest;

/// For what takes a moment.
pub const PATIENT: Duration = Duration::from_secs(60);

/// Serves an image or a disk of the guest to everybody, as export `name`, at port 10809, without a mirror; `more` are further
/// arguments. Its log is `/tmp/NAME.log`. Once it was stopped or killed it can be started again by the same words.
pub fn serve(guest: &Guest, image: &str, name: &str, more: &str) -> Result<()> {
    guest.run(&format!(
        "setsid blockmirror-server serve {image} --export {name} --tcp 0.0.0.0:10809 --trusted-network {more} \
         >>/tmp/{name}.log 2>&1 </dev/null &"
    ))?;
    let info = format!("nbdinfo --size nbd://localhost/{name}");
    guest.until("the daemon answers", PATIENT, &info)
}

/// Serves a new image of `size` as export `db` to everybody, by a configuration, so that it can be asked to grow.
pub fn plain(guest: &Guest, image: &str, size: &str) -> Result<()> {
    guest.run("mkdir -p /etc/blockmirror /run/blockmirror")?;
    let text = format!(
        r#"name  = "{}"
admin = "/run/blockmirror/node.sock"
[[listener]]
address   = "tcp:0.0.0.0:10809"
plaintext = "the network is trusted"
[[resource]]
name = "db"
[[resource.volume]]
export = "db"
image  = "{image}"
size   = "{size}"
[[resource.volume.access]]
from   = ["loopback", "10.0.0.0/24"]
permit = "read-write"
"#,
        guest.machine().name
    );
    configure(guest, &text)?;
    start(guest)
}

/// The image of [`partners`].
pub const IMAGE: &str = "/var/lib/blockmirror/db.img";

/// What a daemon has to find again after a reboot is on the disk `home`, which is made when it is new.
pub fn home(guest: &Guest) -> Result<()> {
    guest.run(
        "disk=/dev/disk/by-id/virtio-home; mkdir -p /var/lib/blockmirror /run/blockmirror
        blkid $disk >/dev/null || mkfs.ext4 -q $disk
        mount $disk /var/lib/blockmirror
        mkdir -p /var/lib/blockmirror/etc; ln -s /var/lib/blockmirror/etc /etc/blockmirror",
    )?;
    Ok(())
}

/// Two nodes of resource `db`, with volume and export `db` of `size`: partners in step, `alpha` Primary. Both guests need a disk
/// `home`. `peer` are more lines of `[[resource.peer]]`, `resource` of `[[resource]]`.
pub fn partners(alpha: &Guest, bravo: &Guest, size: &str, peer: &str, resource: &str) -> Result<()> {
    let volume = |_: &Guest| format!("image = \"{IMAGE}\"\nsize = \"{size}\"");
    partners_with(alpha, bravo, volume, peer, resource)
}

/// The same with other lines for image and size of `[[resource.volume]]`.
pub fn partners_with(
    alpha: &Guest,
    bravo: &Guest,
    volume: impl Fn(&Guest) -> String,
    peer: &str,
    resource: &str,
) -> Result<()> {
    for (guest, other, address) in [(alpha, "bravo", "10.0.0.2"), (bravo, "alpha", "10.0.0.1")] {
        let name = guest.machine().name;
        home(guest)?;
        let text = format!(
            r#"name   = "{name}"
admin  = "/run/blockmirror/{name}.sock"
listen = ["unix:/run/blockmirror/{name}-nbd.sock"]
[[listener]]
address   = "tcp:0.0.0.0:10809"
plaintext = "the network is trusted"
[[resource]]
name = "db"
{resource}
[[resource.volume]]
export = "db"
{}
[[resource.volume.access]]
from   = ["unix", "loopback", "10.0.0.0/24"]
permit = "read-write"
[[resource.peer]]
name     = "{other}"
uri      = "nbd://{address}:10809"
protocol = "blockmirror"
{peer}
"#,
            volume(guest)
        );
        configure(guest, &text)?;
        start(guest)?;
    }
    alpha.run("blockmirror promote --force db")?;
    in_step(alpha, other(alpha))
}

/// Writes the configuration of the guest's daemon.
pub fn configure(guest: &Guest, text: &str) -> Result<()> {
    guest.run(&format!(
        "cat >/etc/blockmirror/blockmirror.toml <<'END'
{text}
END
sync"
    ))?;
    Ok(())
}

/// Starts the daemon of that configuration, and waits until it answers. Its log is `/tmp/daemon.log`.
pub fn start(guest: &Guest) -> Result<()> {
    guest.run(
        "setsid blockmirror-server --config /etc/blockmirror/blockmirror.toml >>/tmp/daemon.log 2>&1 </dev/null &",
    )?;
    guest.until("the daemon answers", PATIENT, "blockmirror status")
}

/// `TERM`: in order, and waits for the end; `KILL`: at once.
pub fn stop(guest: &Guest, signal: &str) -> Result<()> {
    guest.run(&format!("pkill -{signal} -x blockmirror-ser"))?;
    guest.until("the daemon has ended", PATIENT, "! pgrep -x blockmirror-ser")
}

/// Waits until `peer` has everything, as `guest` sees it.
pub fn in_step(guest: &Guest, peer: &str) -> Result<()> {
    let script = format!(
        "blockmirror status | grep -E '{peer} .*UpToDate' && ! blockmirror status | grep -E 'SyncSource|SyncTarget'"
    );
    guest.until("the peer is in step", PATIENT, &script)
}

/// The other one of a pair.
pub fn other(guest: &Guest) -> &'static str {
    if guest.machine().name == "alpha" {
        "bravo"
    } else {
        "alpha"
    }
}
