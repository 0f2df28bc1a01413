//! What a send on the ring points to.

use std::mem;

use nix::libc;

use crate::ring::Segment;
use crate::ring::op::left;

/// Pieces gathered into one send on the ring.
const IOVECS_MAX: usize = 1024;

/// What `sendmsg` points to. Boxed: its address is fixed while the kernel looks at it.
pub(super) struct Message {
    pub(super) header: libc::msghdr,
    vectors: Vec<libc::iovec>,
}

impl Message {
    /// Points at what follows the first `skip` bytes of the segments.
    pub(super) fn point_at(&mut self, segments: &[Segment], skip: usize) {
        self.vectors.clear();
        for (segment, done) in left(segments, skip) {
            // What is in a file is not sent by the kernel on its own.
            let Some(bytes) = segment.as_slice().filter(|_| self.vectors.len() < IOVECS_MAX) else {
                break;
            };
            let rest = &bytes[done..];
            self.vectors.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
    }
}

impl Default for Message {
    fn default() -> Self {
        // SAFETY: `msghdr` is plain data for which all zeroes mean "no address, no vectors, no control data".
        let header = unsafe { mem::zeroed() };
        Self {
            header,
            vectors: Vec::new(),
        }
    }
}
