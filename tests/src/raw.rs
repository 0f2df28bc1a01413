//! NBD spoken by hand: every byte is written out here, independent of the project's own codec, so that a mistake of
//! the codec cannot hide in the test of the codec. Blocking, with a deadline on every read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const DEADLINE: Duration = Duration::from_secs(15);
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Commands.
pub mod command {
    #![allow(missing_docs)]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 2;
    pub const DF: u16 = 4;
}

/// Options and their replies.
pub mod option {
    #![allow(missing_docs)]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const REPLY_INFO: u32 = 3;
    pub const ERROR_UNSUPPORTED: u32 = 0x8000_0001;
    pub const ERROR_INVALID: u32 = 0x8000_0003;
    pub const ERROR_UNKNOWN: u32 = 0x8000_0006;
    pub const ERROR_TOO_BIG: u32 = 0x8000_0009;
}

/// Wire errors.
pub mod errno {
    #![allow(missing_docs)]
    pub const PERM: u32 = 1;
    pub const IO: u32 = 5;
    pub const INVALID: u32 = 22;
    pub const NO_SPACE: u32 = 28;
    pub const OVERFLOW: u32 = 75;
    pub const NOT_SUPPORTED: u32 = 95;
    pub const SHUTDOWN: u32 = 108;
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// Of a server on its standard descriptors. Reads have no deadline.
    Pipes(ChildStdin, ChildStdout),
}

/// One connection.
pub struct Raw {
    stream: Stream,
    next_cookie: u64,
    /// Size of the export, once [`Raw::go`] has succeeded.
    pub size: u64,
    /// Its transmission flags.
    pub flags: u16,
}

/// A reply to an option.
#[derive(Debug)]
pub struct OptionReply {
    /// The reply type.
    pub kind: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Raw {
    /// Connects, says nothing.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self::over(Stream::Unix(stream)))
    }

    /// The same over TCP.
    pub fn connect_tcp(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Stream::Tcp(stream)))
    }

    /// Speaks to a server that was started with these pipes.
    pub fn over_pipes(to_server: ChildStdin, from_server: ChildStdout) -> Self {
        Self::over(Stream::Pipes(to_server, from_server))
    }

    /// Connects and opens `export` with GO and simple replies.
    pub fn open(socket: &Path, export: &str) -> Result<Self> {
        let mut raw = Self::connect(socket)?;
        raw.greet(3)?;
        raw.go(export)?;
        Ok(raw)
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            next_cookie: 1,
            size: 0,
            flags: 0,
        }
    }

    /// The same connection once more, to send from another thread.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self::over(match &self.stream {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Pipes(..) => bail!("pipes have one owner"),
        }))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes)?,
            Stream::Tcp(stream) => stream.write_all(bytes)?,
            Stream::Pipes(to_server, _) => to_server.write_all(bytes)?,
        }
        Ok(())
    }

    /// Receives exactly `length` bytes.
    pub fn receive(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        match &mut self.stream {
            Stream::Unix(stream) => stream.read_exact(&mut bytes),
            Stream::Tcp(stream) => stream.read_exact(&mut bytes),
            Stream::Pipes(_, from_server) => from_server.read_exact(&mut bytes),
        }
        .with_context(|| format!("waiting for {length} bytes"))?;
        Ok(bytes)
    }

    /// Whether the server closes the connection, discarding what it says before that.
    pub fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let result = match &mut self.stream {
                Stream::Unix(stream) => stream.read(&mut buffer),
                Stream::Tcp(stream) => stream.read(&mut buffer),
                Stream::Pipes(_, from_server) => from_server.read(&mut buffer),
            };
            match result {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Whether the server closes the connection without saying anything more.
    pub fn ends(&mut self) -> Result<bool> {
        let mut buffer = [0; 1];
        let received = match &mut self.stream {
            Stream::Unix(stream) => stream.read(&mut buffer),
            Stream::Tcp(stream) => stream.read(&mut buffer),
            Stream::Pipes(_, from_server) => from_server.read(&mut buffer),
        };
        Ok(received.context("waiting for the end")? == 0)
    }

    /// Reads the greeting, answers with these client flags.
    pub fn greet(&mut self, client_flags: u32) -> Result<u16> {
        let greeting = self.receive(18)?;
        ensure!(&greeting[..16] == b"NBDMAGICIHAVEOPT", "greeting {greeting:02x?}");
        self.send(&client_flags.to_be_bytes())?;
        Ok(u16::from_be_bytes([greeting[16], greeting[17]]))
    }

    /// Sends an option header and payload.
    pub fn send_option(&mut self, option: u32, payload: &[u8]) -> Result<()> {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(u32::try_from(payload.len())?.to_be_bytes());
        bytes.extend(payload);
        self.send(&bytes)
    }

    /// Sends an option, collects its replies up to the final one.
    pub fn option(&mut self, option: u32, payload: &[u8]) -> Result<Vec<OptionReply>> {
        self.send_option(option, payload)?;
        let mut replies = Vec::new();
        loop {
            let reply = self.option_reply(option)?;
            let last = reply.kind == option::ACK || reply.kind & 0x8000_0000 != 0;
            replies.push(reply);
            if last {
                return Ok(replies);
            }
        }
    }

    fn option_reply(&mut self, option: u32) -> Result<OptionReply> {
        let header = self.receive(20)?;
        ensure!(
            header[..8] == OPTION_REPLY_MAGIC.to_be_bytes(),
            "option reply {header:02x?}"
        );
        ensure!(
            word(&header, 8) == option,
            "a reply to option {} instead of {option}",
            word(&header, 8)
        );
        let length = word(&header, 16) as usize;
        ensure!(length <= 65536, "an option reply of {length} bytes");
        Ok(OptionReply {
            kind: word(&header, 12),
            payload: self.receive(length)?,
        })
    }

    /// GO; keeps size and flags.
    pub fn go(&mut self, export: &str) -> Result<()> {
        let replies = self.option(option::GO, &info_request(export, &[]))?;
        for reply in &replies {
            if reply.kind == option::REPLY_INFO && reply.payload[..2] == [0, 0] {
                self.size = u64::from_be_bytes(reply.payload[2..10].try_into()?);
                self.flags = u16::from_be_bytes(reply.payload[10..12].try_into()?);
            }
        }
        match replies.last() {
            Some(reply) if reply.kind == option::ACK => Ok(()),
            reply => bail!("GO {export:?} was refused: {reply:x?}"),
        }
    }

    /// Sends a request header; the cookie it used.
    pub fn request(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.send(&request(flags, command, cookie, offset, length))?;
        Ok(cookie)
    }

    /// Sends a write without waiting for its reply.
    pub fn send_write(&mut self, flags: u16, offset: u64, data: &[u8]) -> Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut bytes = request(flags, command::WRITE, cookie, offset, u32::try_from(data.len())?).to_vec();
        bytes.extend(data);
        self.send(&bytes)?;
        Ok(cookie)
    }

    /// Receives a simple reply: cookie and error.
    pub fn reply(&mut self) -> Result<(u64, u32)> {
        let header = self.receive(16)?;
        ensure!(word(&header, 0) == SIMPLE_REPLY_MAGIC, "reply {header:02x?}");
        Ok((u64::from_be_bytes(header[8..16].try_into()?), word(&header, 4)))
    }

    /// Receives one structured reply chunk: flags, type, cookie, payload.
    pub fn chunk(&mut self) -> Result<(u16, u16, u64, Vec<u8>)> {
        let header = self.receive(20)?;
        ensure!(word(&header, 0) == STRUCTURED_REPLY_MAGIC, "chunk {header:02x?}");
        let (flags, kind) = (word(&header, 4) >> 16, word(&header, 4) & 0xffff);
        let cookie = u64::from_be_bytes(header[8..16].try_into()?);
        let payload = self.receive(word(&header, 16) as usize)?;
        Ok((u16::try_from(flags)?, u16::try_from(kind)?, cookie, payload))
    }

    /// One request without payload and its simple reply: the error, 0 for success.
    pub fn call(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> Result<u32> {
        let cookie = self.request(flags, command, offset, length)?;
        self.answer(cookie)
    }

    /// One write and its reply.
    pub fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> Result<u32> {
        let cookie = self.send_write(flags, offset, data)?;
        self.answer(cookie)
    }

    /// One read that must succeed.
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let error = self.call(0, command::READ, offset, length)?;
        ensure!(error == 0, "reading {length} bytes at {offset}: error {error}");
        self.receive(length as usize)
    }

    /// One flush that must succeed.
    pub fn flush(&mut self) -> Result<()> {
        let error = self.call(0, command::FLUSH, 0, 0)?;
        ensure!(error == 0, "flush: error {error}");
        Ok(())
    }

    fn answer(&mut self, cookie: u64) -> Result<u32> {
        let (answered, error) = self.reply()?;
        ensure!(answered == cookie, "a reply to {answered} instead of {cookie}");
        Ok(error)
    }
}

/// The payload of INFO and GO.
pub fn info_request(export: &str, items: &[u16]) -> Vec<u8> {
    let mut bytes = (export.len() as u32).to_be_bytes().to_vec();
    bytes.extend(export.as_bytes());
    bytes.extend((items.len() as u16).to_be_bytes());
    bytes.extend(items.iter().flat_map(|item| item.to_be_bytes()));
    bytes
}

/// A request header.
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
