//! Names that a Primary has withdrawn.

use super::*;

const MIB: u64 = 1 << 20;

/// A Primary without its data gets them from who was told of a name that it has withdrawn; nobody else's word counts.
#[test]
fn a_withdrawn_name_is_no_newer_one() {
    let noted = Node::new("b", 2).history(&[1]).for_peer(1).dirty(MIB);
    let primary = Node::new("a", 1).primary().withdrew(2);
    for disk in [LocalDisk::Diskless, LocalDisk::Inconsistent] {
        let lacks = primary.clone().disk(disk);
        let full = disk == LocalDisk::Inconsistent;
        expect(&lacks, &noted, Verdict::Target { full }, Rule::WithdrawnName);
        assert_eq!(decided(&lacks, &noted).newer, Newer::Same);
        let none = noted.clone().disk(LocalDisk::Inconsistent);
        expect(&lacks, &none, Verdict::NoSource, Rule::SourceIncomplete);
        let resumed = [lacks.clone().sync(7), noted.clone().sync(7)];
        let rule = if full { Rule::ResyncResumed } else { Rule::WithdrawnName };
        expect(&resumed[0], &resumed[1], TARGET, rule);
    }
    let promoted = Node::new("b", 3).history(&[2, 1]).for_peer(1);
    let diskless = primary.clone().disk(LocalDisk::Diskless);
    expect(
        &diskless,
        &promoted,
        Verdict::OlderPrimary { mine: true },
        Rule::OlderPrimary,
    );
    expect(
        &primary,
        &noted,
        Verdict::OlderPrimary { mine: true },
        Rule::OlderPrimary,
    );
    expect(&Node::new("a", 1).withdrew(2), &noted, TARGET, Rule::BitmapForPeer);
}
