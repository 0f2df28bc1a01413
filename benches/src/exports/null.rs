//! A server that does nothing: it answers every request at once and keeps nothing. What clients get from it is what they
//! can get from any server on this machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nbd_proto::reply::simple_reply;
use nbd_proto::server::{Exports, Handshake, Negotiated, Step};
use nbd_proto::{BlockSizes, ExportInfo, ReplyFlags, ReplyTo, Request, TransmissionFlags};

use crate::systems::IMAGE_SIZE;

/// Bytes received at a time.
const RECEIVE_BYTES: usize = 1 << 20;
/// READs up to this long are gathered with other replies into one send.
const GATHERED_BYTES: usize = 64 << 10;
/// Longest READ that is answered.
const READ_BYTES_MAX: usize = 32 << 20;

/// Serve on a Unix socket until the process ends.
pub fn serve_unix(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || serve(client));
        }
    });
    Ok(())
}

/// Serve on a port of loopback until the process ends. Returns the port.
pub fn serve_tcp() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                client.set_nodelay(true)?;
                serve(client)
            });
        }
    });
    Ok(port)
}

/// A connected stream.
trait Stream: Read + Write {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// One export, whatever its name.
struct Nothing;

impl Exports for Nothing {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        Some(ExportInfo {
            name: name.to_owned(),
            description: String::new(),
            size: IMAGE_SIZE,
            flags: TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA | TransmissionFlags::CAN_MULTI_CONN,
            block_sizes: BlockSizes::default(),
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn serve(mut client: impl Stream) -> Result<()> {
    let mut received = vec![0; RECEIVE_BYTES];
    let Some((negotiated, unread)) = negotiate(&mut client, &mut received)? else {
        return Ok(());
    };
    received[..unread.len()].copy_from_slice(&unread);
    let mut filled = unread.len();
    // A WRITE whose payload is on its way, and how much of it: a client may not expect its answer before.
    let mut halfway: Option<(Request, usize)> = None;
    let (zeroes, mut output) = (vec![0; READ_BYTES_MAX], Vec::new());
    loop {
        let mut at = 0;
        while let Some((request, missing)) = halfway
            .take()
            .or_else(|| header(&negotiated, &received[at..filled], &mut at))
        {
            let there = missing.min(filled - at);
            at += there;
            if there < missing {
                halfway = Some((request, missing - there));
                break;
            }
            if !answer(&request, &negotiated, &zeroes, &mut output, &mut client)? {
                return Ok(());
            }
        }
        client.write_all(&output)?;
        output.clear();
        received.copy_within(at..filled, 0);
        filled -= at;
        match client.read(&mut received[filled..])? {
            0 => return Ok(()),
            count => filled += count,
        }
    }
}

/// The request that begins here and the length of its payload; `at` moves behind the header.
fn header(negotiated: &Negotiated, received: &[u8], at: &mut usize) -> Option<(Request, usize)> {
    let style = negotiated.replies;
    let request = Request::read(style, received).ok()??;
    *at += style.request_length();
    Some((request, request.payload_length(style) as usize))
}

/// False: the client has said good-bye.
fn answer(
    request: &Request,
    negotiated: &Negotiated,
    zeroes: &[u8],
    output: &mut Vec<u8>,
    client: &mut impl Stream,
) -> Result<bool> {
    use nbd_proto::constants::command;
    let reply = ReplyTo {
        style: negotiated.replies,
        cookie: request.cookie,
        offset: request.offset,
    };
    match request.command {
        command::DISCONNECT => return Ok(false),
        command::READ => {}
        _ => {
            output.extend_from_slice(&reply.success());
            return Ok(true);
        }
    }
    let data = zeroes.get(..request.length as usize).context("too long a READ")?;
    if negotiated.replies.has_chunks() {
        output.extend_from_slice(&reply.offset_data(ReplyFlags::DONE, request.offset, request.length as u32));
    } else {
        output.extend_from_slice(&simple_reply(request.cookie, None));
    }
    if data.len() <= GATHERED_BYTES {
        output.extend_from_slice(data);
    } else {
        client.write_all(output)?;
        client.write_all(data)?;
        output.clear();
    }
    Ok(true)
}

/// What was agreed and what came behind it; `None`: the client has left.
fn negotiate(client: &mut impl Stream, input: &mut [u8]) -> Result<Option<(Negotiated, Vec<u8>)>> {
    let mut handshake = Handshake::default();
    client.write_all(&handshake.greeting())?;
    let mut output = Vec::new();
    loop {
        let received = match client.read(input) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        let mut rest = &input[..received];
        while !rest.is_empty() {
            let (consumed, step) = handshake.handle(rest, &Nothing, &mut output);
            rest = &rest[consumed..];
            client.write_all(&output)?;
            output.clear();
            match step {
                Step::NeedMore => {}
                Step::Ready(negotiated) => return Ok(Some((negotiated, rest.to_vec()))),
                Step::Aborted => return Ok(None),
                Step::StartTls | Step::Upgraded { .. } | Step::Failed(_) => bail!("the handshake failed"),
            }
        }
    }
}
