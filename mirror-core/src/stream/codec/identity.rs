//! What a node says of itself.

use super::request::{disk_code, disk_from};
use super::wire::{Malformed, Reader, Sink};
use crate::config::PEERS_MAX;
use crate::identity::{HISTORY_MAX, Meeting, NodeIdentity, Role, VolumeIdentity, WITHDRAWN_MAX};
use crate::stream::intake::VOLUMES_MAX;

const BITS_TELL: u8 = 1;
const WAS_PRIMARY: u8 = 2;
const ANSWERS_LOST: u8 = 4;
const NODE_FLAGS: u8 = BITS_TELL | WAS_PRIMARY | ANSWERS_LOST;

const FRESH: u8 = 1;
const CRASHED_PRIMARY: u8 = 2;
const ACKS_WAIT: u8 = 4;
const VOLUME_FLAGS: u8 = FRESH | CRASHED_PRIMARY | ACKS_WAIT;
/// Bytes of a volume with an empty name and no list entries.
const VOLUME_LEAST: usize = 2 + 8 + 2 + 8 + 8 + 4 + 4 + 4 + 8 + 8 + 32;

pub(super) fn encode(node: &NodeIdentity, sink: &mut impl Sink) {
    sink.name(&node.node);
    sink.u64(node.incarnation);
    sink.u32(node.revision);
    sink.u8(role_code(node.role));
    sink.u8(u8::from(node.discard_my_data));
    sink.u64(node.primary_since);
    sink.u8(flag(node.bits_tell, BITS_TELL)
        | flag(node.was_primary, WAS_PRIMARY)
        | flag(node.answers_lost, ANSWERS_LOST));
    sink.count(node.volumes.len(), VOLUMES_MAX);
    node.volumes.iter().for_each(|volume| encode_volume(volume, sink));
}

pub(super) fn decode(body: &mut Reader<'_>) -> Result<NodeIdentity, Malformed> {
    let (node, incarnation, revision) = (body.name()?, body.u64()?, body.u32()?);
    let (role, discard_my_data, primary_since) = (role_from(body.u8()?)?, body.bool()?, body.u64()?);
    let flags = body.u8()?;
    if flags & !NODE_FLAGS != 0 {
        return Err(Malformed("a node has flags that are unknown in this version"));
    }
    Ok(NodeIdentity {
        node,
        incarnation,
        revision,
        role,
        discard_my_data,
        primary_since,
        bits_tell: flags & BITS_TELL != 0,
        was_primary: flags & WAS_PRIMARY != 0,
        answers_lost: flags & ANSWERS_LOST != 0,
        volumes: body.list(VOLUME_LEAST, VOLUMES_MAX, decode_volume)?,
    })
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

pub(super) fn role_code(role: Role) -> u8 {
    match role {
        Role::Primary => 1,
        Role::Secondary => 2,
    }
}

pub(super) fn role_from(code: u8) -> Result<Role, Malformed> {
    match code {
        1 => Ok(Role::Primary),
        2 => Ok(Role::Secondary),
        _ => Err(Malformed("a role is unknown in this version")),
    }
}

fn encode_volume(volume: &VolumeIdentity, sink: &mut impl Sink) {
    sink.name(&volume.name);
    sink.u64(volume.size);
    sink.u8(flag(volume.fresh, FRESH)
        | flag(volume.crashed_primary, CRASHED_PRIMARY)
        | flag(volume.acks_wait, ACKS_WAIT));
    sink.u8(disk_code(volume.disk));
    sink.u64(volume.current);
    sink.u64(volume.for_peer);
    sink.numbers(&volume.for_others, PEERS_MAX);
    sink.numbers(&volume.history, HISTORY_MAX);
    sink.numbers(&volume.withdrawn, WITHDRAWN_MAX);
    sink.u64(volume.dirty_bytes);
    sink.u64(volume.sync);
    for meeting in [volume.met, volume.met_before] {
        sink.u64(meeting.count);
        sink.u64(meeting.token);
    }
}

fn decode_volume(body: &mut Reader<'_>) -> Result<VolumeIdentity, Malformed> {
    let name = body.name()?;
    let size = body.u64()?;
    let flags = body.u8()?;
    if flags & !VOLUME_FLAGS != 0 {
        return Err(Malformed("a volume has flags that are unknown in this version"));
    }
    Ok(VolumeIdentity {
        name,
        size,
        fresh: flags & FRESH != 0,
        crashed_primary: flags & CRASHED_PRIMARY != 0,
        acks_wait: flags & ACKS_WAIT != 0,
        disk: disk_from(body.u8()?)?,
        current: body.u64()?,
        for_peer: body.u64()?,
        for_others: body.numbers(PEERS_MAX)?,
        history: body.numbers(HISTORY_MAX)?,
        withdrawn: body.numbers(WITHDRAWN_MAX)?,
        dirty_bytes: body.u64()?,
        sync: body.u64()?,
        met: meeting(body)?,
        met_before: meeting(body)?,
    })
}

fn meeting(body: &mut Reader<'_>) -> Result<Meeting, Malformed> {
    Ok(Meeting {
        count: body.u64()?,
        token: body.u64()?,
    })
}
