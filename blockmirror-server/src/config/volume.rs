//! Reading `[[resource.volume]]`.

use mirror_core::config::VOLUME_BYTES_MAX;

use super::access::read_rules;
use super::problem::Span;
use super::section::{Located, Section};
use super::value::show_size;
use super::{ImageSource, Io, Resource, Volume};

/// Keys of a volume.
pub(super) const KEYS: [&str; 10] = [
    "export",
    "description",
    "image",
    "size",
    "preallocate",
    "io",
    "read_only",
    "minimum_block",
    "metadata",
    "access",
];

/// A device has whole sectors.
pub(super) const SECTOR: u64 = 512;
/// Largest offset a Linux file can have, down to a whole sector.
const SIZE_MAX: u64 = i64::MAX as u64 / SECTOR * SECTOR;
/// O_DIRECT moves whole pages.
const DIRECT_UNIT: u64 = 4096;
/// Larger blocks would not fit into a block of the dirty bitmap.
const MINIMUM_BLOCK_MAX: u64 = 4096;
/// NBD strings end here.
const NBD_STRING_MAX: usize = 4096;
/// Longest export name that fits a status line and a URL.
const EXPORT_MAX: usize = 255;

/// A volume read, with the places later checks speak of.
pub(super) struct ReadVolume {
    pub(super) volume: Volume,
    pub(super) export_span: Span,
    pub(super) image_span: Span,
    pub(super) metadata_span: Span,
}

/// Read one volume of a resource that is a mirror or not; `None` when a part it cannot be without is wrong (and
/// noted).
pub(super) fn read(section: &Section<'_>, mirror: bool) -> Option<ReadVolume> {
    let export = section.required_text("export", "export = \"db\"");
    if let Some(export) = &export {
        check_export(section, export);
    }
    let description = read_description(section);
    let image = read_image(section);
    let in_memory = matches!(&image, Some(image) if image.value == ImageSource::Memory);
    let io = section
        .choice("io", &[("buffered", Io::Buffered), ("direct", Io::Direct)])
        .map_or(Io::Buffered, |io| io.value);
    let size = read_size(section, io, in_memory);
    let read_only = section.boolean("read_only").unwrap_or(false);
    let preallocate = section.boolean("preallocate").unwrap_or(false);
    let minimum_block = read_minimum_block(section);
    let metadata = section.path("metadata");
    forbid_combinations(section, in_memory, mirror, read_only);
    let (export, image) = (export?, image?);
    let metadata_span = metadata
        .as_ref()
        .map_or_else(|| image.span.clone(), |metadata| metadata.span.clone());
    let metadata = match (&image.value, metadata) {
        (ImageSource::Path(_), Some(named)) if mirror && !read_only => Some(named.value),
        (ImageSource::Path(path), None) if mirror && !read_only => Some(Resource::default_metadata(path)),
        _ => None,
    };
    if let (Some(size), Some(_)) = (&size, &metadata) {
        check_mirrored_size(section, size);
    }
    let size = size.map(|size| size.value);
    Some(ReadVolume {
        volume: Volume {
            export: export.value,
            description,
            image: image.value,
            size,
            preallocate,
            io,
            read_only,
            minimum_block,
            metadata,
            access: read_rules(section),
        },
        export_span: export.span,
        image_span: image.span,
        metadata_span,
    })
}

fn read_image(section: &Section<'_>) -> Option<Located<ImageSource>> {
    let text = section.required_text("image", "image = \"/var/lib/blockmirror/db.img\"")?;
    if text.value == "memory:" {
        return Some(Located {
            value: ImageSource::Memory,
            span: text.span,
        });
    }
    if text.value == "memory" {
        section.problems().add(
            text.span,
            "`image` = \"memory\" is neither an absolute path nor \"memory:\"",
            "did you mean \"memory:\"?",
        );
        return None;
    }
    let path = section.path("image")?;
    Some(Located {
        value: ImageSource::Path(path.value),
        span: path.span,
    })
}

fn read_size(section: &Section<'_>, io: Io, in_memory: bool) -> Option<Located<u64>> {
    let size = section.size("size", SECTOR..=SIZE_MAX);
    if let Some(size) = &size {
        let unit = if io == Io::Direct { DIRECT_UNIT } else { SECTOR };
        if !size.value.is_multiple_of(unit) {
            let rounded = size.value / unit * unit;
            section.problems().add(
                size.span.clone(),
                format!("`size` is {} bytes, not a multiple of {unit}", size.value),
                format!("use {rounded} or {}", rounded.saturating_add(unit)),
            );
        }
    } else if in_memory && section.key_span("size").is_none() {
        section.missing("size", "size = \"1GiB\" (an image in memory has no size of its own)");
    }
    size
}

fn check_mirrored_size(section: &Section<'_>, size: &Located<u64>) {
    if size.value > VOLUME_BYTES_MAX {
        let (found, largest) = (show_size(size.value), show_size(VOLUME_BYTES_MAX));
        section.problems().add(
            size.span.clone(),
            format!("`size` is {found}: a mirrored volume has {largest} at most"),
            "use several volumes, or set mirror = false",
        );
    }
}

fn read_minimum_block(section: &Section<'_>) -> u32 {
    let Some(block) = section.size("minimum_block", 1..=MINIMUM_BLOCK_MAX) else {
        return 1;
    };
    if !block.value.is_power_of_two() {
        section.problems().add(
            block.span,
            format!("`minimum_block` = {} is not a power of two", block.value),
            "use 1, 512 or 4096",
        );
    }
    u32::try_from(block.value).unwrap_or(1)
}

fn read_description(section: &Section<'_>) -> String {
    let Some(text) = section.text("description") else {
        return String::new();
    };
    if text.value.len() > NBD_STRING_MAX || text.value.contains('\0') {
        section.problems().add(
            text.span,
            format!("`description` is longer than {NBD_STRING_MAX} bytes or has a zero byte in it"),
            "say it in fewer words",
        );
    }
    text.value
}

fn check_export(section: &Section<'_>, export: &Located<String>) {
    let name = &export.value;
    if name.is_empty() || name.len() > EXPORT_MAX || name.chars().any(char::is_control) {
        section.problems().add(
            export.span.clone(),
            format!("`export` = {name:?} is not an export name"),
            format!("use 1 to {EXPORT_MAX} bytes without control characters"),
        );
    }
}

fn forbid_combinations(section: &Section<'_>, in_memory: bool, mirror: bool, read_only: bool) {
    if in_memory {
        for key in ["io", "preallocate", "metadata"] {
            section.forbid(
                key,
                &format!("`{key}` has no meaning for an image in memory"),
                "remove it",
            );
        }
        if read_only {
            section.forbid(
                "read_only",
                "an image in memory that is read-only would hold zeroes for ever",
                "remove read_only, or name a file",
            );
        }
    } else if !mirror {
        section.forbid(
            "metadata",
            "`metadata` has no meaning with mirror = false: nothing is tracked",
            "remove it, or set mirror = true",
        );
    } else if read_only {
        section.forbid(
            "metadata",
            "`metadata` has no meaning for a read-only volume: it never changes",
            "remove it, or remove read_only",
        );
    }
}
