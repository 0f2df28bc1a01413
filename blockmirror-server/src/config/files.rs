//! Looking at the files a configuration names, before anything is opened.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use blockmirror_client::tls::check_ca;
use rustix::fs::{Access, access};

use super::problem::{ConfigError, Problems, Span};
use super::value::show_size;
use super::volume::{ReadVolume, SECTOR};
use super::{Identity, ImageSource, Resource, Volume};

/// The files a configuration speaks of, with the places where it does.
#[derive(Default)]
pub(super) struct Files {
    sockets: Vec<(PathBuf, Span)>,
    branch_dirs: Vec<(PathBuf, Span)>,
    volumes: Vec<NamedFiles>,
    identities: Vec<(Identity, Span)>,
    authorities: Vec<(PathBuf, Span)>,
}

struct NamedFiles {
    volume: Volume,
    image_span: Span,
    metadata_span: Span,
}

impl Files {
    /// A Unix socket that will be made.
    pub(super) fn socket(&mut self, path: PathBuf, span: Span) {
        self.sockets.push((path, span));
    }

    /// A directory in which branches will be made.
    pub(super) fn branch_dir(&mut self, path: PathBuf, span: Span) {
        self.branch_dirs.push((path, span));
    }

    /// A certificate that will be shown; looked at once, wherever it is named.
    pub(super) fn identity(&mut self, identity: &Identity, span: Span) {
        if self.identities.iter().all(|(known, _)| known != identity) {
            self.identities.push((identity.clone(), span));
        }
    }

    /// A CA that will be trusted; looked at once.
    pub(super) fn authority(&mut self, path: &Path, span: Span) {
        if self.authorities.iter().all(|(known, _)| known != path) {
            self.authorities.push((path.to_owned(), span));
        }
    }

    /// A volume that will be opened.
    pub(super) fn volume(&mut self, read: &ReadVolume) {
        self.volumes.push(NamedFiles {
            volume: read.volume.clone(),
            image_span: read.image_span.clone(),
            metadata_span: read.metadata_span.clone(),
        });
    }

    /// Look at all of them.
    pub(super) fn check(&self, text: &str, file: &str) -> Result<(), ConfigError> {
        let problems = Problems::default();
        for (path, span) in &self.sockets {
            check_parent(path, "the socket", span, &problems);
            if let Ok(found) = fs::symlink_metadata(path)
                && !found.file_type().is_socket()
            {
                problems.add(
                    span.clone(),
                    format!("{} exists and is not a socket", path.display()),
                    "choose another path, or move that file away",
                );
            }
        }
        for (path, span) in &self.branch_dirs {
            check_dir(path, "for branches", span, &problems);
        }
        let identities = self.identities.iter().map(|(identity, span)| (identity.check(), span));
        let authorities = self.authorities.iter().map(|(path, span)| (check_ca(path), span));
        for (checked, span) in identities.chain(authorities) {
            if let Err(found) = checked {
                let message = format!("{}: {}", found.path.display(), found.problem);
                problems.add(span.clone(), message, found.remedy);
            }
        }
        for named in &self.volumes {
            if let ImageSource::Path(path) = &named.volume.image {
                check_image(named, path, &problems);
            }
        }
        problems.into_result(text, file)
    }
}

fn check_image(named: &NamedFiles, path: &Path, problems: &Problems) {
    let span = &named.image_span;
    match fs::metadata(path) {
        Ok(found) if found.is_file() => check_regular(named, path, found.len(), problems),
        Ok(found) if found.file_type().is_block_device() => check_device(named, path, problems),
        Ok(_) => problems.add(
            span.clone(),
            format!("{} is neither a regular file nor a block device", path.display()),
            "name an image file or a block device",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            check_parent(path, "the image", span, problems);
            let mirrored = named.volume.metadata.as_ref().is_some_and(|metadata| metadata.exists());
            // Of a volume that was mirrored already the start decides: a partner may serve in its place.
            if !mirrored && (named.volume.size.is_none() || named.volume.read_only) {
                problems.add(
                    span.clone(),
                    format!("the image {} does not exist", path.display()),
                    if named.volume.read_only {
                        "make it first, or remove read_only"
                    } else {
                        "check the path; or add size = \"10GiB\" to have it created"
                    },
                );
            }
        }
        Err(error) => problems.add(
            span.clone(),
            format!("the image {} cannot be looked at: {error}", path.display()),
            "check the permissions of its directories",
        ),
    }
    match &named.volume.metadata {
        Some(metadata) => check_metadata(metadata, &named.metadata_span, problems),
        None if !named.volume.read_only => check_never_mirrored(named, path, problems),
        None => {}
    }
}

/// Changes made without the mirror are in no bitmap: the metadata of an earlier time, used again, would call peers up to
/// date that are not.
fn check_never_mirrored(named: &NamedFiles, image: &Path, problems: &Problems) {
    let metadata = Resource::default_metadata(image);
    if metadata.exists() {
        problems.add(
            named.image_span.clone(),
            format!(
                "the image {} has been mirrored: its metadata file {} would not know what is changed with mirror = false",
                image.display(),
                metadata.display()
            ),
            "remove mirror = false; or move the metadata file away, and no peer may have skip_initial_sync when the image is \
             mirrored again: every one has to be copied in full",
        );
    }
}

fn check_regular(named: &NamedFiles, path: &Path, found: u64, problems: &Problems) {
    // `blockmirror resize` may have changed it: its metadata file knows, and refuses what is not it.
    let may_differ = named.volume.metadata.as_ref().is_some_and(|metadata| metadata.exists());
    if let Some(wanted) = named.volume.size
        && wanted != found
        && !(may_differ && found > 0)
    {
        problems.add(
            named.image_span.clone(),
            format!(
                "the image {} has {found} bytes ({}), `size` says {wanted} ({})",
                path.display(),
                show_size(found),
                show_size(wanted)
            ),
            format!(
                "remove `size` to serve the image as it is, or correct one of the two; a volume that is served gets another \
                 size by `blockmirror resize {} {wanted}`",
                named.volume.export
            ),
        );
    }
    if found == 0 && named.volume.size.is_none() {
        problems.add(
            named.image_span.clone(),
            format!("the image {} is empty", path.display()),
            "remove the file and add size = \"10GiB\" to have it created",
        );
    }
    if !found.is_multiple_of(SECTOR) {
        problems.add(
            named.image_span.clone(),
            format!(
                "the image {} has {found} bytes, not a multiple of {SECTOR}: no device has half a sector",
                path.display()
            ),
            format!(
                "make it larger: truncate --size={} {}",
                found.next_multiple_of(SECTOR),
                path.display()
            ),
        );
    }
    check_access(named, path, problems);
}

fn check_device(named: &NamedFiles, path: &Path, problems: &Problems) {
    check_access(named, path, problems);
    // A defaulted path has no place of its own in the text.
    if named.volume.metadata.is_some() && named.metadata_span == named.image_span {
        problems.add(
            named.image_span.clone(),
            format!(
                "the block device {} needs a `metadata` file: none can be made beside it",
                path.display()
            ),
            "add: metadata = \"/var/lib/blockmirror/NAME.blockmirror\"",
        );
    }
}

fn check_access(named: &NamedFiles, path: &Path, problems: &Problems) {
    let mut wanted = Access::READ_OK;
    if !named.volume.read_only {
        wanted |= Access::WRITE_OK;
    }
    if let Err(error) = access(path, wanted) {
        problems.add(
            named.image_span.clone(),
            format!(
                "the image {} cannot be opened for {}: {error}",
                path.display(),
                if named.volume.read_only {
                    "reading"
                } else {
                    "reading and writing"
                }
            ),
            "change its owner or mode, or set read_only = true if nothing shall be written",
        );
    }
}

fn check_metadata(path: &Path, span: &Span, problems: &Problems) {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => problems.add(
            span.clone(),
            format!("the metadata {} is not a regular file", path.display()),
            "choose another path with `metadata`",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            check_parent(path, "the metadata file", span, problems);
        }
        Err(error) => problems.add(
            span.clone(),
            format!("the metadata file {} cannot be looked at: {error}", path.display()),
            "check the permissions of its directories",
        ),
    }
}

fn check_parent(path: &Path, what: &str, span: &Span, problems: &Problems) {
    let Some(parent) = path.parent() else {
        return;
    };
    check_dir(parent, &format!("of {what}"), span, problems);
}

fn check_dir(dir: &Path, what: &str, span: &Span, problems: &Problems) {
    let message = match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return,
        Ok(_) => format!("the directory {what}, {}, is not a directory", dir.display()),
        Err(error) => format!("the directory {what}, {}, cannot be used: {error}", dir.display()),
    };
    problems.add(span.clone(), message, format!("make it: mkdir -p {}", dir.display()));
}
