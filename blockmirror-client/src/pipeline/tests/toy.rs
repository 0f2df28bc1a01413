//! A toy server: correct, and free in everything the protocol leaves free.

use nbd_proto::constants::command;
use nbd_proto::{CommandFlags, ReplyFlags, ReplyTo};

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
}

/// Decides the answer to a request.
pub fn answer(request: &Request, structured: bool, chance: &mut Chance) -> Answer {
    if chance.below(4) == 0 {
        return failure(request, structured, chance);
    }
    let is_read = request.command == command::READ;
    let range = request.offset..request.offset + request.length;
    let data: Option<Vec<u8>> = is_read.then(|| range.map(content).collect());
    let frames = match &data {
        Some(_) if structured => pieces(request, chance),
        Some(data) => vec![[&simple_reply(request.cookie, None)[..], data].concat()],
        None if structured && chance.below(2) == 0 => vec![ReplyTo::structured(request.cookie).none().to_vec()],
        None => vec![simple_reply(request.cookie, None).to_vec()],
    };
    Answer {
        frames,
        outcome: Ok(()),
        message: None,
        data,
    }
}

fn failure(request: &Request, structured: bool, chance: &mut Chance) -> Answer {
    let error = NbdError::ALL[chance.below(8) as usize];
    if !structured {
        let frames = vec![simple_reply(request.cookie, Some(error)).to_vec()];
        return Answer {
            frames,
            outcome: Err(error),
            message: None,
            data: None,
        };
    }
    let is_read = request.command == command::READ;
    let mut frames = if is_read { pieces(request, chance) } else { Vec::new() };
    // Content may have gone out before it fails; the error then is the last chunk.
    frames.truncate(frames.len().saturating_sub(1 + chance.below(3) as usize));
    let text = "é".repeat(chance.below(40) as usize);
    let offset = (is_read && chance.below(2) == 0).then(|| request.offset + chance.below(request.length));
    frames.push(ReplyTo::structured(request.cookie).error(error, &text, offset));
    Answer {
        frames,
        outcome: Err(error),
        message: Some(text).filter(|text| !text.is_empty()),
        data: None,
    }
}

/// A READ cut into data and holes, in any order, DONE on the last piece or in a chunk of its own.
fn pieces(request: &Request, chance: &mut Chance) -> Vec<Vec<u8>> {
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
            ReplyTo::structured(request.cookie).hole(flags, offset, length).to_vec()
        } else {
            [
                &ReplyTo::structured(request.cookie).offset_data(flags, offset, length)[..],
                &data,
            ]
            .concat()
        });
    }
    if separate {
        frames.push(ReplyTo::structured(request.cookie).none().to_vec());
    }
    frames
}
