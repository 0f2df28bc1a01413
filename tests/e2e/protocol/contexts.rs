//! Meta contexts: what can be listed and selected, and what BLOCK_STATUS answers.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::dialogue::wire::{REQ_ONE, Style};
use blockmirror_tests::dialogue::{Answer, Ask, Dialogue, EXTENDED_HEADERS, meta, meta_request, selected};
use blockmirror_tests::raw::{Raw, command, errno, option};

use super::options::{in_step, refused};
use super::{BIG, Case, SIZE, Stage};

const ALLOCATION: &str = "base:allocation";
const CHUNKED: [Style; 2] = [Style::Structured, Style::Extended];
const HOLE_AND_ZERO: u64 = 3;

/// A connection that may ask for contexts.
fn chunked(stage: &Stage) -> Result<Raw> {
    let mut raw = stage.greeted()?;
    ensure!(raw.option(option::STRUCTURED_REPLY, &[])?[0].kind == option::ACK);
    Ok(raw)
}

fn names(raw: &mut Raw, code: u32, export: &str, queries: &[&str]) -> Result<Vec<String>> {
    let contexts = selected(&raw.option(code, &meta_request(export, queries))?)?;
    if code == meta::LIST {
        ensure!(
            contexts.iter().all(|(id, _)| *id == 0),
            "a list has numbers: {contexts:?}"
        );
    }
    Ok(contexts.into_iter().map(|(_, name)| name).collect())
}

fn refused_either_way(raw: &mut Raw, data: &[u8], error: u32) -> Result<()> {
    [meta::LIST, meta::SET]
        .into_iter()
        .try_for_each(|code| refused(raw, code, data, error))
}

/// `NBD_OPT_LIST_META_CONTEXT`, "The `base:` metadata namespace".
const LISTS: [Case; 6] = [
    ("a list without queries names every context", |stage| {
        let mut raw = chunked(stage)?;
        for export in ["db", "read-only", "mirrored", "memory", "big"] {
            let all = names(&mut raw, meta::LIST, export, &[])?;
            ensure!(
                all.iter().filter(|name| *name == ALLOCATION).count() == 1,
                "{export}: {all:?}"
            );
            ensure!(
                all.iter().all(|name| name.contains(':') && name.len() <= 4096),
                "{all:?}"
            );
        }
        Ok(())
    }),
    ("base: stands for all of base, a name for itself", |stage| {
        let mut raw = chunked(stage)?;
        for queries in [&["base:"][..], &[ALLOCATION], &["base:", ALLOCATION]] {
            ensure!(
                names(&mut raw, meta::LIST, "db", queries)? == [ALLOCATION],
                "{queries:?}"
            );
        }
        Ok(())
    }),
    (
        "what is not known, leaf or namespace, is ignored: a bare acknowledgement",
        |stage| {
            let mut raw = chunked(stage)?;
            for query in [
                "base:nothing",
                "base:allocation2",
                "x-nobody:",
                "x-nobody:knows",
                "qemu:dirty-bitmap:nobody",
            ] {
                for code in [meta::LIST, meta::SET] {
                    ensure!(names(&mut raw, code, "db", &[query])?.is_empty(), "{query}");
                }
            }
            ensure!(names(&mut raw, meta::LIST, "db", &["x-nobody:knows", ALLOCATION])? == [ALLOCATION]);
            in_step(&mut raw)
        },
    ),
    (
        "lengths that do not add up are invalid, and the stream is in step",
        |stage| {
            let mut raw = chunked(stage)?;
            let good = meta_request("db", &[ALLOCATION]);
            let mut bad = vec![
                vec![],
                good[..good.len() - 1].to_vec(),
                [&good[..], &[0]].concat(),
                good[..7].to_vec(),
            ];
            for at in [0, 6, 10] {
                let mut lie = good.clone();
                lie[at] = 0x7f;
                bad.push(lie);
            }
            bad.iter()
                .try_for_each(|data| refused_either_way(&mut raw, data, option::ERROR_INVALID))
        },
    ),
    ("an export that is not there is unknown", |stage| {
        let mut raw = chunked(stage)?;
        refused_either_way(&mut raw, &meta_request("nothing", &[ALLOCATION]), option::ERROR_UNKNOWN)
    }),
    ("without chunks contexts are refused as invalid", |stage| {
        let mut raw = stage.greeted()?;
        refused_either_way(&mut raw, &meta_request("db", &[ALLOCATION]), option::ERROR_INVALID)?;
        raw.go("db")
    }),
];

#[test]
fn lists() -> Result<()> {
    Stage::new()?.play(&LISTS)
}

/// Plays SET_META_CONTEXT with each, one after the other, opens `export`; whether BLOCK_STATUS is answered.
fn answers_after(stage: &Stage, sets: &[(&str, &[&str])], export: &str) -> Result<bool> {
    let mut raw = chunked(stage)?;
    for (of, queries) in sets {
        raw.option(meta::SET, &meta_request(of, queries))?;
    }
    raw.go(export)?;
    raw.request(0, command::BLOCK_STATUS, 0, 4096)?;
    let (_, kind, _, payload) = raw.chunk()?;
    ensure!(
        kind == 5 || payload[..4] == errno::INVALID.to_be_bytes(),
        "chunk {kind:#x} {payload:x?}"
    );
    Ok(kind == 5)
}

/// `NBD_OPT_SET_META_CONTEXT`.
const SELECTIONS: [Case; 6] = [
    (
        "a selection has one reply for each context, each with a number of its own",
        |stage| {
            let mut raw = chunked(stage)?;
            let all = names(&mut raw, meta::LIST, "db", &[])?;
            let queries: Vec<&str> = all.iter().map(String::as_str).collect();
            let contexts = selected(&raw.option(meta::SET, &meta_request("db", &queries))?)?;
            let mut ids: Vec<u32> = contexts.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            ensure!(ids.len() == all.len(), "{contexts:?}");
            Ok(())
        },
    ),
    ("a context that is asked for twice is selected once", |stage| {
        let mut raw = chunked(stage)?;
        let selected = names(&mut raw, meta::SET, "db", &[ALLOCATION, ALLOCATION, ALLOCATION])?;
        ensure!(selected == [ALLOCATION], "{selected:?}");
        Ok(())
    }),
    ("base: selects nothing", |stage| {
        ensure!(names(&mut chunked(stage)?, meta::SET, "db", &["base:"])?.is_empty());
        Ok(())
    }),
    ("the last selection counts, be it empty or refused", |stage| {
        ensure!(answers_after(stage, &[("db", &[ALLOCATION])], "db")?);
        ensure!(answers_after(stage, &[("db", &[]), ("db", &[ALLOCATION])], "db")?);
        ensure!(!answers_after(stage, &[("db", &[ALLOCATION]), ("db", &[])], "db")?);
        ensure!(!answers_after(
            stage,
            &[("db", &[ALLOCATION]), ("nothing", &[ALLOCATION])],
            "db"
        )?);
        ensure!(!answers_after(
            stage,
            &[("db", &[ALLOCATION]), ("db", &["x-nobody:knows"])],
            "db"
        )?);
        Ok(())
    }),
    ("a selection is for the export it names", |stage| {
        ensure!(!answers_after(stage, &[("big", &[ALLOCATION])], "db")?);
        ensure!(answers_after(
            stage,
            &[("big", &[ALLOCATION]), ("db", &[ALLOCATION])],
            "db"
        )?);
        Ok(())
    }),
    ("a list changes no selection", |stage| {
        let mut raw = chunked(stage)?;
        names(&mut raw, meta::SET, "db", &[ALLOCATION])?;
        names(&mut raw, meta::LIST, "db", &["x-nobody:"])?;
        names(&mut raw, meta::LIST, "big", &[])?;
        raw.go("db")?;
        raw.request(0, command::BLOCK_STATUS, 0, 4096)?;
        ensure!(raw.chunk()?.1 == 5);
        Ok(())
    }),
];

#[test]
fn selections() -> Result<()> {
    Stage::new()?.play(&SELECTIONS)
}

fn open(stage: &Stage, export: &str, style: Style) -> Result<Dialogue> {
    Dialogue::open_with(&stage.node.socket(), export, style, &[ALLOCATION])
}

fn extents(dialogue: &Dialogue, answer: &Answer) -> Result<Vec<(u64, u64)>> {
    let id = dialogue.context(ALLOCATION)?;
    answer.extents.get(&id).cloned().context("no extents")
}

/// The status of every byte of a range, by as many requests as it takes: start, length, status of each stretch.
fn walk(dialogue: &mut Dialogue, mut at: u64, end: u64) -> Result<Vec<(u64, u64, u64)>> {
    let mut stretches: Vec<(u64, u64, u64)> = Vec::new();
    while at < end {
        let answer = dialogue.succeed(&Ask::new(command::BLOCK_STATUS, at, (end - at).min(1 << 31)))?;
        for (length, status) in extents(dialogue, &answer)? {
            match stretches.last_mut() {
                Some(last) if last.2 == status => last.1 += length,
                _ => stretches.push((at, length, status)),
            }
            at += length;
        }
    }
    Ok(stretches)
}

/// `NBD_CMD_BLOCK_STATUS`, "`base:allocation` metadata context", on every kind of image.
#[test]
fn allocation() -> Result<()> {
    let stage = Stage::new()?;
    for style in CHUNKED {
        for export in ["db", "mirrored", "memory"] {
            let mut dialogue = open(&stage, export, style)?;
            dialogue.succeed(&Ask::new(command::WRITE_ZEROES, 0, SIZE))?;
            dialogue.succeed(&Ask::write(4 << 20, &vec![1; 2 << 20]).with(command::FUA))?;
            let stretches = walk(&mut dialogue, 0, SIZE).with_context(|| export.to_owned())?;
            let data: Vec<_> = stretches.iter().filter(|(.., status)| *status == 0).collect();
            ensure!(
                data.iter()
                    .any(|(at, length, _)| *at <= 4 << 20 && at + length >= 6 << 20),
                "{export}: what was written is data: {stretches:?}"
            );
            // Zeroes that are said to be there are there.
            for (at, length, status) in &stretches {
                if status & 2 != 0 {
                    let bytes = dialogue.read(*at, (*length).min(SIZE - at))?;
                    ensure!(bytes.iter().all(|byte| *byte == 0), "{export}: {stretches:?}");
                }
            }
            ensure!(
                stretches.first() == Some(&(0, 4 << 20, HOLE_AND_ZERO)),
                "{export}: {stretches:?}"
            );
        }
    }
    Ok(())
}

/// `NBD_CMD_BLOCK_STATUS`: how much is told, and where it ends.
const STATUS: [Case; 5] = [
    ("REQ_ONE: one extent, no longer than what was asked for", |stage| {
        for style in CHUNKED {
            let mut dialogue = open(stage, "db", style)?;
            for (offset, length) in [(0, 1), (0, 4096), (513, 70_000), (0, SIZE), (SIZE - 1, 1)] {
                let ask = Ask::new(command::BLOCK_STATUS, offset, length).with(REQ_ONE);
                let answer = dialogue.succeed(&ask)?;
                ensure!(extents(&dialogue, &answer)?.len() == 1);
            }
        }
        Ok(())
    }),
    ("equal neighbours are one extent", |stage| {
        for style in CHUNKED {
            let mut dialogue = open(stage, "db", style)?;
            dialogue.succeed(&Ask::new(command::TRIM, 0, SIZE))?;
            dialogue.succeed(&Ask::write(0, &[1; 4096]))?;
            dialogue.succeed(&Ask::write(4096, &[1; 4096]))?;
            let answer = dialogue.succeed(&Ask::new(command::BLOCK_STATUS, 0, SIZE))?;
            let extents = extents(&dialogue, &answer)?;
            ensure!(extents.windows(2).all(|pair| pair[0].1 != pair[1].1), "{extents:?}");
        }
        Ok(())
    }),
    ("more than 4 GiB of one status", |stage| {
        for style in CHUNKED {
            let mut dialogue = open(stage, "big", style)?;
            let stretches = walk(&mut dialogue, 0, BIG)?;
            ensure!(stretches == [(0, BIG, HOLE_AND_ZERO)], "{stretches:?}");
            let length = if style == Style::Extended { BIG } else { 0xffff_fe00 };
            let answer = dialogue.succeed(&Ask::new(command::BLOCK_STATUS, 0, length))?;
            let all: u64 = extents(&dialogue, &answer)?.iter().map(|(length, _)| length).sum();
            ensure!(all >= length, "{style:?}: {all} of {length}");
        }
        Ok(())
    }),
    (
        "past the end, of no length, or with a flag of another command: EINVAL",
        |stage| {
            for style in CHUNKED {
                let mut dialogue = open(stage, "db", style)?;
                for (offset, length) in [(SIZE, 512), (SIZE - 512, 1024), (u64::MAX, 1), (0, 0)] {
                    dialogue.refused(&Ask::new(command::BLOCK_STATUS, offset, length), errno::INVALID)?;
                }
                for flag in [command::NO_HOLE, command::DF, 16, 64, 0x8000] {
                    let ask = Ask::new(command::BLOCK_STATUS, 0, 512).with(flag);
                    dialogue.refused(&ask, errno::INVALID)?;
                }
                dialogue.succeed(&Ask::new(command::BLOCK_STATUS, 0, 512).with(command::FUA))?;
            }
            Ok(())
        },
    ),
    ("extents are whole blocks where blocks have a size", |stage| {
        for style in CHUNKED {
            let mut dialogue = open(stage, "blocks", style)?;
            dialogue.succeed(&Ask::write(512, &[1; 512]))?;
            let answer = dialogue.succeed(&Ask::new(command::BLOCK_STATUS, 512, SIZE - 512))?;
            let extents = extents(&dialogue, &answer)?;
            ensure!(
                extents.iter().all(|(length, _)| length.is_multiple_of(512)),
                "{extents:?}"
            );
        }
        Ok(())
    }),
];

#[test]
fn status() -> Result<()> {
    Stage::new()?.play(&STATUS)
}

/// "Metadata querying": contexts are agreed with either kind of chunks.
#[test]
fn contexts_with_extended_headers_alone() -> Result<()> {
    let stage = Stage::new()?;
    let mut raw = stage.greeted()?;
    ensure!(raw.option(EXTENDED_HEADERS, &[])?[0].kind == option::ACK);
    ensure!(names(&mut raw, meta::SET, "db", &[ALLOCATION])? == [ALLOCATION]);
    raw.go("db")
}
