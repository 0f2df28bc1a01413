//! What a branch has of a volume, and where.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where the bytes of a part are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the branch file, at this byte.
    File(u64),
    /// They are zero.
    Zero,
    /// They could not be read when they were to be saved.
    Lost,
    /// Not in the branch: in the image as it is now.
    Image,
}

/// A part of the volume with one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which bytes of the volume.
    pub range: Range<u64>,
    /// Where they are.
    pub source: Source,
}

/// What a branch has. Its parts do not overlap; there are at most as many as the volume has blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By first byte: the byte after the last one, and where it is.
    parts: BTreeMap<u64, (u64, Source)>,
    bytes: u64,
}

impl Index {
    /// Take a part. What is known already stays: the first record counts.
    pub fn insert(&mut self, range: Range<u64>, source: Source) {
        for gap in self.missing(range.clone()) {
            self.bytes += gap.end - gap.start;
            let source = source.behind(gap.start - range.start);
            self.parts.insert(gap.start, (gap.end, source));
        }
    }

    /// The parts of the range that are not known, in order.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let pieces = self.look(range).into_iter();
        let image = pieces.filter(|piece| piece.source == Source::Image);
        image.map(|piece| piece.range).collect()
    }

    /// The whole range, part by part.
    pub fn look(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let before = self.parts.range(..=at).next_back();
        let first = before.map_or(at, |(start, _)| *start);
        for (&start, &(end, source)) in self.parts.range(first..range.end.max(first)) {
            if end <= at {
                continue;
            }
            if start > at {
                pieces.push(Piece {
                    range: at..start,
                    source: Source::Image,
                });
                at = start;
            }
            let part = at..end.min(range.end);
            at = part.end;
            pieces.push(Piece {
                source: source.behind(part.start - start),
                range: part,
            });
        }
        if at < range.end {
            pieces.push(Piece {
                range: at..range.end,
                source: Source::Image,
            });
        }
        pieces
    }

    /// Bytes of the volume that are known.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Source {
    /// So many bytes further.
    fn behind(self, bytes: u64) -> Self {
        match self {
            Self::File(at) => Self::File(at + bytes),
            other => other,
        }
    }
}
