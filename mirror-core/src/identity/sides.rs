//! What is asked of one side.

use super::Role;
use super::decide::Side;
use crate::state::LocalDisk;

pub(super) fn is_primary(side: &Side<'_>) -> bool {
    side.role == Role::Primary
}

pub(super) fn is_marked(side: &Side<'_>) -> bool {
    side.volume.dirty_bytes > 0
}

pub(super) fn is_inconsistent(side: &Side<'_>) -> bool {
    side.volume.disk == LocalDisk::Inconsistent
}

/// All of one time, and a disk to read it from.
pub(super) fn is_complete(side: &Side<'_>) -> bool {
    !side.volume.fresh && disk_rank(side.volume.disk) >= disk_rank(LocalDisk::Outdated)
}

pub(super) fn disk_rank(disk: LocalDisk) -> u8 {
    match disk {
        LocalDisk::Diskless => 0,
        LocalDisk::Inconsistent => 1,
        LocalDisk::Outdated => 2,
        LocalDisk::UpToDate => 3,
    }
}
