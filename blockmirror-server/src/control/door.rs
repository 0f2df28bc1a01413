//! What one client is offered: the exports that it may see, and a replication stream, if it comes as a partner.
//!
//! A client that may not open an export is answered exactly as if there were none: the same code answers, with the same
//! bytes. The log tells the two apart.

use std::sync::{Mutex, PoisonError};

use mirror_core::stream::hello::Hello;
use nbd_proto::server::Exports;
use nbd_proto::{ExportInfo, OptionError};

use super::access;
use super::backoff;
use super::client::ClientIdentity;
use super::exports::make_read_only;
use super::roster::Roster;
use super::stream::{self, Accepted, Refusal};
use crate::config::Permit;

/// What one connection is offered. A stream that is taken is remembered.
#[derive(Debug)]
pub(super) struct Door<'a> {
    roster: &'a Roster,
    client: &'a ClientIdentity,
    accepted: Mutex<Option<Accepted>>,
}

impl<'a> Door<'a> {
    pub(super) fn new(roster: &'a Roster, client: &'a ClientIdentity) -> Self {
        Self {
            roster,
            client,
            accepted: Mutex::new(None),
        }
    }

    /// The stream that was taken.
    pub(super) fn into_accepted(self) -> Option<Accepted> {
        self.accepted.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(&self, export: &str) -> Permit {
        self.roster.look().permit(export, self.client)
    }

    /// The only export this client sees is its default one.
    fn canonical(&self, name: &str) -> Option<String> {
        if !name.is_empty() {
            return Some(name.to_owned());
        }
        let present = self.roster.look();
        let visible = |export: &str| present.permit(export, self.client) != Permit::Nothing;
        let mut volumes = present
            .volumes()
            .map(|view| &view.config.export)
            .filter(|export| visible(export));
        match (volumes.next(), volumes.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        }
    }

    /// Whether the client may have a stream at all, before anything is said about the resource it asks for.
    fn may_ask(&self, hello: &Hello) -> Result<(), Refusal> {
        let asked = {
            let present = self.roster.look();
            let served = present.resource(&hello.resource);
            served
                .and_then(|served| served.peer(&hello.node))
                .map(|peer| peer.config.clone())
        };
        if asked.as_ref().is_some_and(|peer| access::comes_as(peer, self.client)) {
            return Ok(());
        }
        let client = self.client;
        let present = self.roster.look();
        let sees = |export: &str| present.permit(export, client) != Permit::Nothing;
        if stream::serves_plain(&present, hello, sees) {
            return Err(stream::unsupported());
        }
        let (is_local, here) = (access::is_local(client), &present.config.name);
        let Some(peer) = asked else {
            tracing::warn!(%client, node = hello.node, resource = hello.resource, "no peer of ours asks for a replication stream");
            // Whoever is on this machine is told what is wrong; nobody else learns what is here.
            return if is_local {
                Ok(())
            } else {
                Err(refusal(here, "its log says why"))
            };
        };
        let (node, uri) = (&peer.name, &peer.uri);
        tracing::warn!(%client, %node, %uri, "the client that asks for a replication stream is not where its uri, or its from, says");
        let remedy = format!("its peer {node} is somewhere else; from = [\"ADDRESS\"] says where it may come from");
        Err(refusal(here, if is_local { &remedy } else { "its log says why" }))
    }
}

fn refusal(here: &str, why: &str) -> Refusal {
    let text = format!("node {here} gives no replication stream to a client at this address: {why}");
    (OptionError::Policy, text)
}

impl Exports for Door<'_> {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        let canonical = self.canonical(name);
        let name = canonical.as_deref().unwrap_or(name);
        let found = self.roster.find(name);
        let permit = self.permit(name);
        let (client, exists) = (self.client, found.is_some());
        match (found, permit) {
            (Some(info), Permit::ReadWrite) => Some(info),
            (Some(info), Permit::ReadOnly) => Some(make_read_only(info)),
            (None, _) | (Some(_), Permit::Nothing) => {
                tracing::info!(%client, export = name, exists, "the client may not open what it asks for, or it is not there");
                None
            }
        }
    }

    fn list(&self) -> Vec<(String, String)> {
        let mut list = self.roster.list();
        let present = self.roster.look();
        list.retain(|(export, _)| present.permit(export, self.client) != Permit::Nothing);
        list
    }

    fn admit(&self, export: &ExportInfo) -> Result<(), String> {
        self.roster.admit(export)
    }

    fn requires_tls(&self, name: &str) -> bool {
        self.roster.requires_tls(name)
    }

    fn contexts(&self, export: &str) -> Vec<String> {
        match self.permit(export) {
            Permit::Nothing => Vec::new(),
            Permit::ReadOnly | Permit::ReadWrite => self.roster.contexts(export),
        }
    }

    fn is_shutting_down(&self) -> bool {
        self.roster.is_shutting_down()
    }

    /// Another blockmirror asks for a replication stream.
    fn upgrade(&self, hello: &[u8]) -> Result<Vec<u8>, (OptionError, String)> {
        let theirs = stream::read(hello)?;
        self.may_ask(&theirs)?;
        let accepted = stream::accept(&self.roster.look(), theirs, backoff::random())?;
        let reply = accepted.reply.clone();
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mirror_core::stream::Credit;
    use mirror_core::stream::hello::HelloVolume;
    use nbd_proto::TransmissionFlags;
    use nbd_proto::constants::OPTION_MAGIC;
    use nbd_proto::server::Handshake;

    use super::super::access::tests::client;
    use super::super::exports::tests::{roster, roster_with};
    use super::*;
    use crate::config::{AccessRule, Who};

    /// `db` for 192.0.2.0/24 to read, `log` for whoever is on this machine.
    fn two() -> Roster {
        let roster = roster(&["db", "log"]);
        let rule = AccessRule {
            from: vec!["192.0.2.0/24".parse::<Who>().unwrap()],
            permit: Permit::ReadOnly,
        };
        roster.change().resources[0].config.volumes[0].access = vec![rule];
        roster
    }

    /// Everything a server says to these options.
    fn said(roster: &Roster, who: &str, options: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let who = client(who);
        let door = Door::new(roster, &who);
        let mut handshake = Handshake::default();
        let mut input = 3_u32.to_be_bytes().to_vec();
        for (option, data) in options {
            input.extend(OPTION_MAGIC.to_be_bytes());
            input.extend(option.to_be_bytes());
            input.extend((data.len() as u32).to_be_bytes());
            input.extend(data);
        }
        let mut output = Vec::new();
        let (_, step) = handshake.handle(&input, &door, &mut output);
        output.extend(
            format!("{step:?}")
                .replace("log", "NAME")
                .replace("lob", "NAME")
                .bytes(),
        );
        output
    }

    fn named(name: &str) -> Vec<u8> {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name.bytes());
        data.extend([0, 0]);
        data
    }

    #[test]
    fn what_is_hidden_is_answered_as_if_it_were_not_there() {
        let there = two();
        let gone = two();
        gone.change().resources.pop();
        let info_and_go = |name| vec![(6, named(name)), (7, named(name))];
        let mut contexts = named("log");
        contexts.extend([0, 0]);
        for options in [
            vec![(3, vec![])],
            info_and_go("log"),
            info_and_go(""),
            vec![(1, b"log".to_vec())],
            vec![(8, vec![]), (9, contexts.clone()), (10, contexts)],
        ] {
            for who in ["192.0.2.9", "203.0.113.9"] {
                assert_eq!(
                    said(&there, who, &options),
                    said(&gone, who, &options),
                    "{who}: {options:?}"
                );
            }
            assert_ne!(said(&there, "127.0.0.1", &options), said(&gone, "127.0.0.1", &options));
        }
    }

    #[test]
    fn who_may_only_read_gets_a_read_only_export() {
        let roster = two();
        let reader = client("192.0.2.9");
        let door = Door::new(&roster, &reader);
        let info = door.find("db").unwrap();
        assert!(info.flags.contains(TransmissionFlags::READ_ONLY));
        assert!(
            !info
                .flags
                .intersects(TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_WRITE_ZEROES)
        );
        assert_eq!(door.find("").unwrap(), info, "the only one it sees");
        assert_eq!(door.list().len(), 1);
        let here = client("unix:0");
        let door = Door::new(&roster, &here);
        assert!(!door.find("log").unwrap().flags.contains(TransmissionFlags::READ_ONLY));
        assert_eq!(door.find("db"), None, "rules are all there is");
    }

    const BRAVO: &str = "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd://192.0.2.2\"";

    fn hello(node: &str, resource: &str) -> Vec<u8> {
        let credit = Credit { bytes: 1, requests: 1 };
        let mut hello = Hello::new(node.to_owned(), 9, 1 << 40, resource.to_owned(), credit);
        hello.volumes.push(HelloVolume {
            name: resource.to_owned(),
            size: 1 << 20,
            minimum_block: 1,
        });
        hello.encode()
    }

    #[test]
    fn a_door_remembers_the_stream_it_gave() {
        let roster = roster_with(&["db"], "", BRAVO);
        let bravo = client("192.0.2.2");
        let door = Door::new(&roster, &bravo);
        assert!(door.upgrade(b"x").is_err());
        assert!(door.upgrade(&hello("bravo", "db")).is_ok());
        assert_eq!(door.into_accepted().unwrap().hello.node, "bravo");
        assert!(Door::new(&roster, &bravo).into_accepted().is_none());
    }

    #[test]
    fn a_partner_comes_from_where_its_uri_says() {
        let asked = |peer: &str, who: &ClientIdentity, hello: &[u8]| {
            let roster = roster_with(&["db"], "", peer);
            Door::new(&roster, who).upgrade(hello).map_err(|(error, text)| {
                assert_eq!(error, OptionError::Policy, "{text}");
                text
            })
        };
        let ours = hello("bravo", "db");
        let stranger = client("192.0.2.3");
        let refused = asked(BRAVO, &stranger, &ours).unwrap_err();
        for other in [hello("charlie", "db"), hello("bravo", "log")] {
            assert_eq!(
                asked(BRAVO, &stranger, &other).unwrap_err(),
                refused,
                "it learns nothing"
            );
        }
        assert!(!refused.contains("bravo"), "{refused}");
        assert!(asked(BRAVO, &client("unix:0"), &ours).unwrap_err().contains("from = "));
        let from = format!("{BRAVO}\nfrom = [\"192.0.2.3\"]");
        assert!(asked(&from, &stranger, &ours).is_ok());
        assert!(
            asked(&from, &client("192.0.2.2"), &ours).is_err(),
            "from is all there is"
        );
        let mut shown = stranger.clone();
        shown.certificate = Some(vec!["192.0.2.2".to_owned()]);
        assert!(asked(BRAVO, &shown, &ours).is_ok());
        for uri in ["nbd+unix:///?socket=/s", "nbd://127.0.0.1", "nbd://localhost"] {
            let local = BRAVO.replace("nbd://192.0.2.2", uri);
            for here in ["unix:0", "127.0.0.1"] {
                assert!(asked(&local, &client(here), &ours).is_ok(), "{here} as {uri}");
            }
            assert!(asked(&local, &stranger, &ours).is_err(), "{uri}");
        }
    }
}
