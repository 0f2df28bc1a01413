//! Filters of BLOCK_STATUS: the payload by which a client asks for some of its contexts, with extended headers.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::dialogue::wire::{PAYLOAD_LEN, Style};
use blockmirror_tests::dialogue::{Ask, Dialogue};
use blockmirror_tests::raw::{command, errno};

use super::{Case, SIZE, Stage};

/// `NBD_FLAG_BLOCK_STATUS_PAYLOAD`.
const FILTERS: [Case; 4] = [
    (
        "filters are offered with extended headers and contexts, and not without",
        |stage| {
            let offered = |style, queries: &[&str]| -> Result<bool> {
                let dialogue = Dialogue::open_with(&stage.node.socket(), "db", style, queries)?;
                Ok(dialogue.raw.flags & 1 << 12 != 0)
            };
            ensure!(offered(Style::Extended, &["base:allocation"])?);
            ensure!(!offered(Style::Extended, &[])?);
            ensure!(!offered(Style::Structured, &["base:allocation"])?);
            ensure!(!offered(Style::Simple, &[])?);
            Ok(())
        },
    ),
    ("a filter chooses among the contexts", |stage| {
        let mut dialogue = with_contexts(stage)?;
        let id = dialogue.context("base:allocation")?;
        for length in [512, SIZE] {
            let answer = dialogue.succeed(&filtered(length, &[id]))?;
            ensure!(answer.extents.keys().eq([&id]), "{answer:?}");
        }
        Ok(())
    }),
    (
        "a filter with a context that was not selected, or one twice, is EINVAL",
        |stage| {
            let mut dialogue = with_contexts(stage)?;
            let id = dialogue.context("base:allocation")?;
            for ids in [&[id, id][..], &[id ^ 0xffff], &[id, 0xdead_beef], &[]] {
                dialogue
                    .refused(&filtered(512, ids), errno::INVALID)
                    .with_context(|| format!("{ids:?}"))?;
            }
            Ok(())
        },
    ),
    ("a payload that is no filter is consumed, then EINVAL", |stage| {
        let mut dialogue = with_contexts(stage)?;
        for length in [1, 7, 9, 11, 13, 5000, 100_000] {
            let mut ask = Ask::new(command::BLOCK_STATUS, 0, length).with(PAYLOAD_LEN);
            ask.payload = vec![0; length as usize];
            dialogue
                .refused(&ask, errno::INVALID)
                .with_context(|| format!("{length} bytes"))?;
        }
        let past = dialogue.context("base:allocation")?;
        dialogue.refused(&filtered(SIZE + 512, &[past]), errno::INVALID)?;
        Ok(())
    }),
];

fn with_contexts(stage: &Stage) -> Result<Dialogue> {
    Dialogue::open_with(&stage.node.socket(), "db", Style::Extended, &["base:allocation"])
}

/// A BLOCK_STATUS of `length` bytes at 0 for these contexts.
fn filtered(length: u64, contexts: &[u32]) -> Ask {
    let mut payload = length.to_be_bytes().to_vec();
    payload.extend(contexts.iter().flat_map(|id| id.to_be_bytes()));
    let mut ask = Ask::new(command::BLOCK_STATUS, 0, payload.len() as u64).with(PAYLOAD_LEN);
    ask.payload = payload;
    ask
}

#[test]
fn filters() -> Result<()> {
    Stage::new()?.play(&FILTERS)
}
