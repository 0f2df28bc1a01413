//! `blockmirror copy`: one export over another.

use std::collections::VecDeque;
use std::time::Instant;

use blockmirror_client::client::Access;
use blockmirror_client::uri::UriList;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::failure::{Failure, print};
use crate::human;
use crate::map::ALLOCATION;
use crate::progress::Progress;
use crate::side::Side;
use crate::stretches::{Stretch, Stretches};

/// Pieces under way at the same time; bounds the memory.
const DEPTH: usize = 8;

/// What became of a piece: its length, and how much of it was zeroes.
type Piece = JoinHandle<Result<(u64, u64), Failure>>;

/// Copies; everything is durable at the other side when it returns.
pub async fn run(from: &UriList, to: &UriList, json: bool) -> Result<(), Failure> {
    let (from, to) = tokio::try_join!(
        Side::open_with(from, Access::ReadOnly, &[ALLOCATION]),
        Side::open(to, Access::ReadWrite)
    )?;
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
    let mut under_way: VecDeque<Piece> = VecDeque::with_capacity(DEPTH);
    let mut stretches = Stretches::new(from, size);
    let (mut done, mut zeroed) = (0, 0);
    loop {
        while under_way.len() < DEPTH
            && let Some(stretch) = stretches.next().await?
        {
            under_way.push_back(tokio::spawn(piece(from.clone(), to.clone(), stretch)));
        }
        let Some(oldest) = under_way.pop_front() else { break };
        let (length, zeroes) = oldest
            .await
            .map_err(|error| Failure::Failed(format!("copying broke off: {error}")))??;
        done += length;
        zeroed += zeroes;
        progress.moved("copy", done, size, started.elapsed());
    }
    progress.end(false);
    Ok(zeroed)
}

/// Copies one piece; its length, and how much of it was zeroes.
async fn piece(from: Side, to: Side, stretch: Stretch) -> Result<(u64, u64), Failure> {
    let Stretch {
        offset,
        length,
        is_zero,
    } = stretch;
    if is_zero {
        to.zero(offset, length).await?;
        return Ok((length, length));
    }
    let data = from.read(offset, length).await?;
    if data.iter().all(|byte| *byte == 0) {
        to.zero(offset, length).await?;
        return Ok((length, length));
    }
    to.write(offset, &data).await?;
    Ok((length, 0))
}
