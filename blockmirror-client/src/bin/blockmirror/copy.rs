//! `blockmirror copy`: one export over another.

use std::collections::VecDeque;
use std::time::Instant;

use blockmirror_client::client::Access;
use blockmirror_client::uri::UriList;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::failure::{Failure, print};
use crate::human;
use crate::progress::Progress;
use crate::side::Side;

/// Bytes copied at once.
const PIECE: u64 = 1 << 20;
/// Pieces under way at the same time; bounds the memory.
const DEPTH: usize = 8;

type Piece = JoinHandle<Result<bool, Failure>>;

/// Copies; everything is durable at the other side when it returns.
pub async fn run(from: &UriList, to: &UriList, json: bool) -> Result<(), Failure> {
    let (from, to) = tokio::try_join!(Side::open(from, Access::ReadOnly), Side::open(to, Access::ReadWrite))?;
    let size = from.size;
    if to.size < size {
        return Err(Failure::Failed(format!(
            "{} has {} bytes, {} has {size}: make it larger",
            to.uri, to.size, from.uri
        )));
    }
    let zeroed = all(&from, &to, size).await?;
    to.flush().await?;
    tokio::join!(from.close(), to.close());
    if json {
        return print(&format!(
            "{}\n",
            json!({ "done": true, "size_bytes": size, "zeroed_bytes": zeroed })
        ));
    }
    print(&format!(
        "copied: {} ({} of it zeroes)\n",
        human::bytes(size),
        human::bytes(zeroed)
    ))
}

/// Copies `size` bytes; how many of them were zeroes.
async fn all(from: &Side, to: &Side, size: u64) -> Result<u64, Failure> {
    let mut progress = Progress::new("copy");
    let started = Instant::now();
    let mut under_way: VecDeque<(u64, Piece)> = VecDeque::with_capacity(DEPTH);
    let (mut next, mut done, mut zeroed) = (0, 0, 0);
    while done < size {
        while next < size && under_way.len() < DEPTH {
            let length = PIECE.min(size - next);
            under_way.push_back((length, tokio::spawn(piece(from.clone(), to.clone(), next, length))));
            next += length;
        }
        let Some((length, oldest)) = under_way.pop_front() else {
            break;
        };
        let zero = oldest
            .await
            .map_err(|error| Failure::Failed(format!("copying broke off: {error}")))??;
        done += length;
        zeroed += if zero { length } else { 0 };
        progress.moved("copy", done, size, started.elapsed());
    }
    progress.end(false);
    Ok(zeroed)
}

/// Copies one piece; whether it was all zeroes.
async fn piece(from: Side, to: Side, offset: u64, length: u64) -> Result<bool, Failure> {
    let data = from.read(offset, length).await?;
    if data.iter().all(|byte| *byte == 0) {
        to.zero(offset, length).await?;
        return Ok(true);
    }
    to.write(offset, &data).await?;
    Ok(false)
}
