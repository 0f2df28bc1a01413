//! What an operator asks of a resource or a volume, and how it is spelled in a request.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Become Primary.
    Promote {
        /// The resource.
        resource: String,
        /// Though something would be lost, or it is not known.
        force: bool,
        /// The loss, quoted back.
        accept: Option<String>,
    },
    /// Become Secondary.
    Demote {
        /// The resource.
        resource: String,
    },
    /// The data of this node is worthless: take all of it from a peer.
    Invalidate {
        /// The resource.
        resource: String,
        /// From whom; the only one when not said.
        peer: Option<String>,
    },
    /// Let a peer connect.
    Connect {
        /// A volume or a resource.
        name: String,
        /// The peer.
        peer: String,
        /// If the histories have diverged: the data of this node is given up.
        discard_my_data: bool,
    },
    /// Part with a peer.
    Disconnect {
        /// A volume or a resource.
        name: String,
        /// The peer.
        peer: String,
    },
    /// Compare with peers.
    Verify {
        /// A volume or a resource.
        name: String,
        /// With whom; with all when not said.
        peer: Option<String>,
        /// Copy what differs.
        repair: bool,
        /// Go on where the last one stopped.
        resume: bool,
    },
    /// Stop comparing.
    VerifyStop {
        /// A volume or a resource.
        name: String,
        /// With whom; with all when not said.
        peer: Option<String>,
    },
    /// Another size for a volume, on every node.
    Resize {
        /// The volume.
        volume: String,
        /// Bytes.
        size: u64,
        /// The new part is zero everywhere: it is not copied.
        assume_clean: bool,
        /// Make it smaller, if nobody is Primary and no node finds anything beyond the new end.
        force: bool,
    },
    /// Take the image of a volume (again).
    Attach {
        /// The volume.
        volume: String,
        /// It is another image than before.
        replaced: bool,
    },
    /// Give the image of a volume up.
    Detach {
        /// The volume.
        volume: String,
    },
    /// Serve a branch read-only.
    BranchExport {
        /// The branch.
        branch: String,
    },
    /// Serve a branch no longer.
    BranchUnexport {
        /// The branch.
        branch: String,
    },
    /// Remove a branch.
    BranchExpire {
        /// The branch.
        branch: String,
    },
}

/// The body of the answer to an order that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    /// The name under which a branch is served now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// What an operator may want to know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Order {
    /// Path and query of its request.
    pub fn path(&self) -> String {
        match self {
            Self::Promote {
                resource,
                force,
                accept,
            } => Path::new("resources", resource, "promote")
                .flag("force", *force)
                .text("accept", accept.as_deref()),
            Self::Demote { resource } => Path::new("resources", resource, "demote"),
            Self::Invalidate { resource, peer } => {
                Path::new("resources", resource, "invalidate").text("peer", peer.as_deref())
            }
            Self::Connect {
                name,
                peer,
                discard_my_data,
            } => Path::of_peer(name, peer, "connect").flag("discard_my_data", *discard_my_data),
            Self::Disconnect { name, peer } => Path::of_peer(name, peer, "disconnect"),
            Self::Verify {
                name,
                peer,
                repair,
                resume,
            } => Path::new("volumes", name, "verify")
                .text("peer", peer.as_deref())
                .flag("repair", *repair)
                .flag("resume", *resume),
            Self::VerifyStop { name, peer } => Path::new("volumes", name, "verify-stop").text("peer", peer.as_deref()),
            Self::Resize {
                volume,
                size,
                assume_clean,
                force,
            } => Path::new("volumes", volume, "resize")
                .text("size", Some(&size.to_string()))
                .flag("assume_clean", *assume_clean)
                .flag("force", *force),
            Self::Attach { volume, replaced } => Path::new("volumes", volume, "attach").flag("replaced", *replaced),
            Self::Detach { volume } => Path::new("volumes", volume, "detach"),
            Self::BranchExport { branch } => Path::new("branches", branch, "export"),
            Self::BranchUnexport { branch } => Path::new("branches", branch, "unexport"),
            Self::BranchExpire { branch } => Path::new("branches", branch, "expire"),
        }
        .text
    }
}

/// A path being written.
struct Path {
    text: String,
    asked: bool,
}

impl Path {
    fn new(kind: &str, name: &str, verb: &str) -> Self {
        Self {
            text: format!("/v1/{kind}/{}/{verb}", encoded(name)),
            asked: false,
        }
    }

    fn of_peer(name: &str, peer: &str, verb: &str) -> Self {
        Self {
            text: format!("/v1/volumes/{}/peers/{}/{verb}", encoded(name), encoded(peer)),
            asked: false,
        }
    }

    fn flag(self, key: &str, set: bool) -> Self {
        self.text(key, set.then_some("true"))
    }

    fn text(mut self, key: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            let mark = if self.asked { '&' } else { '?' };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{mark}{key}={}", encoded(value));
            self.asked = true;
        }
        self
    }
}

/// A name as it stands in a path or a query.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let name = || "a/b".to_owned();
        let promote = |force, accept: Option<&str>| Order::Promote {
            resource: name(),
            force,
            accept: accept.map(str::to_owned),
        };
        let verify = Order::Verify {
            name: "db".to_owned(),
            peer: Some("x y".to_owned()),
            repair: true,
            resume: false,
        };
        let resize = Order::Resize {
            volume: "db".to_owned(),
            size: 4096,
            assume_clean: true,
            force: true,
        };
        for (order, path) in [
            (promote(false, None), "/v1/resources/a%2Fb/promote"),
            (promote(true, None), "/v1/resources/a%2Fb/promote?force=true"),
            (
                promote(true, Some("1-2")),
                "/v1/resources/a%2Fb/promote?force=true&accept=1%2D2",
            ),
            (verify, "/v1/volumes/db/verify?peer=x%20y&repair=true"),
            (resize, "/v1/volumes/db/resize?size=4096&assume_clean=true&force=true"),
        ] {
            assert_eq!(order.path(), path);
        }
    }
}
