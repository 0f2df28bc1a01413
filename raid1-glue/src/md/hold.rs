//! Who has attached the device of a leg: `/dev/nbd0` is a number that anybody may take.

use blockmirror_client::tls::Identity;
use blockmirror_client::uri::UriList;

use super::record::Record;
use crate::nbd::sysfs::Standing;

/// Who has attached it, as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody.
    Free,
    /// We, to the export of the record.
    Ours,
    /// Somebody who does not say to what: another program, or anybody before Linux 5.14.
    Untold,
    /// Somebody, to this.
    Other(String),
}

/// Why a device is not touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// Something else may be lost.
    #[error(
        "{device} is attached to {backend}, and not to {uris}; it is not touched: `blockmirror detach {device}` when that may \
         go, or `blockmirror raid add NAME URI /dev/nbd1` gives the leg another device"
    )]
    Other {
        /// The device.
        device: String,
        /// What it is attached to.
        backend: String,
        /// What it should be attached to.
        uris: String,
    },
    /// Nobody knows what may be lost.
    #[error(
        "{device} is attached by another program, which does not say to what; it is not touched: `blockmirror detach {device}` \
         when that may go (`nbd-client -d {device}`), or `blockmirror raid add NAME URI /dev/nbd1` gives the leg another device"
    )]
    Untold {
        /// The device.
        device: String,
    },
}

impl Record {
    /// What the kernel calls the export, when we have attached it.
    pub fn backend(&self) -> String {
        let Ok(uris) = self.uris.parse::<UriList>() else {
            return self.uris.clone();
        };
        let tls = self.tls.clone().unwrap_or_default();
        let identity = tls.certificate.zip(tls.key);
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        uris.with_certificates(tls.ca.as_deref(), identity.as_ref()).to_string()
    }

    /// Who has the device.
    pub fn hold(&self, standing: Standing) -> Hold {
        match standing {
            Standing::Free => Hold::Free,
            Standing::Attached(None) => Hold::Untold,
            Standing::Attached(Some(backend)) if backend == self.backend() => Hold::Ours,
            Standing::Attached(Some(backend)) => Hold::Other(backend),
        }
    }

    /// Whether the device may be let go, or given to the array. `was_member`: it has just been part of the array, so that one of
    /// which nothing is told is its leg.
    ///
    /// # Errors
    /// It is, or may be, somebody else's.
    pub fn may_touch(&self, hold: Hold, was_member: bool) -> Result<(), NotHeld> {
        let device = self.device.clone();
        match hold {
            Hold::Free | Hold::Ours => Ok(()),
            Hold::Untold if was_member => Ok(()),
            Hold::Untold => Err(NotHeld::Untold { device }),
            Hold::Other(backend) => Err(NotHeld::Other {
                device,
                backend,
                uris: self.uris.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::Certificates;
    use crate::md::scene::Scene;

    fn attached(backend: &str) -> Standing {
        Standing::Attached(Some(backend.to_owned()))
    }

    #[test]
    fn a_device_is_ours_by_what_it_is_attached_to() {
        let record = Scene::new().record();
        assert_eq!(record.hold(Standing::Free), Hold::Free);
        assert_eq!(record.hold(attached(&record.backend())), Hold::Ours);
        for other in ["nbd://a/db", "nbd://a/other"] {
            let hold = record.hold(attached(other));
            assert_eq!(hold, Hold::Other(other.to_owned()));
            for was_member in [false, true] {
                let refused = record.may_touch(hold.clone(), was_member).unwrap_err().to_string();
                assert!(refused.contains(&format!("attached to {other}")), "{refused}");
                assert!(refused.contains("blockmirror detach /dev/nbd0"), "{refused}");
            }
        }
    }

    #[test]
    fn what_nothing_is_told_of_is_a_leg_while_it_is_in_the_array() {
        let record = Scene::new().record();
        let hold = record.hold(Standing::Attached(None));
        assert_eq!(hold, Hold::Untold);
        record.may_touch(hold.clone(), true).unwrap();
        let refused = record.may_touch(hold, false).unwrap_err().to_string();
        assert!(refused.contains("does not say to what"), "{refused}");
    }

    #[test]
    fn certificates_are_part_of_what_it_is_attached_to() {
        let record = Record {
            uris: "nbds://a/db".to_owned(),
            tls: Some(Certificates {
                ca: Some("/etc/ca.pem".into()),
                ..Certificates::default()
            }),
            ..Scene::new().record()
        };
        assert_ne!(record.backend(), record.uris);
        assert_eq!(record.hold(attached(&record.backend())), Hold::Ours);
        let again = Record {
            uris: record.backend(),
            ..record.clone()
        };
        assert_eq!(again.backend(), record.backend());
    }
}
