//! Control frames.

use super::identity::{self, role_code, role_from};
use super::request::{disk_code, disk_from};
use super::wire::{Malformed, Reader, Sink};
use super::{Header, RUNS_MAX};
use crate::stream::credit::Credit;
use crate::stream::frame::Control;
use crate::stream::intake::VOLUMES_MAX;

pub(super) const FIRST: u8 = IDENTITY;
pub(super) const LAST: u8 = AGAIN;

const IDENTITY: u8 = 64;
const VERDICT: u8 = 65;
const BITMAP: u8 = 66;
const STATE: u8 = 67;
const ASK_DEMOTE: u8 = 68;
const DEMOTED: u8 = 69;
const DEMOTE_REFUSED: u8 = 70;
const PROMOTING: u8 = 71;
const PROMOTE_GRANTED: u8 = 72;
const PROMOTE_REFUSED: u8 = 73;
const GROW: u8 = 74;
const GROWN: u8 = 75;
const GROW_REFUSED: u8 = 76;
const RESIZE: u8 = 77;
const RESIZED: u8 = 78;
const HEARTBEAT: u8 = 79;
const HEARTBEAT_ACK: u8 = 80;
const CREDIT: u8 = 81;
const MEET: u8 = 82;
const MET: u8 = 83;
const GOODBYE: u8 = 84;
const AGAIN: u8 = 85;

pub(super) fn encode(control: &Control, header: &mut Header, sink: &mut impl Sink) {
    header.kind = kind(control);
    match control {
        Control::Identity(node) => identity::encode(node, sink),
        Control::Verdict {
            my_revision,
            your_revision,
            verdicts,
            text,
        } => {
            sink.u32(*my_revision);
            sink.u32(*your_revision);
            sink.count(verdicts.len(), VOLUMES_MAX);
            sink.put(verdicts);
            sink.text(text);
        }
        Control::Bitmap { volume, blocks, last } => {
            header.volume = *volume;
            sink.u8(u8::from(*last));
            sink.runs(blocks, RUNS_MAX);
        }
        Control::State { role, disks } => {
            sink.u8(role_code(*role));
            sink.count(disks.len(), VOLUMES_MAX);
            disks.iter().for_each(|disk| sink.u8(disk_code(*disk)));
        }
        Control::AskDemote | Control::Demoted | Control::Promoting | Control::PromoteGranted => {}
        Control::DemoteRefused(why) | Control::PromoteRefused(why) => sink.text(why),
        Control::Grow { volume, size } | Control::Grown { volume, size } | Control::Resized { volume, size } => {
            header.volume = *volume;
            sink.u64(*size);
        }
        Control::GrowRefused { volume, why } => {
            header.volume = *volume;
            sink.text(why);
        }
        Control::Resize {
            volume,
            size,
            assume_clean,
        } => {
            header.volume = *volume;
            sink.u64(*size);
            sink.u8(u8::from(*assume_clean));
        }
        Control::Heartbeat {
            sent_us,
            lag_us,
            bytes,
            flushes,
            head,
        } => [sent_us, lag_us, bytes, flushes, head]
            .into_iter()
            .for_each(|value| sink.u64(*value)),
        Control::HeartbeatAck { sent_us } => sink.u64(*sent_us),
        Control::Credit { bytes, requests } => {
            sink.u64(*bytes);
            sink.u32(*requests);
        }
        Control::Meet { salt } | Control::Met { salt } => sink.u64(*salt),
        Control::Goodbye { stand_alone, reason } => {
            sink.u8(u8::from(*stand_alone));
            sink.text(reason);
        }
        Control::Again { reason } => sink.text(reason),
    }
}

pub(super) fn decode(header: &Header, body: &mut Reader<'_>) -> Result<Control, Malformed> {
    let volume = header.volume;
    let has_volume = matches!(header.kind, BITMAP | GROW | GROWN | GROW_REFUSED | RESIZE | RESIZED);
    if header.flags != 0 || header.sequence != 0 || (volume != 0 && !has_volume) {
        return Err(Malformed("it has fields that its type has not"));
    }
    Ok(match header.kind {
        IDENTITY => Control::Identity(identity::decode(body)?),
        VERDICT => Control::Verdict {
            my_revision: body.u32()?,
            your_revision: body.u32()?,
            verdicts: body.list(1, VOLUMES_MAX, Reader::u8)?,
            text: body.text()?,
        },
        BITMAP => Control::Bitmap {
            volume,
            last: body.bool()?,
            blocks: body.runs(RUNS_MAX)?,
        },
        STATE => Control::State {
            role: role_from(body.u8()?)?,
            disks: body.list(1, VOLUMES_MAX, |body| disk_from(body.u8()?))?,
        },
        ASK_DEMOTE => Control::AskDemote,
        DEMOTED => Control::Demoted,
        DEMOTE_REFUSED => Control::DemoteRefused(body.text()?),
        PROMOTING => Control::Promoting,
        PROMOTE_GRANTED => Control::PromoteGranted,
        PROMOTE_REFUSED => Control::PromoteRefused(body.text()?),
        GROW => Control::Grow {
            volume,
            size: body.u64()?,
        },
        GROWN => Control::Grown {
            volume,
            size: body.u64()?,
        },
        GROW_REFUSED => Control::GrowRefused {
            volume,
            why: body.text()?,
        },
        RESIZE => Control::Resize {
            volume,
            size: body.u64()?,
            assume_clean: body.bool()?,
        },
        RESIZED => Control::Resized {
            volume,
            size: body.u64()?,
        },
        _ => return decode_life(header.kind, body),
    })
}

/// Those that keep the stream going, and end it.
fn decode_life(kind: u8, body: &mut Reader<'_>) -> Result<Control, Malformed> {
    Ok(match kind {
        HEARTBEAT => Control::Heartbeat {
            sent_us: body.u64()?,
            lag_us: body.u64()?,
            bytes: body.u64()?,
            flushes: body.u64()?,
            head: body.u64()?,
        },
        HEARTBEAT_ACK => Control::HeartbeatAck { sent_us: body.u64()? },
        CREDIT => {
            let (bytes, requests) = (body.u64()?, body.u32()?);
            if bytes > Credit::BYTES_MAX || requests > Credit::REQUESTS_MAX {
                return Err(Malformed("it grants more than a receiver may"));
            }
            Control::Credit { bytes, requests }
        }
        MEET => Control::Meet { salt: body.u64()? },
        MET => Control::Met { salt: body.u64()? },
        GOODBYE => Control::Goodbye {
            stand_alone: body.bool()?,
            reason: body.text()?,
        },
        AGAIN => Control::Again { reason: body.text()? },
        _ => return Err(Malformed("its type is unknown in this version")),
    })
}

fn kind(control: &Control) -> u8 {
    match control {
        Control::Identity(_) => IDENTITY,
        Control::Verdict { .. } => VERDICT,
        Control::Bitmap { .. } => BITMAP,
        Control::State { .. } => STATE,
        Control::AskDemote => ASK_DEMOTE,
        Control::Demoted => DEMOTED,
        Control::DemoteRefused(_) => DEMOTE_REFUSED,
        Control::Promoting => PROMOTING,
        Control::PromoteGranted => PROMOTE_GRANTED,
        Control::PromoteRefused(_) => PROMOTE_REFUSED,
        Control::Grow { .. } => GROW,
        Control::Grown { .. } => GROWN,
        Control::GrowRefused { .. } => GROW_REFUSED,
        Control::Resize { .. } => RESIZE,
        Control::Resized { .. } => RESIZED,
        Control::Heartbeat { .. } => HEARTBEAT,
        Control::HeartbeatAck { .. } => HEARTBEAT_ACK,
        Control::Credit { .. } => CREDIT,
        Control::Meet { .. } => MEET,
        Control::Met { .. } => MET,
        Control::Goodbye { .. } => GOODBYE,
        Control::Again { .. } => AGAIN,
    }
}
