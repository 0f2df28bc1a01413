//! When the peers of a volume were compared last, in a file beside its metadata: a line for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name is that of the metadata file, and this.
const SUFFIX: &str = ".verified";
/// Behind the time of a peer whose comparison has begun and not ended.
const OPEN: &str = "open";

/// What is noted of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// When a comparison ended last, or the schedule was first seen; in seconds since 1970.
    pub(super) last: u64,
    /// One has begun since and not ended: it is gone on with.
    pub(super) open: bool,
}

/// What is noted of a volume, by peer.
pub(super) type Notes = BTreeMap<String, Note>;

/// The file of a volume with this metadata file.
pub(super) fn beside(metadata: &Path) -> PathBuf {
    let mut name = metadata.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// What is not there, or not a note, is as if never noted.
pub(super) fn read(path: &Path) -> Notes {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<(String, Note)> {
    let mut words = line.split_whitespace();
    let (peer, last) = (words.next()?, words.next()?.parse().ok()?);
    let open = words.next() == Some(OPEN);
    Some((peer.to_owned(), Note { last, open }))
}

/// Where it fails the log says so, and the comparison comes again.
pub(super) fn write(path: &Path, notes: &Notes) {
    let line = |(peer, note): (&String, &Note)| {
        let open = if note.open { format!(" {OPEN}") } else { String::new() };
        format!("{peer} {}{open}\n", note.last)
    };
    let text: String = notes.iter().map(line).collect();
    if let Err(error) = std::fs::write(path, text) {
        tracing::warn!(file = %path.display(), %error, "it cannot be noted when the volume was compared");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = dir.path().join("n");
        assert_eq!(read(&path), Notes::new());
        let note = |last, open| Note { last, open };
        let notes = Notes::from([
            ("alpha".to_owned(), note(77, true)),
            ("bravo".to_owned(), note(78, false)),
        ]);
        write(&path, &notes);
        assert_eq!(read(&path), notes);
        // Of an earlier release: one time for all peers, and when it began.
        std::fs::write(&path, "1700000000\n").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read(&path), Notes::new());
    }
}
