//! How hosts come to the data thread.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nbd_proto::server::Negotiated;
use nbd_proto::{Context, ReplyStyle};

use super::{Rig, export};
use crate::data::tests::host::Host;
use crate::data::{ClientHandover, ToData};

impl Rig {
    /// A new host connection.
    pub(in crate::data::tests) fn connect(&self, structured_replies: bool) -> Host {
        self.connect_in(match structured_replies {
            true => ReplyStyle::Structured,
            false => ReplyStyle::Simple,
        })
    }

    /// A new host connection that has negotiated this.
    pub(in crate::data::tests) fn connect_in(&self, style: ReplyStyle) -> Host {
        self.connect_with(style, Vec::new())
    }

    /// A new host connection that has negotiated this, and metadata contexts.
    pub(in crate::data::tests) fn connect_with(&self, style: ReplyStyle, contexts: Vec<Context>) -> Host {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let negotiated = self.negotiated(style, contexts);
        self.hand_over_negotiated(theirs.into(), negotiated, Vec::new(), Box::new(()));
        let mut host = Host::new(ours);
        host.style = style;
        host
    }

    pub(in crate::data::tests) fn hand_over(
        &self,
        socket: OwnedFd,
        replies: ReplyStyle,
        unread: Vec<u8>,
        permit: Box<dyn Send>,
    ) {
        self.hand_over_negotiated(socket, self.negotiated(replies, Vec::new()), unread, permit);
    }

    fn negotiated(&self, replies: ReplyStyle, contexts: Vec<Context>) -> Negotiated {
        Negotiated {
            export: export(self.size, self.minimum_block),
            replies,
            contexts,
            block_sizes_known: true,
        }
    }

    fn hand_over_negotiated(&self, socket: OwnedFd, negotiated: Negotiated, unread: Vec<u8>, permit: Box<dyn Send>) {
        let address = "test".to_owned();
        let handover = ClientHandover {
            volume: 0,
            socket: socket.into(),
            negotiated,
            unread,
            address,
            permit,
        };
        assert!(self.sender.send(ToData::Client(handover)));
    }
}
