//! Branches that are opened, at the start or when a copy is about to begin.

use super::{Branch, Writer};
use crate::branch::BranchFile;
use crate::data::message::BranchSnapshot;
use crate::data::plan::BranchPlan;
use crate::ring::FileHandle;

impl Branch {
    /// Begin with what a plan brings: `target`, the volume is in the middle of being overwritten.
    pub(in crate::data::volume) fn new(plan: Option<BranchPlan>, target: bool) -> Self {
        let Some(BranchPlan { place, unfinished }) = plan else {
            return Self::default();
        };
        let mut branch = Self {
            place: Some(place),
            ..Self::default()
        };
        if let Some(file) = unfinished {
            if !target && file.index().is_empty() {
                // The copy never began.
                file.remove();
                return branch;
            }
            branch.open = target;
            // The copy came to its end.
            branch.ending = !target;
            branch.refused = !branch.write_to(file) && target;
        }
        branch
    }

    /// What an operator is told of it.
    pub(in crate::data::volume) fn snapshot(&self) -> Option<BranchSnapshot> {
        let file = self.writer.as_ref().map(|writer| &writer.file);
        if file.is_none() && self.trouble.is_none() {
            return None;
        }
        Some(BranchSnapshot {
            file: file.map(|file| file.path().to_owned()),
            saved_bytes: file.map_or(0, |file| file.index().bytes()),
            trouble: self.trouble.clone(),
        })
    }

    /// Save from now on what is overwritten. False: it cannot be.
    pub(in crate::data::volume) fn open(&mut self, export: &str, generation: u64, size: u64) -> bool {
        self.refused = true;
        if let Some(writer) = &self.writer {
            if self.ending || writer.file.header().generation != generation {
                // It is closed first; the next attempt finds it gone.
                self.finish();
                return false;
            }
            self.open = true;
            self.refused = false;
            return true;
        }
        let Some(place) = &self.place else {
            self.trouble = Some("the volume has no directory for branches".to_owned());
            return false;
        };
        let reason = "the histories diverged, and this node's data was given up";
        match BranchFile::create(place, export, generation, size, reason) {
            Ok(file) => {
                tracing::warn!(
                    export,
                    branch = %file.path().display(),
                    "this node's data is about to be overwritten: what differs is saved first"
                );
                self.open = self.write_to(file);
                self.refused = !self.open;
            }
            Err(error) => {
                let directory = place.directory.display();
                let text = format!(
                    "no branch can be made in {directory}: {error}; nothing is overwritten before: make room there, or \
                     name another directory with `branch_dir`"
                );
                tracing::error!(export, "{text}");
                self.trouble = Some(text);
            }
        }
        self.open
    }

    /// The branch that was asked for last could not be opened. Told once.
    pub(in crate::data::volume) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn write_to(&mut self, file: BranchFile) -> bool {
        let handle = file.handle().and_then(FileHandle::new);
        match handle {
            Ok(handle) => {
                self.trouble = None;
                self.writer = Some(Writer { file, handle });
                true
            }
            Err(error) => {
                tracing::error!(branch = %file.path().display(), %error, "the branch cannot be used");
                self.trouble = Some(format!("the branch {} cannot be used: {error}", file.path().display()));
                false
            }
        }
    }
}
