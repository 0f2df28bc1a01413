//! What the kernel is told about TLS on a socket, and records without data.

use std::io::{self, IoSliceMut};
use std::mem;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use blockmirror_client::tls::kernel::{ALERT, HANDSHAKE};
use blockmirror_client::tls::{ConnectionTrafficSecrets, Keys};
use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SetSockOpt, TlsGetRecordType, recvmsg, setsockopt};
use rustix::io::Errno;

/// The name of TLS among what can lie upon TCP.
const ULP: &[u8; 3] = b"tls";
/// Bytes of a vector that are the salt of the kernel's ciphers.
const SALT_BYTES: usize = 4;
/// A type of records that nobody has a use for.
const OTHER: u8 = 0;
/// Room for one byte of control data; eight bytes, twice, for its place and length.
const CONTROL_WORDS: usize = 4;

/// Put the kernel's TLS on a TCP socket. Until it has keys, bytes go through as before.
pub(super) fn attach(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket, TcpUlp::default(), ULP)?)
}

/// What comes next is sealed with these.
pub(super) fn seal_with(socket: impl AsFd, keys: &Keys) -> io::Result<()> {
    set(socket, TcpTlsTx, keys)
}

/// What comes next is opened with these.
pub(super) fn open_with(socket: impl AsFd, keys: &Keys) -> io::Result<()> {
    set(socket, TcpTlsRx, keys)
}

fn set(socket: impl AsFd, direction: impl SetSockOpt<Val = TlsCryptoInfo>, keys: &Keys) -> io::Result<()> {
    let info = match &keys.secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            aes_gcm(key.as_ref(), iv.as_ref(), keys.sequence)
        }
        _ => None,
    };
    let info = info.ok_or(io::ErrorKind::Unsupported)?;
    Ok(setsockopt(&socket, direction, &info)?)
}

/// In the kernel's words.
fn aes_gcm(key: &[u8], vector: &[u8], sequence: u64) -> Option<TlsCryptoInfo> {
    let rec_seq = sequence.to_be_bytes();
    let (salt, iv) = vector.split_first_chunk::<SALT_BYTES>()?;
    let (&salt, iv) = (salt, iv.try_into().ok()?);
    let info = |cipher_type| libc::tls_crypto_info {
        version: libc::TLS_1_3_VERSION,
        cipher_type,
    };
    if let Ok(key) = key.try_into() {
        return Some(TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
            info: info(libc::TLS_CIPHER_AES_GCM_128),
            iv,
            key,
            salt,
            rec_seq,
        }));
    }
    let key = key.try_into().ok()?;
    Some(TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
        info: info(libc::TLS_CIPHER_AES_GCM_256),
        iv,
        key,
        salt,
        rec_seq,
    }))
}

/// Send a record of another type than data, if the socket takes it now.
pub(super) fn send_aside(socket: impl AsFd, record_type: u8, content: &[u8]) -> io::Result<()> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut vector = libc::iovec {
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: content.len(),
    };
    // SAFETY: `msghdr` is plain data for which all zeroes mean "no address, no vectors, no control data".
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: a calculation.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(1) } as usize;
    debug_assert!(header.msg_controllen <= size_of_val(&control));
    // SAFETY: `control` has room for a message of one byte, and is aligned as its header has to be.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_TLS;
        (*message).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*message).cmsg_len = libc::CMSG_LEN(1) as usize;
        libc::CMSG_DATA(message).write(record_type);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: what the header points to lives until the call has returned; the kernel only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) };
    match usize::try_from(sent) {
        Ok(sent) if sent == content.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Take the record that a receive for data has stumbled over: its type, and how much of `content` it fills.
pub(super) fn receive_aside(socket: impl AsFd, content: &mut [u8]) -> io::Result<(u8, usize)> {
    let mut control = cmsg_space!(u8);
    let mut vectors = [IoSliceMut::new(content)];
    let fd = socket.as_fd().as_raw_fd();
    let received = recvmsg::<()>(fd, &mut vectors, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::TlsGetRecordType(kind) = message {
            return Ok((record_type(kind), received.bytes));
        }
    }
    Err(io::Error::other("the kernel does not say what kind of TLS record came"))
}

fn record_type(kind: TlsGetRecordType) -> u8 {
    match kind {
        TlsGetRecordType::Alert => ALERT,
        TlsGetRecordType::Handshake => HANDSHAKE,
        _ => OTHER,
    }
}

/// Whether the kernel can do TLS as it is needed here.
///
/// # Errors
/// Why not, in words.
pub fn probe() -> Result<(), String> {
    let talk = |error: io::Error| format!("the kernel cannot be asked for TLS: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(talk)?;
    let address = listener.local_addr().map_err(talk)?;
    for key_bytes in [16, 32] {
        let socket = TcpStream::connect(address).map_err(talk)?;
        attach(&socket).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => "the kernel has none (the module tls is not there, or not loaded)".to_owned(),
            _ => format!("the kernel has none: {error}"),
        })?;
        let unknown = |error: io::Error| {
            format!(
                "the kernel does not know TLS 1.3 with AES-{}-GCM: {error}",
                key_bytes * 8
            )
        };
        let keys = aes_gcm(&[0; 32][..key_bytes], &[0; 12], 0);
        let keys = keys.ok_or_else(|| unknown(Errno::INVAL.into()))?;
        let set = setsockopt(&socket, TcpTlsTx, &keys).and_then(|()| setsockopt(&socket, TcpTlsRx, &keys));
        set.map_err(|error| unknown(error.into()))?;
        // As it is needed after some millions of records.
        setsockopt(&socket, TcpTlsTx, &keys)
            .map_err(|_| "the kernel cannot change the keys of a connection (Linux 6.14 and later can)".to_owned())?;
    }
    Ok(())
}
