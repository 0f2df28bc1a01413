//! A toy server: correct, and free in everything the protocol leaves free.

use nbd_proto::constants::command;
use nbd_proto::{CommandFlags, Extent, ReplyFlags, ReplyTo};

use super::*;

/// SplitMix64: the toy's free will.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What the toy holds at an offset: stretches of data and of zeroes.
pub fn content(offset: u64) -> u8 {
    if (offset / 16).is_multiple_of(3) {
        0
    } else {
        (offset * 7 + offset / 256) as u8
    }
}

/// What the toy will do with a request: the frames of its reply, and how it must be reported.
pub struct Answer {
    pub frames: Vec<Vec<u8>>,
    pub outcome: Result<(), NbdError>,
    pub message: Option<String>,
    pub data: Option<Vec<u8>>,
    pub statuses: Vec<Status>,
}

impl Answer {
    fn of(frames: Vec<Vec<u8>>, outcome: Result<(), NbdError>) -> Self {
        Self {
            frames,
            outcome,
            message: None,
            data: None,
            statuses: vec![],
        }
    }
}

/// Whom the toy answers, and how.
fn reply_to(request: &Request, style: ReplyStyle) -> ReplyTo {
    ReplyTo {
        style,
        cookie: request.cookie,
        offset: request.offset,
    }
}

/// Decides the answer to a request.
pub fn answer(request: &Request, style: ReplyStyle, chance: &mut Chance) -> Answer {
    if chance.below(4) == 0 {
        return failure(request, style, chance);
    }
    match request.command {
        command::READ => {
            let data: Vec<u8> = (request.offset..request.offset + request.length).map(content).collect();
            let frames = match style {
                ReplyStyle::Simple => vec![[&simple_reply(request.cookie, None)[..], &data].concat()],
                _ => pieces(request, style, chance),
            };
            Answer {
                data: Some(data),
                ..Answer::of(frames, Ok(()))
            }
        }
        command::BLOCK_STATUS => {
            let (frames, statuses) = report(request, style, chance);
            Answer {
                statuses,
                ..Answer::of(frames, Ok(()))
            }
        }
        _ => {
            let reply = reply_to(request, style);
            let chunk = style.has_chunks() && chance.below(2) == 0;
            let frame = if chunk { reply.none() } else { reply.success() };
            Answer::of(vec![frame.to_vec()], Ok(()))
        }
    }
}

fn failure(request: &Request, style: ReplyStyle, chance: &mut Chance) -> Answer {
    let error = NbdError::ALL[chance.below(8) as usize];
    if !style.has_chunks() {
        return Answer::of(vec![simple_reply(request.cookie, Some(error)).to_vec()], Err(error));
    }
    let mut frames = match request.command {
        command::READ => pieces(request, style, chance),
        command::BLOCK_STATUS => report(request, style, chance).0,
        _ => Vec::new(),
    };
    // Content may have gone out before it fails; the error then is the last chunk.
    frames.truncate(frames.len().saturating_sub(1 + chance.below(3) as usize));
    let text = "é".repeat(chance.below(40) as usize);
    let has_range = request.length > 0 && request.command != command::FLUSH;
    let offset = (has_range && chance.below(2) == 0).then(|| request.offset + chance.below(request.length));
    frames.push(reply_to(request, style).error(error, &text, offset));
    Answer {
        message: Some(text).filter(|text| !text.is_empty()),
        ..Answer::of(frames, Err(error))
    }
}

/// What the toy says of a range in each context, in any order, DONE on the last chunk or in one of its own.
fn report(request: &Request, style: ReplyStyle, chance: &mut Chance) -> (Vec<Vec<u8>>, Vec<Status>) {
    let mut contexts = CONTEXTS.to_vec();
    if chance.below(2) == 0 {
        contexts.reverse();
    }
    let one = request.flags.contains(CommandFlags::REQ_ONE);
    let separate = chance.below(2) == 0;
    let reply = reply_to(request, style);
    let (mut frames, mut statuses) = (Vec::new(), Vec::new());
    for (place, context) in contexts.into_iter().enumerate() {
        let extents = extents(request, one, chance);
        let last = place + 1 == CONTEXTS.len() && !separate;
        let flags = if last { ReplyFlags::DONE } else { ReplyFlags::empty() };
        let mut frame = Vec::new();
        reply.put_status(flags, context, &extents, &mut frame);
        frames.push(frame);
        statuses.push(Status { context, extents });
    }
    if separate {
        frames.push(reply.none().to_vec());
    }
    (frames, statuses)
}

/// Extents from the offset on: all but the last within the range, the last anywhere up to the end of the export.
fn extents(request: &Request, one: bool, chance: &mut Chance) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut left = request.length;
    loop {
        let flags = chance.below(4);
        if one || chance.below(4) == 0 {
            let rest = if one {
                left
            } else {
                model::SIZE - request.offset - (request.length - left)
            };
            let length = 1 + chance.below(rest);
            extents.push(Extent { length, flags });
            return extents;
        }
        let length = 1 + chance.below(left);
        extents.push(Extent { length, flags });
        left -= length;
        if left == 0 {
            return extents;
        }
    }
}

/// A READ cut into data and holes, in any order, DONE on the last piece or in a chunk of its own.
fn pieces(request: &Request, style: ReplyStyle, chance: &mut Chance) -> Vec<Vec<u8>> {
    let whole = request.flags.contains(CommandFlags::DF);
    let end = request.offset + request.length;
    let mut cuts = Vec::new();
    let mut at = request.offset;
    while at < end {
        let length = if whole {
            end - at
        } else {
            (1 + chance.below(50)).min(end - at)
        };
        cuts.push((at, length as u32));
        at += length;
    }
    for index in (1..cuts.len()).rev() {
        cuts.swap(index, chance.below(index as u64 + 1) as usize);
    }
    let separate = chance.below(2) == 0;
    let last = cuts.len() - 1;
    let mut frames = Vec::new();
    for (index, (offset, length)) in cuts.into_iter().enumerate() {
        let flags = if index == last && !separate {
            ReplyFlags::DONE
        } else {
            ReplyFlags::empty()
        };
        let data: Vec<u8> = (offset..offset + u64::from(length)).map(content).collect();
        frames.push(if data.iter().all(|byte| *byte == 0) {
            reply_to(request, style).hole(flags, offset, length).to_vec()
        } else {
            [&reply_to(request, style).offset_data(flags, offset, length)[..], &data].concat()
        });
    }
    if separate {
        frames.push(reply_to(request, style).none().to_vec());
    }
    frames
}
