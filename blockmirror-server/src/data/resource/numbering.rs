//! Which volumes the numbers on a stream mean.

use mirror_core::identity::NodeIdentity;

use super::gate::StreamHello;

/// What the two nodes named to each other before the stream began. The volumes are numbered as the node that dialled named
/// them; what is served may have changed between its HELLO and the moment at which the stream is used.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// The volumes of our HELLO.
    ours: Vec<String>,
    /// The volumes of the peer's.
    theirs: Vec<String>,
    /// We have dialled.
    by_ours: bool,
    /// By number: the place in the resource, once the stream is used.
    places: Vec<Option<usize>>,
}

impl Numbering {
    pub(super) fn new(named: Vec<String>, hello: &StreamHello, dialled_by_us: bool) -> Self {
        Self {
            ours: named,
            theirs: hello.volumes.iter().map(|(name, _)| name.clone()).collect(),
            by_ours: dialled_by_us,
            places: Vec::new(),
        }
    }

    /// Our HELLO named what is served now: by place in the resource, `None` where a volume is gone.
    pub(super) fn fits(&self, served: &[Option<String>]) -> bool {
        let mut served: Vec<&String> = served.iter().flatten().collect();
        served.sort();
        served.into_iter().eq(&self.ours)
    }

    /// The stream is used from here on.
    pub(super) fn begin(&mut self, served: &[Option<String>]) {
        let numbered = if self.by_ours { &self.ours } else { &self.theirs };
        let place = |name: &String| served.iter().position(|other| other.as_ref() == Some(name));
        self.places = numbered.iter().map(place).collect();
    }

    /// The place in the resource of a number. `None`: only the peer has the volume, or nobody.
    pub(super) fn place(&self, number: u16) -> Option<usize> {
        *self.places.get(usize::from(number))?
    }

    /// The number of a volume of the resource.
    pub(super) fn number_of(&self, place: usize) -> Option<u16> {
        let at = self.places.iter().position(|other| *other == Some(place))?;
        u16::try_from(at).ok()
    }

    /// What we are about to say of our volumes is about those of our HELLO.
    pub(super) fn is_ours(&self, identity: &NodeIdentity) -> bool {
        names(identity).eq(&self.ours)
    }

    /// What the peer says of its volumes is about those of its HELLO.
    pub(super) fn is_theirs(&self, identity: &NodeIdentity) -> bool {
        names(identity).eq(&self.theirs)
    }
}

fn names(identity: &NodeIdentity) -> impl Iterator<Item = &String> {
    identity.volumes.iter().map(|volume| &volume.name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mirror_core::identity::{Meeting, Role, VolumeIdentity};
    use mirror_core::state::LocalDisk;

    use super::*;

    fn names_of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn hello(names: &[&str]) -> StreamHello {
        StreamHello {
            volumes: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
            ..StreamHello::default()
        }
    }

    fn served(names: &[Option<&str>]) -> Vec<Option<String>> {
        names.iter().map(|name| name.map(str::to_owned)).collect()
    }

    fn identity(names: &[&str]) -> NodeIdentity {
        let volume = |name: &&str| VolumeIdentity {
            name: (*name).to_owned(),
            size: 1,
            fresh: true,
            current: 0,
            for_peer: 0,
            for_others: Vec::new(),
            history: Vec::new(),
            withdrawn: Vec::new(),
            disk: LocalDisk::Inconsistent,
            crashed_primary: false,
            dirty_bytes: 0,
            acks_wait: true,
            sync: 0,
            met: Meeting::default(),
            met_before: Meeting::default(),
        };
        NodeIdentity {
            node: "bravo".to_owned(),
            incarnation: 1,
            revision: 1,
            role: Role::Secondary,
            discard_my_data: false,
            primary_since: 0,
            bits_tell: false,
            was_primary: false,
            answers_lost: false,
            volumes: names.iter().map(volume).collect(),
        }
    }

    #[test]
    fn volumes_have_the_numbers_that_the_node_which_dialled_gave_them() {
        // "aa" came last, "gone" was removed: here "db" is 0, and "aa" 2.
        let here = served(&[Some("db"), None, Some("aa")]);
        let mut dialled = Numbering::new(names_of(&["aa", "db"]), &hello(&["db"]), true);
        let mut accepted = Numbering::new(names_of(&["aa", "db"]), &hello(&["db", "zz"]), false);
        assert!(dialled.fits(&here) && accepted.fits(&here));
        assert_eq!(
            (dialled.place(0), dialled.number_of(0)),
            (None, None),
            "not before it begins"
        );
        dialled.begin(&here);
        accepted.begin(&here);
        assert_eq!([0, 1, 2].map(|number| dialled.place(number)), [Some(2), Some(0), None]);
        assert_eq!(
            [0, 1, 2].map(|place| dialled.number_of(place)),
            [Some(1), None, Some(0)]
        );
        // Of what it accepts only what both have has a number.
        assert_eq!([0, 1].map(|number| accepted.place(number)), [Some(0), None]);
        assert_eq!([0, 2].map(|place| accepted.number_of(place)), [Some(0), None]);
    }

    #[test]
    fn what_was_named_before_volumes_came_or_went_does_not_fit() {
        let named = Numbering::new(names_of(&["db"]), &hello(&["db"]), true);
        assert!(named.fits(&served(&[Some("db")])));
        assert!(!named.fits(&served(&[Some("db"), Some("aa")])));
        assert!(!named.fits(&served(&[None])));
        assert!(!named.fits(&served(&[Some("aa")])));
    }

    #[test]
    fn who_says_what_it_is_has_to_name_what_its_hello_named() {
        let stream = Numbering::new(names_of(&["db"]), &hello(&["aa", "db"]), true);
        assert!(stream.is_ours(&identity(&["db"])) && stream.is_theirs(&identity(&["aa", "db"])));
        assert!(!stream.is_ours(&identity(&["aa", "db"])) && !stream.is_theirs(&identity(&["db"])));
    }
}
