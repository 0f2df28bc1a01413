#![allow(clippy::unwrap_used, clippy::expect_used)]
use alloc::borrow::ToOwned;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

fn chunk_bytes(flags: u16, kind: u16, length: u32) -> Vec<u8> {
    let mut bytes = CHUNK_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&7_u64.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

fn error_payload(error: u32, text_length: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = error.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text_length.to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn a_header_is_complete_with_its_last_byte() {
    let simple = simple_reply(9, Some(NbdError::NoSpace));
    let chunk = ReplyTo::structured(9).none();
    for header in [&simple[..], &chunk] {
        for length in 0..header.len() {
            assert_eq!(ReplyHeader::decode(&header[..length]), Ok(None));
        }
        let (decoded, length) = ReplyHeader::decode(header).unwrap().unwrap();
        assert_eq!((decoded.cookie(), length), (9, header.len()));
    }
}

#[test]
fn a_wrong_magic_is_seen_at_once() {
    assert_eq!(
        ReplyHeader::decode(&[1, 2, 3, 4]),
        Err(PeerMisbehaved::BadReplyMagic(0x0102_0304))
    );
}

#[test]
fn unknown_errors_fail_the_request_and_unknown_content_the_connection() {
    let header = |kind| ReplyHeader::decode(&chunk_bytes(1, kind, 6));
    for kind in [3, 4, 7, 0x7fff] {
        assert_eq!(header(kind), Err(PeerMisbehaved::UnknownChunkType(kind)));
    }
    let Ok(Some((ReplyHeader::Chunk { kind, .. }, _))) = header(0x8003) else {
        panic!("not a chunk")
    };
    assert_eq!(kind, ChunkKind::UnknownError(0x8003));
    assert!(kind.is_error());
    let mut payload = error_payload(5, 2, b"no");
    payload.extend_from_slice(b"later fields");
    let error = ErrorChunk {
        error: NbdError::Io,
        message: "no".to_owned(),
        offset: None,
    };
    assert_eq!(ErrorChunk::decode(kind, &payload), Ok(error));
}

#[test]
fn unknown_reply_flags_are_ignored() {
    let decoded = ReplyHeader::decode(&chunk_bytes(0xffff, chunk::NONE, 0)).unwrap();
    assert!(matches!(
        decoded,
        Some((
            ReplyHeader::Chunk {
                kind: ChunkKind::None,
                ..
            },
            20
        ))
    ));
}

#[test]
fn every_chunk_length_is_checked_against_its_type() {
    let limit = MAX_ERROR_CHUNK;
    let cases = [
        (chunk::NONE, vec![0], vec![1, u32::MAX]),
        (chunk::OFFSET_DATA, vec![9, 1 << 25, u32::MAX], vec![0, 8]),
        (chunk::OFFSET_HOLE, vec![12], vec![0, 8, 11, 13]),
        (chunk::ERROR, vec![6, limit], vec![0, 5, limit + 1, u32::MAX]),
        (chunk::ERROR_OFFSET, vec![14, limit], vec![6, 13, limit + 1]),
        (0x8009, vec![6, limit], vec![5, limit + 1]),
    ];
    for (kind, good, bad) in cases {
        for length in good {
            assert!(
                ReplyHeader::decode(&chunk_bytes(1, kind, length)).is_ok(),
                "{kind:#x} {length}"
            );
        }
        for length in bad {
            let fault = PeerMisbehaved::WrongChunkLength {
                kind,
                length: u64::from(length),
            };
            assert_eq!(ReplyHeader::decode(&chunk_bytes(1, kind, length)), Err(fault));
        }
    }
}

#[test]
fn an_empty_chunk_must_be_the_last() {
    let fault = PeerMisbehaved::NoneChunkNotDone;
    assert_eq!(ReplyHeader::decode(&chunk_bytes(0, chunk::NONE, 0)), Err(fault));
}

#[test]
fn error_chunks_are_checked_field_by_field() {
    let decode = ErrorChunk::decode;
    let (plain, located) = (ChunkKind::Error, ChunkKind::ErrorOffset);
    assert_eq!(
        decode(plain, &error_payload(0, 0, b"")),
        Err(PeerMisbehaved::ErrorChunkWithoutError)
    );
    let fault = PeerMisbehaved::ErrorTextTruncated {
        length: 8,
        announced: 3,
    };
    assert_eq!(decode(plain, &error_payload(5, 3, b"no")), Err(fault));
    assert_eq!(
        decode(plain, &error_payload(5, 1, b"no")),
        Err(PeerMisbehaved::ErrorChunkTooLong(1))
    );
    assert_eq!(
        decode(located, &error_payload(5, 0, b"123456789")),
        Err(PeerMisbehaved::ErrorChunkTooLong(1))
    );
    let fault = PeerMisbehaved::WrongChunkLength {
        kind: chunk::ERROR_OFFSET,
        length: 13,
    };
    assert_eq!(decode(located, &error_payload(5, 0, b"1234567")), Err(fault));
    let long = vec![b'x'; 4097];
    let fault = PeerMisbehaved::StringTooLong {
        what: "error text",
        length: 4097,
    };
    assert_eq!(decode(plain, &error_payload(5, 4097, &long)), Err(fault));
    let text = decode(plain, &error_payload(9999, 2, &[0xff, b'!'])).unwrap();
    assert_eq!((text.error, text.message.as_str()), (NbdError::Invalid, "\u{fffd}!"));
}

#[test]
fn a_hole_has_a_length() {
    let chunk = ReplyTo::structured(1).hole(ReplyFlags::empty(), 4096, 512);
    let payload = chunk.last_chunk::<12>().unwrap();
    assert_eq!(decode_hole(payload), Ok((4096, 512)));
    assert_eq!(decode_hole(&[0; 12]), Err(PeerMisbehaved::EmptyHole));
}

#[test]
fn long_error_texts_are_cut_to_what_the_protocol_allows() {
    let bytes = ReplyTo::structured(1).error(NbdError::Io, &"é".repeat(4000), Some(77));
    let (header, length) = ReplyHeader::decode(&bytes).unwrap().unwrap();
    let ReplyHeader::Chunk {
        kind,
        flags,
        length: payload,
        ..
    } = header
    else {
        panic!("{header:?}")
    };
    assert_eq!((flags, payload as usize), (ReplyFlags::DONE, bytes.len() - length));
    let error = ErrorChunk::decode(kind, &bytes[length..]).unwrap();
    assert_eq!(
        (error.error, error.message.len(), error.offset),
        (NbdError::Io, 4096, Some(77))
    );
}

#[test]
fn errors_outside_the_protocol_count_as_invalid() {
    for error in NbdError::ALL {
        assert_eq!(NbdError::from_wire(error.to_wire()), error);
    }
    for value in [2, 13, 30, 9999, u32::MAX] {
        assert_eq!(NbdError::from_wire(value), NbdError::Invalid);
    }
}
