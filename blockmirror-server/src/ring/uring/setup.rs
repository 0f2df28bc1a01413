//! Making a ring: the best set of flags this kernel takes, and the operations it must know.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Submissions collected between two enters; more make an additional enter.
const SUBMISSIONS: u32 = 512;
/// Completions the queue holds; the kernel keeps more by itself.
const COMPLETIONS: u32 = 8192;

/// Every operation the driver uses, with its name for the error.
const REQUIRED: [(u8, &str); 9] = [
    (opcode::AsyncCancel::CODE, "cancel"),
    (opcode::Fadvise::CODE, "fadvise"),
    (opcode::Fallocate::CODE, "fallocate"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Read::CODE, "read"),
    (opcode::Recv::CODE, "recv"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::Write::CODE, "write"),
];

/// A ring and the words for its features, or the reason why there is none.
pub(super) fn build() -> io::Result<(IoUring, String)> {
    let (ring, flags) = build_ring()?;
    let parameters = ring.params();
    if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel's io_uring is too old (5.11 or later is needed)",
        ));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for (code, name) in REQUIRED {
        if !probe.is_supported(code) {
            let message = format!("the kernel's io_uring has no {name} operation");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    }
    Ok((ring, flags.to_owned()))
}

/// Tries the flag sets from the best to none. An unknown flag is `EINVAL`; any other error is final.
fn build_ring() -> io::Result<(IoUring, &'static str)> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS).dontfork();
    let mut best = builder.clone();
    best.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    match best.build(SUBMISSIONS) {
        Ok(ring) => return Ok((ring, "single issuer, deferred task work")),
        Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => return Err(error),
        Err(_) => {}
    }
    let mut cooperative = builder.clone();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    match cooperative.build(SUBMISSIONS) {
        Ok(ring) => return Ok((ring, "cooperative task work")),
        Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => return Err(error),
        Err(_) => {}
    }
    Ok((builder.build(SUBMISSIONS)?, "no optional features"))
}
