//! Data in pieces, as records want it: [`Pieces`].

use std::io::IoSlice;

use super::session::FRAGMENT_MAX;

/// What is to be sealed. Records are full but for the last: what is too short for one is put together with what follows.
pub(super) struct Pieces<'a> {
    pieces: &'a [IoSlice<'a>],
    /// Bytes of the first that are done.
    skip: usize,
    /// Bytes of all that are not.
    pub(super) left: usize,
}

impl<'a> Pieces<'a> {
    /// At most `most` bytes of them.
    pub(super) fn new(pieces: &'a [IoSlice<'a>], most: usize) -> Self {
        let left = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(most);
        Self { pieces, skip: 0, left }
    }

    /// What comes next: whole records of one piece as they lie, else one record that is put together in `room`.
    pub(super) fn take<'r>(&mut self, room: &'r mut [u8]) -> &'r [u8]
    where
        'a: 'r,
    {
        let first = self.first();
        let whole = if first.len() == self.left {
            first.len()
        } else {
            first.len() / FRAGMENT_MAX * FRAGMENT_MAX
        };
        if whole > 0 {
            self.done(whole);
            return &first[..whole];
        }
        let mut count = 0;
        while count < room.len() && self.left > 0 {
            let first = self.first();
            let more = first.len().min(room.len() - count);
            room[count..count + more].copy_from_slice(&first[..more]);
            count += more;
            self.done(more);
        }
        &room[..count]
    }

    /// What is left of the first piece.
    fn first(&mut self) -> &'a [u8] {
        while let [first, rest @ ..] = self.pieces {
            if self.skip < first.len() {
                let bytes = &first[self.skip..];
                return &bytes[..bytes.len().min(self.left)];
            }
            (self.pieces, self.skip) = (rest, 0);
        }
        &[]
    }

    fn done(&mut self, count: usize) {
        self.skip += count;
        self.left -= count;
    }
}
