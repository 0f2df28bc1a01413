//! `blockmirror compare`: two exports, byte by byte, without keeping either.

use std::collections::VecDeque;
use std::time::Instant;

use blockmirror_client::client::Access;
use blockmirror_client::uri::UriList;
use tokio::task::JoinHandle;

use crate::failure::{Failure, print};
use crate::human;
use crate::progress::Progress;
use crate::side::Side;

/// Bytes compared at once.
const PIECE: u64 = 1 << 20;
/// Pieces being read at the same time; bounds the memory to twice that many pieces.
const DEPTH: usize = 8;

/// What a piece, or the whole, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Bytes that differ.
    bytes: u64,
    /// The first of them.
    first: Option<u64>,
}

type Piece = JoinHandle<Result<Difference, Failure>>;

/// Compares; [`Failure::Failed`] when they differ, [`Failure::Unreachable`] when one cannot be read.
pub async fn run(left: &UriList, right: &UriList, json: bool) -> Result<(), Failure> {
    let (left, right) = tokio::try_join!(Side::open(left, Access::ReadOnly), Side::open(right, Access::ReadOnly))?;
    let (left_size, right_size) = (left.size, right.size);
    let common = left_size.min(right_size);
    let difference = common_part(&left, &right, common).await?;
    // What was read is judged; how the servers part does not change it.
    tokio::join!(left.close(), right.close());
    let identical = left_size == right_size && difference.bytes == 0;
    if json {
        let report = serde_json::json!({
            "identical": identical,
            "left_bytes": left_size,
            "right_bytes": right_size,
            "differing_bytes": difference.bytes,
            "first_difference": difference.first,
        });
        print(&format!("{report}\n"))?;
    }
    if left_size != right_size {
        let content = if difference.bytes == 0 {
            "what both have is identical".to_owned()
        } else {
            described(&difference, common)
        };
        return Err(Failure::Failed(format!(
            "different: the sizes are {left_size} and {right_size} bytes; {content}"
        )));
    }
    if difference.bytes > 0 {
        return Err(Failure::Failed(format!(
            "different: {}",
            described(&difference, common)
        )));
    }
    if json {
        return Ok(());
    }
    print(&format!("identical: {} ({common} bytes)\n", human::bytes(common)))
}

async fn common_part(left: &Side, right: &Side, common: u64) -> Result<Difference, Failure> {
    let mut progress = Progress::new("compare");
    let started = Instant::now();
    let mut total = Difference::default();
    let mut reading: VecDeque<Piece> = VecDeque::with_capacity(DEPTH);
    let (mut next, mut done) = (0, 0);
    while done < common {
        while next < common && reading.len() < DEPTH {
            let length = PIECE.min(common - next);
            reading.push_back(tokio::spawn(piece(left.clone(), right.clone(), next, length)));
            next += length;
        }
        let Some(oldest) = reading.pop_front() else { break };
        let difference = oldest
            .await
            .map_err(|error| Failure::Failed(format!("comparing broke off: {error}")))??;
        total.bytes += difference.bytes;
        total.first = total.first.or(difference.first);
        done += PIECE.min(common - done);
        progress.moved("compare", done, common, started.elapsed());
    }
    progress.end(false);
    Ok(total)
}

async fn piece(left: Side, right: Side, offset: u64, length: u64) -> Result<Difference, Failure> {
    let (left, right) = tokio::try_join!(left.read(offset, length), right.read(offset, length))?;
    Ok(compared(&left, &right, offset))
}

fn compared(left: &[u8], right: &[u8], offset: u64) -> Difference {
    // Nearly everything is equal, and this is how that is found out fastest.
    if left == right {
        return Difference::default();
    }
    let mut differing = left
        .iter()
        .zip(right)
        .enumerate()
        .filter(|(_, (left, right))| left != right);
    let first = differing.next().map(|(at, _)| offset + at as u64);
    Difference {
        bytes: u64::from(first.is_some()) + differing.count() as u64,
        first,
    }
}

fn described(difference: &Difference, common: u64) -> String {
    let first = difference.first.unwrap_or_default();
    format!(
        "{} of {common} bytes differ, the first at offset {first}",
        difference.bytes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_and_the_first_is_named() {
        let zero = vec![0; 1000];
        assert_eq!(compared(&zero, &zero, 4096), Difference::default());
        let mut other = zero.clone();
        (other[17], other[18], other[999]) = (1, 2, 3);
        assert_eq!(
            compared(&zero, &other, 4096),
            Difference {
                bytes: 3,
                first: Some(4096 + 17)
            }
        );
        assert_eq!(compared(&other, &zero, 0).first, Some(17));
    }
}
