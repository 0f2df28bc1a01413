//! Replication streams between two blockmirrors: who may have one, and how one is asked for.

use mirror_core::stream::Credit;
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::hello::{self, Agreed, Hello, HelloVolume};
use nbd_proto::OptionError;

use super::roster::{Present, ResourcePlace, Served};
use crate::config::Protocol;
use crate::data::StreamHello;

/// The smallest block of a volume whose configuration is gone meanwhile.
const MINIMUM_BLOCK: u32 = 1;

/// A stream that another node asks for and gets.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) place: ResourcePlace,
    /// The data thread's number of the peer.
    pub(super) peer: usize,
    /// What the peer said of itself.
    pub(super) hello: StreamHello,
    /// The volumes named in return.
    pub(super) named: Vec<String>,
    /// What is said in return.
    pub(super) reply: Vec<u8>,
}

/// What is said to a partner to have a stream.
#[derive(Clone, Debug)]
pub(super) struct Question {
    ours: Hello,
    /// The partner's name.
    peer: String,
}

/// Why it gets none: for the wire.
pub(super) type Refusal = (OptionError, String);

/// What another node says of itself when it asks.
pub(super) fn read(hello: &[u8]) -> Result<Hello, Refusal> {
    Hello::decode(hello).map_err(|error| (OptionError::Invalid, error.to_string()))
}

/// Who asks, for what, and the answer. `salt`: any number.
pub(super) fn accept(present: &Present, theirs: Hello, salt: u64) -> Result<Accepted, Refusal> {
    let here = &present.config.name;
    let policy = |text: String| Err((OptionError::Policy, text));
    let Some(served) = present.resource(&theirs.resource) else {
        if serves_plain(present, &theirs, |_| true) {
            return Err(unsupported());
        }
        let names: Vec<&str> = present
            .resources
            .iter()
            .map(|served| served.config.name.as_str())
            .collect();
        return policy(format!(
            "node {here} has no resource \"{}\"; its resources: {}",
            theirs.resource,
            names.join(", ")
        ));
    };
    // A remote leg, or one that never named a peer: plain NBD, as to anybody.
    if !served.config.mirror || served.config.peers.is_empty() {
        return Err(unsupported());
    }
    if theirs.node == *here {
        return policy(format!(
            "both nodes are called {here}: every node needs a name of its own"
        ));
    }
    let Some(peer) = served.peer(&theirs.node) else {
        return policy(format!(
            "node {} is no peer of resource \"{}\" on node {here}; its peers: {}",
            theirs.node,
            theirs.resource,
            peer_names(served)
        ));
    };
    if peer.config.protocol == Protocol::Nbd {
        return policy(format!(
            "node {here} has protocol = \"nbd\" for its peer {}: remove it there, or set it on both nodes",
            theirs.node
        ));
    }
    let ours = ours(served, salt);
    let agreed = hello::agree(&ours, &theirs).map_err(|error| (OptionError::Policy, error.to_string()))?;
    Ok(Accepted {
        place: served.place,
        peer: peer.number,
        hello: told(theirs, agreed),
        named: names(&ours),
        reply: ours.encode(),
    })
}

impl Question {
    /// `salt`: any number.
    pub(super) fn new(served: &Served, peer: &str, salt: u64) -> Self {
        Self {
            ours: ours(served, salt),
            peer: peer.to_owned(),
        }
    }

    /// The resource it is about.
    pub(super) fn resource(&self) -> &str {
        &self.ours.resource
    }

    /// The volumes it names.
    pub(super) fn named(&self) -> Vec<String> {
        names(&self.ours)
    }

    /// As it goes out.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.ours.encode()
    }

    /// Whether the answer came from the node that is meant; what it said of itself.
    pub(super) fn check(&self, reply: &[u8]) -> Result<StreamHello, String> {
        let theirs = Hello::decode(reply).map_err(|error| error.to_string())?;
        // One name on both sides has its own words.
        if theirs.node != self.peer && theirs.node != self.ours.node {
            return Err(format!(
                "the node at this address calls itself {}, not {}: correct the `uri` or the `name` of the peer",
                theirs.node, self.peer
            ));
        }
        let agreed = hello::agree(&self.ours, &theirs).map_err(|error| error.to_string())?;
        Ok(told(theirs, agreed))
    }
}

/// Whether what the node asks for is served here as a plain export, and one that it may see.
pub(super) fn serves_plain(present: &Present, hello: &Hello, sees: impl Fn(&str) -> bool) -> bool {
    hello.volumes.iter().filter(|volume| sees(&volume.name)).any(|volume| {
        present
            .volume(&volume.name)
            .is_some_and(|view| !view.resource.config.mirror || view.resource.config.peers.is_empty())
    })
}

pub(super) fn unsupported() -> Refusal {
    (OptionError::Unsupported, "the export is served as plain NBD".to_owned())
}

fn peer_names(served: &Served) -> String {
    let names: Vec<&str> = served.config.peers.iter().map(|peer| peer.name.as_str()).collect();
    names.join(", ")
}

/// This node's HELLO for a resource.
fn ours(served: &Served, salt: u64) -> Hello {
    let known = served.gate.hello();
    let credit = Credit {
        bytes: known.credit_bytes,
        requests: known.credit_requests,
    };
    let mut hello = Hello::new(known.node, known.incarnation, salt, known.resource, credit);
    let minimum_block = |name: &str| {
        let mut views = served.config.volumes.iter();
        views
            .find(|volume| volume.export == name)
            .map_or(MINIMUM_BLOCK, |volume| volume.minimum_block)
    };
    hello.volumes = known
        .volumes
        .into_iter()
        .map(|(name, size)| HelloVolume {
            minimum_block: minimum_block(&name),
            name,
            size,
        })
        .collect();
    hello
}

/// The volumes of a HELLO.
fn names(hello: &Hello) -> Vec<String> {
    hello.volumes.iter().map(|volume| volume.name.clone()).collect()
}

/// A partner's HELLO with what it came to.
fn told(hello: Hello, agreed: Agreed) -> StreamHello {
    StreamHello {
        node: hello.node,
        incarnation: hello.incarnation,
        resource: hello.resource,
        version: agreed.version,
        digest_seed: agreed.digest_seed,
        checksum: Checksum::of_features(agreed.features),
        volumes: hello
            .volumes
            .into_iter()
            .map(|volume| (volume.name, volume.size))
            .collect(),
        credit_bytes: hello.credit.bytes,
        credit_requests: hello.credit.requests,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::exports::tests::roster_with;
    use super::*;

    const BRAVO: &str = "[[resource.peer]]\nname = \"bravo\"\nuri = \"nbd://bravo\"";

    fn hello(node: &str, resource: &str) -> Hello {
        let credit = Credit {
            bytes: 11,
            requests: 12,
        };
        let mut hello = Hello::new(node.to_owned(), 9, 1 << 40, resource.to_owned(), credit);
        hello.volumes.push(HelloVolume {
            name: resource.to_owned(),
            size: 1 << 20,
            minimum_block: 1,
        });
        hello
    }

    fn asked(resource: &str, peer: &str, hello: &Hello) -> Result<Accepted, Refusal> {
        let roster = roster_with(&["db"], resource, peer);
        let present = roster.look();
        accept(&present, read(&hello.encode())?, 5)
    }

    #[test]
    fn a_configured_peer_gets_its_stream() {
        let accepted = asked("", BRAVO, &hello("bravo", "db")).unwrap();
        assert_eq!((accepted.peer, accepted.place.resource), (0, 0));
        let told = &accepted.hello;
        assert_eq!((told.node.as_str(), told.incarnation), ("bravo", 9));
        assert_eq!((told.credit_bytes, told.credit_requests), (11, 12));
        assert_eq!(told.volumes, [("db".to_owned(), 1 << 20)]);
        assert_eq!(accepted.named, ["db"], "what was said in return");
        let question = |peer: &str| Question {
            ours: hello("bravo", "db"),
            peer: peer.to_owned(),
        };
        let answer = question("alpha").check(&accepted.reply).unwrap();
        assert_eq!((answer.node.as_str(), answer.incarnation), ("alpha", 7));
        assert_eq!(answer.digest_seed, told.digest_seed, "both digest alike");
        assert_eq!((answer.checksum, told.checksum), (Checksum::Xxh3, Checksum::Xxh3));
        let other = question("charlie").check(&accepted.reply).unwrap_err();
        assert!(other.contains("calls itself alpha, not charlie"), "{other}");
        assert!(question("alpha").check(b"").is_err());
    }

    #[test]
    fn with_an_older_release_payloads_are_checked_as_it_can() {
        let older = Hello {
            features: 0,
            ..hello("bravo", "db")
        };
        let accepted = asked("", BRAVO, &older).unwrap();
        assert_eq!(accepted.hello.checksum, Checksum::Crc32);
    }

    #[test]
    fn who_gets_none_is_told_why() {
        let nbd = format!("{BRAVO}\nprotocol = \"nbd\"");
        for (resource, peer, node, name, error, words) in [
            (
                "mirror = false",
                "",
                "bravo",
                "db",
                OptionError::Unsupported,
                "plain NBD",
            ),
            ("", "", "bravo", "db", OptionError::Unsupported, "plain NBD"),
            ("", BRAVO, "charlie", "db", OptionError::Policy, "its peers: bravo"),
            ("", BRAVO, "alpha", "db", OptionError::Policy, "a name of its own"),
            ("", BRAVO, "bravo", "log", OptionError::Policy, "its resources: db"),
            ("", &nbd, "bravo", "db", OptionError::Policy, "protocol = \"nbd\""),
        ] {
            let (found, text) = asked(resource, peer, &hello(node, name)).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(read(b"x").unwrap_err().0, OptionError::Invalid);
        // The plain export of another resource.
        let mut other = hello("bravo", "other");
        other.volumes[0].name = "db".to_owned();
        let refusal = asked("mirror = false", "", &other).unwrap_err();
        assert_eq!(refusal.0, OptionError::Unsupported);
        let mut newer = hello("bravo", "db");
        (newer.version_min, newer.version_max) = (200, 201);
        let refusal = asked("", BRAVO, &newer).unwrap_err();
        assert_eq!(refusal.0, OptionError::Policy);
        assert!(refusal.1.contains("200 to 201"), "{}", refusal.1);
    }
}
