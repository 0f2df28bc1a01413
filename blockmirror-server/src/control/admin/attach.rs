//! Taking the image of a volume again.

use std::path::Path;

use mirror_core::metadata::ImageIdentity;
use mirror_core::state::LocalDisk;

use super::{Admin, Refused, ask};
use crate::config::{ImageSource, Volume};
use crate::control::open::{self, StartError};
use crate::control::roster::VolumeView;
use crate::data::{ATTACHING, ResourceOrder};
use crate::image::{Image, OpenError};
use crate::metadata_file::image_identity;

/// Open the image, and hand it over.
pub(super) async fn attach(admin: &Admin, name: &str, replaced: bool) -> Result<(), Refused> {
    let look = |view: VolumeView<'_>| (view.resource.place, view.served.clone(), view.config.clone());
    let (place, served, volume) = admin.volume(name, look)?;
    // Opening it would wait for a lock that this daemon holds itself.
    let there = ask::snapshots(admin, place.thread).await?.volumes;
    let there = there.get(served.place.volume);
    if there.is_some_and(|volume| volume.attaching) {
        return Err(Refused::conflict(format!("volume \"{name}\": {ATTACHING}")));
    }
    if there.is_none_or(|volume| volume.disk != Some(LocalDisk::Diskless)) {
        return Err(Refused::conflict(format!(
            "volume \"{name}\" has its image: detach it first"
        )));
    }
    let known = served.identity;
    let opening = tokio::task::spawn_blocking(move || open_again(&volume, known, replaced));
    let (image, identity) = opening
        .await
        .map_err(|error| Refused::conflict(format!("opening the image broke off: {error}")))?
        .map_err(Refused::conflict)?;
    let order = ResourceOrder::Attach {
        volume: served.number,
        image: Box::new(image),
        identity,
        replaced,
    };
    ask::order(admin, place, order).await?;
    let mut present = admin.roster.change();
    let volumes = present.resources.iter_mut().flat_map(|served| &mut served.volumes);
    for volume in volumes.filter(|volume| volume.place == served.place) {
        volume.identity = Some(identity);
    }
    Ok(())
}

/// What to do about an image that is not there.
fn missing(path: &Path, export: &str, has_size: bool) -> String {
    let size = if has_size {
        ""
    } else {
        "give the volume its `size` in the configuration, restart, and "
    };
    format!(
        "volume \"{export}\": its image {} is not there: bring it back (is its disk mounted?) and attach it again; if it is lost, \
         {size}`blockmirror attach --replaced {export}` makes an empty one, and everything is copied to it",
        path.display()
    )
}

fn open_again(volume: &Volume, known: Option<ImageIdentity>, replaced: bool) -> Result<(Image, ImageIdentity), String> {
    let ImageSource::Path(path) = &volume.image else {
        return Err(format!(
            "volume \"{}\" is in memory: it is never detached",
            volume.export
        ));
    };
    let mut wanted = volume.clone();
    if !replaced {
        // Only a replaced image may be made anew.
        wanted.size = None;
    }
    let image = open::image(&wanted).map_err(|error| match error {
        StartError::Image {
            error: OpenError::Missing { path },
            export,
        } => missing(&path, &export, volume.size.is_some()),
        error => error.to_string(),
    })?;
    let found = image_identity(path, image.size())
        .map_err(|error| format!("the image {} cannot be identified: {error}", path.display()))?;
    let same = |known: ImageIdentity| {
        ImageIdentity {
            size: found.size,
            ..known
        } == found
    };
    if !replaced && !known.is_none_or(same) {
        return Err(format!(
            "{} is another image than the one that was served: if nothing in it counts, `blockmirror attach --replaced \
             {}` has everything copied to it",
            path.display(),
            volume.export
        ));
    }
    Ok((image, found))
}
