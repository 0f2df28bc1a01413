//! BLOCK_STATUS, holes in what is read, zeroing that must be fast.

use nbd_proto::constants::command;
use nbd_proto::reply::{ReplyHeader, decode_hole, decode_status};
use nbd_proto::{
    ChunkKind, Command, CommandFlags, Context, Extent, NbdError, ReplyFlags, ReplyStyle, Request, StatusFilter,
};

use super::host::Host;
use super::rig::{Build, MIB, Rig};
use super::transmission::on_both_engines;
use crate::ring::EngineChoice;

const CHUNKED: [ReplyStyle; 2] = [ReplyStyle::Structured, ReplyStyle::Extended];

fn rig(engine: EngineChoice) -> Rig {
    Build::memory(engine, 16 * MIB).start()
}

fn contexts(names: &[&str]) -> Vec<Context> {
    let named = (7..).zip(names);
    named
        .map(|(id, name)| Context {
            id,
            name: (*name).to_owned(),
        })
        .collect()
}

/// What the chunks of one reply are.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Data(u64, Vec<u8>),
    Hole(u64, u32),
    Status(u32, Vec<(u64, u64)>),
    Failed(NbdError),
    End,
}

impl Host {
    /// The chunks of one reply to a request for `offset`.
    fn pieces(&mut self, offset: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            let header = self.exactly(self.style.chunk_header_length());
            let ReplyHeader::Chunk {
                flags,
                kind,
                length,
                offset: echo,
                ..
            } = ReplyHeader::decode(&header).unwrap().unwrap().0
            else {
                panic!("a simple reply")
            };
            assert_eq!(echo, (self.style == ReplyStyle::Extended).then_some(offset));
            let payload = self.exactly(length as usize);
            pieces.push(match kind {
                ChunkKind::OffsetData => {
                    let (at, data) = payload.split_first_chunk().unwrap();
                    Piece::Data(u64::from_be_bytes(*at), data.to_vec())
                }
                ChunkKind::OffsetHole => {
                    let (at, length) = decode_hole(payload.first_chunk().unwrap()).unwrap();
                    Piece::Hole(at, length)
                }
                ChunkKind::BlockStatus | ChunkKind::BlockStatusExt => {
                    assert_eq!(kind == ChunkKind::BlockStatusExt, self.style == ReplyStyle::Extended);
                    let (context, extents) = decode_status(kind, &payload).unwrap();
                    let plain = |extent: Extent| (extent.length, extent.flags);
                    Piece::Status(context, extents.into_iter().map(plain).collect())
                }
                ChunkKind::None => Piece::End,
                _ => Piece::Failed(NbdError::from_wire(u32::from_be_bytes(*payload.first_chunk().unwrap()))),
            });
            if flags.contains(ReplyFlags::DONE) {
                return pieces;
            }
        }
    }

    fn status(&mut self, offset: u64, length: u64, one: bool) -> Vec<Piece> {
        self.ask(Command::BlockStatus { one }, 3, offset, length);
        self.pieces(offset)
    }

    fn read_pieces(&mut self, offset: u64, length: u64, df: bool) -> Vec<Piece> {
        self.ask(Command::Read { df }, 4, offset, length);
        self.pieces(offset)
    }
}

const HOLE: u64 = 3;

#[test]
fn the_images_extents_are_told() {
    on_both_engines(|engine| {
        for style in CHUNKED {
            let rig = rig(engine);
            let mut host = rig.connect_with(style, contexts(&["base:allocation"]));
            let told = |extents: &[(u64, u64)]| vec![Piece::Status(7, extents.to_vec())];
            assert_eq!(host.status(0, 16 * MIB, false), told(&[(16 * MIB, HOLE)]));
            host.write(4 * MIB, &[1; 1 << 20]);
            host.write(5 * MIB, &[1; 64 << 10]);
            let data = MIB + (64 << 10);
            let all = [(4 * MIB, HOLE), (data, 0), (12 * MIB - data, HOLE)];
            assert_eq!(host.status(0, 16 * MIB, false), told(&all));
            assert_eq!(host.status(0, 16 * MIB, true), told(&all[..1]), "REQ_ONE");
            assert_eq!(
                host.status(MIB, MIB, false),
                told(&[(MIB, HOLE)]),
                "no more than was asked"
            );
            assert_eq!(host.status(4 * MIB + 512, 512, true), told(&[(512, 0)]));
            host.ask(Command::Trim { fua: false }, 1, 4 * MIB, 2 * MIB);
            host.expect_ok(1);
            assert_eq!(host.status(0, 16 * MIB, false), told(&[(16 * MIB, HOLE)]));
        }
    });
}

#[test]
fn what_is_asked_beside_the_rules_is_refused_and_the_stream_stays_in_step() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        for style in CHUNKED {
            let mut host = rig.connect_with(style, contexts(&["base:allocation"]));
            for (offset, length) in [(16 * MIB, 512), (0, 0), (512, 16 * MIB), (u64::MAX, 2)] {
                assert_eq!(host.status(offset, length, false), [Piece::Failed(NbdError::Invalid)]);
            }
            let mut none = rig.connect_in(style);
            assert_eq!(
                none.status(0, 512, false),
                [Piece::Failed(NbdError::Invalid)],
                "no context"
            );
            host.write(0, &[1; 512]);
        }
    });
}

#[test]
fn a_filter_leaves_contexts_out_and_a_bad_one_is_swallowed() {
    on_both_engines(|engine| {
        let rig = rig(engine);
        let names = [
            "base:allocation",
            "x-blockmirror:dirty/nobody",
            "qemu:dirty-bitmap:nobody",
        ];
        let mut host = rig.connect_with(ReplyStyle::Extended, contexts(&names));
        let mut ask = |ids: &[u32], cut: usize| {
            let filter = StatusFilter {
                length: MIB,
                contexts: ids.to_vec(),
            };
            let payload = filter.encode();
            let payload = &payload[..payload.len() - cut];
            host.send_request(Request {
                flags: CommandFlags::PAYLOAD_LEN,
                command: command::BLOCK_STATUS,
                cookie: 3,
                offset: 4096,
                length: payload.len() as u64,
            });
            let (first, rest) = payload.split_at(5);
            host.send(first);
            host.send(rest);
            host.pieces(4096)
        };
        let unknown_peer = |id| Piece::Status(id, vec![(MIB, 1)]);
        assert_eq!(ask(&[9], 0), [unknown_peer(9)]);
        assert_eq!(ask(&[9, 7], 0), [Piece::Status(7, vec![(MIB, HOLE)]), unknown_peer(9)]);
        let all = [Piece::Status(7, vec![(MIB, HOLE)]), unknown_peer(8), unknown_peer(9)];
        assert_eq!(ask(&[7, 8, 9], 0), all);
        let refused = [Piece::Failed(NbdError::Invalid)];
        for (ids, cut) in [(&[6][..], 0), (&[7, 7], 0), (&[], 0), (&[7], 1), (&[7; 70], 0)] {
            assert_eq!(ask(ids, cut), refused, "{ids:?}");
        }
        host.write(0, &[1; 512]);
    });
}

#[test]
fn long_runs_of_zeroes_are_read_as_holes() {
    const RUN: u64 = 64 << 10;
    on_both_engines(|engine| {
        for style in CHUNKED {
            let rig = rig(engine);
            let mut host = rig.connect_in(style);
            let data = vec![5; RUN as usize];
            host.write(4 * RUN, &data);
            host.write(8 * RUN, &vec![0; 2 * RUN as usize]);
            assert_eq!(host.read_pieces(0, RUN, false), [Piece::Hole(0, RUN as u32)]);
            assert_eq!(
                host.read_pieces(0, RUN, true),
                [Piece::Hole(0, RUN as u32)],
                "one chunk"
            );
            let short = vec![Piece::Data(0, vec![0; 4096])];
            assert_eq!(host.read_pieces(0, 4096, false), short, "too short to be worth it");
            let mixed = [
                Piece::Hole(2 * RUN, 2 * RUN as u32),
                Piece::Data(4 * RUN, data.clone()),
                Piece::Hole(5 * RUN, 5 * RUN as u32),
            ];
            assert_eq!(host.read_pieces(2 * RUN, 8 * RUN, false), mixed);
            let whole = [vec![0; 2 * RUN as usize], data.clone(), vec![0; RUN as usize]].concat();
            assert_eq!(
                host.read_pieces(2 * RUN, 4 * RUN, true),
                [Piece::Data(2 * RUN, whole)],
                "DF"
            );
            let end = [data.clone(), vec![0; 512]].concat();
            assert_eq!(host.read_pieces(4 * RUN, RUN + 512, false), [Piece::Data(4 * RUN, end)]);
        }
        let rig = rig(engine);
        let mut simple = rig.connect(false);
        assert_eq!(simple.read(0, 1 << 20), vec![0; 1 << 20]);
    });
}

#[test]
fn a_fast_zero_is_fast_or_changes_nothing() {
    let zero = |no_hole, fast| Command::WriteZeroes {
        fua: false,
        no_hole,
        fast,
    };
    on_both_engines(|engine| {
        let rig = rig(engine);
        let mut host = rig.connect(true);
        host.write(0, &[1; 8192]);
        host.ask(zero(true, true), 1, 0, 4096);
        let (_, refused) = host.answer(|_| 0);
        assert_eq!(refused.unwrap_err().0, NbdError::NotSupported, "that it cannot do fast");
        assert_eq!(host.read(0, 8192), [1; 8192]);
        host.ask(zero(true, false), 2, 4096, 4096);
        host.expect_ok(2);
        host.ask(zero(false, true), 3, 0, 4096);
        host.expect_ok(3);
        assert_eq!(host.read(0, 8192), [0; 8192]);
    });
}

#[test]
fn what_differs_from_a_peer_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let nobody: super::rig::Dial = Box::new(|_| Err("nobody is there".to_owned()));
    let rig = Build::memory(EngineChoice::Auto, 16 * MIB)
        .with_peer(directory.path(), super::peer::equal_peer(), nobody)
        .start();
    let name = rig.snapshot().peers[0].name.clone();
    let names = [
        format!("x-blockmirror:dirty/{name}"),
        format!("qemu:dirty-bitmap:{name}"),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for style in CHUNKED {
        let mut host = rig.connect_with(style, contexts(&names));
        let both = |extents: &[(u64, u64)]| [7, 8].map(|id| Piece::Status(id, extents.to_vec()));
        if style == CHUNKED[0] {
            assert_eq!(host.status(0, 16 * MIB, false), both(&[(16 * MIB, 0)]));
            host.write(4 * MIB + 100, &[1; 8192]);
        }
        let run = 3 * 4096;
        let all = [(4 * MIB, 0), (run, 1), (12 * MIB - run, 0)];
        assert_eq!(host.status(0, 16 * MIB, false), both(&all));
        assert_eq!(host.status(4 * MIB + 512, 512, false), both(&[(512, 1)]));
        assert_eq!(host.status(0, 16 * MIB, true), both(&all[..1]));
    }
}
