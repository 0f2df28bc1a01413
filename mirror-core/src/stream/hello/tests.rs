#![allow(clippy::unwrap_used)]

use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::*;

fn hello(node: &str) -> Hello {
    let credit = Credit {
        bytes: 1 << 20,
        requests: 64,
    };
    let mut hello = Hello::new(node.to_string(), 0xc1, 0xc3, "r".to_string(), credit);
    hello.volumes = vec![HelloVolume {
        name: "db".to_string(),
        size: 1 << 30,
        minimum_block: 512,
    }];
    hello
}

/// The same bytes with another content, its CRC right again.
fn with(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len() - CRC_BYTES].to_vec();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes);
    bytes.u32(crc);
    bytes
}

/// Made by another program than this one.
#[test]
fn golden_hello() {
    let golden = "424d53545245414d 0300 0300 0100 03000000 010061 0200 08000000 c100000000000000 \
                  0300 08000000 c300000000000000 0400 03000000 010072 \
                  0500 0c000000 0000100000000000 40000000 0600 08000000 0200000000000000 \
                  0700 10000000 0200 6462 0000004000000000 00020000 341773c8";
    let hex: String = hello("a").encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.split_whitespace().collect::<String>());
    assert_eq!(Hello::decode(&hello("a").encode()), Ok(hello("a")));
}

#[test]
fn the_older_of_two_releases_decides() {
    let newer = Hello {
        version_min: 1,
        version_max: 7,
        features: u64::MAX,
        ..hello("b")
    };
    // It says things that this build has never heard of, in a field of its own and behind a known one.
    let bytes = with(&newer.encode(), |bytes| {
        field(bytes, 900, |value| value.put(b"of the future"));
        field(bytes, tag::VOLUME, |value| {
            value.name("later");
            value.u64(4096);
            value.u32(1);
            value.put(b"and more");
        });
    });
    let got = Hello::decode(&bytes).unwrap();
    assert_eq!(got.volumes.len(), 2);
    assert_eq!(got.volume("later"), Some(1));
    let (mine, expected) = (
        hello("a"),
        Agreed {
            version: VERSION,
            features: FEATURES,
            digest_seed: 0,
        },
    );
    assert_eq!(agree(&mine, &got), Ok(expected));
    assert_eq!(agree(&got, &mine), Ok(expected));
}

/// A release that knew neither features nor credits nor salt.
#[test]
fn an_older_hello_has_what_was_before_there_were_fields() {
    let mut bytes = Vec::new();
    bytes.put(MAGIC);
    bytes.u16(0);
    bytes.u16(VERSION);
    field(&mut bytes, tag::NODE, |value| value.name("b"));
    field(&mut bytes, tag::INCARNATION, |value| value.u64(5));
    field(&mut bytes, tag::RESOURCE, |value| value.name("r"));
    let crc = crc32fast::hash(&bytes);
    bytes.u32(crc);
    let older = Hello::decode(&bytes).unwrap();
    assert_eq!((older.credit, older.features, older.salt), (Credit::DEFAULT, 0, 0));
    let agreed = agree(&hello("a"), &older).unwrap();
    assert_eq!((agreed.version, agreed.features), (VERSION, 0));
    assert_eq!(agreed.digest_seed, 0xc3);
}

#[test]
fn what_does_not_fit_is_said_in_words() {
    let mine = hello("a");
    let future = Hello {
        version_min: VERSION + 1,
        version_max: VERSION + 2,
        ..hello("b")
    };
    for (a, b) in [(&mine, &future), (&future, &mine)] {
        assert!(agree(a, b).unwrap_err().to_string().contains("no common version"));
    }
    let other = Hello {
        resource: "q".to_string(),
        ..hello("b")
    };
    assert!(agree(&mine, &other).unwrap_err().to_string().contains("\"q\""));
    assert_eq!(agree(&mine, &mine), Err(HelloError::SameNode("a".to_string())));
}

#[test]
fn malformed_hellos() {
    let good = hello("a").encode();
    let bad = |bytes: &[u8]| {
        assert!(
            matches!(Hello::decode(bytes), Err(HelloError::Malformed(_))),
            "{bytes:02x?}"
        );
    };
    for length in 0..good.len() {
        bad(&good[..length]);
    }
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        bad(&damaged);
    }
    bad(&vec![0; HELLO_BYTES_MAX + 1]);
    bad(&with(&good, |bytes| bytes[0] = b'X'));
    bad(&with(&good, |bytes| bytes[8] = 9));
    bad(&with(&good, |bytes| field(bytes, tag::NODE, |value| value.name(""))));
    bad(&with(&good, |bytes| field(bytes, tag::NODE, |value| value.name("a\0"))));
    bad(&with(&good, |bytes| {
        field(bytes, tag::INCARNATION, |value| value.u8(1));
    }));
    bad(&with(&good, |bytes| bytes.put(&[9, 0, 255, 255, 255, 255])));
    let volume = |bytes: &mut Vec<u8>, name: &str| {
        field(bytes, tag::VOLUME, |value| {
            value.name(name);
            value.u64(1);
            value.u32(1);
        });
    };
    bad(&with(&good, |bytes| volume(bytes, "db")));
    bad(&with(&good, |bytes| volume(bytes, "a")));
    bad(&with(&good, |bytes| {
        (0..VOLUMES_MAX).for_each(|index| volume(bytes, &format!("e{index:04}")));
    }));
}

proptest! {
    #[test]
    fn any_hello_survives(node in "[a-z]{1,40}", resource in "[a-z]{1,40}", numbers: (u64, u64, u64, u16, u16),
                          volumes in prop::collection::btree_map("[a-z]{1,40}", any::<(u64, u32)>(), 0..9)) {
        let hello = Hello {
            version_min: numbers.3.min(numbers.4),
            version_max: numbers.3.max(numbers.4),
            features: numbers.2,
            volumes: volumes
                .into_iter()
                .map(|(name, (size, minimum_block))| HelloVolume { name, size, minimum_block })
                .collect(),
            ..Hello::new(node, numbers.0, numbers.1, resource, Credit::DEFAULT)
        };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Hello::decode(&bytes).is_err());
        read_any(&[&b"BMSTREAM\x01\0\x01\0"[..], &bytes].concat());
    }
}
