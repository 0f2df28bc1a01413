//! What hostile and broken clients do. Each goes on until it is told to stop, or is done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::EXPORT;
use crate::load::Random;
use crate::raw::{Raw, command, option, request};

/// Between the bytes of a client that sends one at a time.
const DRIP: Duration = Duration::from_millis(100);
/// Between the connections of clients that come again and again: the machine is theirs, too.
const AGAIN: Duration = Duration::from_millis(2);
/// Connections that are held open by attacks that hold some.
const HELD: usize = 64;
const MIB: u32 = 1 << 20;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Negotiates, one byte at a time.
    SlowHandshake,
    /// Promises the largest payload, and sends one byte at a time.
    SlowPayload,
    /// Goes silent in the middle of a request.
    HalfOpen,
    /// Leaves with unread replies: a reset.
    Reset,
    /// Sends what comes to its mind, before and after the handshake.
    Garbage,
    /// One connection after the other.
    OneAfterAnother,
    /// A thousand connections at once.
    AllAtOnce,
    /// Asks for all it can, and reads nothing.
    NeverReads,
}

/// Whom to attack, and until when.
pub struct Target<'a> {
    /// Host and port.
    pub address: &'a str,
    /// Set when it is enough.
    pub stop: &'a AtomicBool,
    /// Connections of [`Attack::OneAfterAnother`].
    pub one_after_another: usize,
    /// Connections of [`Attack::AllAtOnce`].
    pub at_once: usize,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SlowHandshake,
        Self::SlowPayload,
        Self::HalfOpen,
        Self::Reset,
        Self::Garbage,
        Self::OneAfterAnother,
        Self::AllAtOnce,
        Self::NeverReads,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHandshake => "slow-handshake",
            Self::SlowPayload => "slow-payload",
            Self::HalfOpen => "half-open",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::OneAfterAnother => "one-after-another",
            Self::AllAtOnce => "all-at-once",
            Self::NeverReads => "never-reads",
        }
    }

    /// Do it. What the server does about it is no error, but what a well-behaved client could not do at all is.
    ///
    /// # Errors
    /// A connection in order is not served.
    pub fn run(self, target: &Target<'_>) -> Result<u64> {
        match self {
            Self::SlowHandshake => Ok(drip(
                target,
                |stream| stream.read(&mut [0; 64]).is_ok(),
                &greeting_and_go(),
            )),
            Self::SlowPayload => {
                let promise = request(0, command::WRITE, 1, 0, 32 * MIB);
                Ok(drip(
                    target,
                    |stream| open(stream).is_ok() && stream.write_all(&promise).is_ok(),
                    &[7; 1024],
                ))
            }
            Self::HalfOpen => Ok(hold(target, &request(0, command::READ, 1, 0, MIB)[..20])),
            Self::NeverReads => {
                let wish: Vec<u8> = (0..64).flat_map(|n| request(0, command::READ, n, 0, 8 * MIB)).collect();
                Ok(hold(target, &wish))
            }
            Self::Reset => Ok(again(target, |stream, _| {
                let _ = open(stream).and_then(|()| Ok(stream.write_all(&request(0, command::READ, 1, 0, MIB))?));
                // Closed with bytes unread, TCP says so with a reset.
                let _ = stream.read(&mut [0; 16]);
            })),
            Self::Garbage => Ok(again(target, |stream, random| {
                if random.below(2) == 0 {
                    let _ = open(stream);
                }
                let bytes: Vec<u8> = (0..random.below(4096)).map(|_| random.below(256) as u8).collect();
                let _ = stream.write_all(&bytes);
            })),
            Self::OneAfterAnother => one_after_another(target),
            Self::AllAtOnce => all_at_once(target),
        }
    }
}

fn connect(target: &Target<'_>) -> Option<TcpStream> {
    let stream = TcpStream::connect(target.address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(DRIP)).ok()?;
    Some(stream)
}

/// Client flags and GO.
fn greeting_and_go() -> Vec<u8> {
    let go = crate::raw::info_request(EXPORT, &[]);
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend(b"IHAVEOPT");
    bytes.extend(option::GO.to_be_bytes());
    bytes.extend((go.len() as u32).to_be_bytes());
    bytes.extend(go);
    bytes
}

/// Negotiate, without looking at what is said.
fn open(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&greeting_and_go())?;
    // The greeting, one INFO and the ACK.
    stream.read_exact(&mut [0; 18 + 20 + 12 + 20])?;
    Ok(())
}

fn goes_on(target: &Target<'_>) -> bool {
    !target.stop.load(Ordering::Relaxed)
}

/// Connections that have `begun`, and send one byte of `bytes` at a time; those that are cut off come again.
fn drip(target: &Target<'_>, begun: impl Fn(&mut TcpStream) -> bool, bytes: &[u8]) -> u64 {
    let mut held: Vec<(TcpStream, usize)> = Vec::new();
    let mut made = 0;
    while goes_on(target) {
        held.retain_mut(|(stream, at)| {
            let byte = bytes.get(*at % bytes.len()).copied().unwrap_or_default();
            *at += 1;
            stream.write_all(&[byte]).is_ok()
        });
        while held.len() < HELD && goes_on(target) {
            let Some(mut stream) = connect(target) else { break };
            if !begun(&mut stream) {
                break;
            }
            made += 1;
            held.push((stream, 0));
        }
        std::thread::sleep(DRIP);
    }
    made
}

/// Connections that say this much, and nothing any more.
fn hold(target: &Target<'_>, bytes: &[u8]) -> u64 {
    let mut held = Vec::new();
    for _ in 0..HELD {
        if let Some(mut stream) = connect(target)
            && open(&mut stream).is_ok()
        {
            let _ = stream.write_all(bytes);
            held.push(stream);
        }
    }
    while goes_on(target) {
        std::thread::sleep(DRIP);
    }
    held.len() as u64
}

/// A connection, what it does, and the next one.
fn again(target: &Target<'_>, mut attack: impl FnMut(&mut TcpStream, &mut Random)) -> u64 {
    let mut random = Random::new(5);
    let mut made = 0;
    while goes_on(target) {
        if let Some(mut stream) = connect(target) {
            attack(&mut stream, &mut random);
            made += 1;
        }
        std::thread::sleep(AGAIN);
    }
    made
}

fn one_after_another(target: &Target<'_>) -> Result<u64> {
    for _ in 0..target.one_after_another {
        let mut raw = Raw::connect_tcp(target.address)?;
        raw.greet(3)?;
        raw.go(EXPORT)?;
        ensure!(raw.read(0, 512)?.len() == 512);
        raw.request(0, command::DISCONNECT, 0, 0)?;
    }
    Ok(target.one_after_another as u64)
}

fn all_at_once(target: &Target<'_>) -> Result<u64> {
    let mut held = Vec::new();
    for _ in 0..target.at_once {
        let mut raw = Raw::connect_tcp(target.address)?;
        raw.greet(3)?;
        raw.go(EXPORT)?;
        held.push(raw);
    }
    for raw in &mut held {
        raw.request(0, command::READ, 0, 4096)?;
    }
    for raw in &mut held {
        raw.reply()?;
        raw.receive(4096)?;
    }
    Ok(held.len() as u64)
}
