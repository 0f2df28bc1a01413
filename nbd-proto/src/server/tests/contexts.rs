//! Metadata contexts and extended headers in the handshake.

use alloc::vec;

use super::*;
use crate::ContextQuery;

fn query(export: &str, queries: &[&str]) -> Vec<u8> {
    ContextQuery {
        export: export.to_owned(),
        queries: queries.iter().map(|&query| query.to_owned()).collect(),
    }
    .encode()
}

impl Rogue {
    fn structured() -> Self {
        let mut rogue = Self::new();
        rogue.agree(OptionCode::StructuredReply);
        rogue
    }

    /// The contexts of a reply that ends well.
    fn contexts(&mut self, option: OptionCode, export: &str, queries: &[&str]) -> Vec<Context> {
        let (step, mut replies) = self.option(option, &query(export, queries));
        assert_eq!(step, Step::NeedMore);
        assert_eq!(replies.pop(), Some((option, ReplyType::Ack, vec![])));
        let decode = |(of, reply, data): Reply| {
            assert_eq!((of, reply), (option, ReplyType::MetaContext));
            Context::decode(&data).unwrap()
        };
        replies.into_iter().map(decode).collect()
    }

    fn listed(&mut self, queries: &[&str]) -> Vec<String> {
        let contexts = self.contexts(OptionCode::ListMetaContext, "db", queries);
        assert!(contexts.iter().all(|context| context.id == 0));
        contexts.into_iter().map(|context| context.name).collect()
    }

    fn set(&mut self, queries: &[&str]) -> Vec<Context> {
        self.contexts(OptionCode::SetMetaContext, "db", queries)
    }
}

const ALL: [&str; 4] = [
    "base:allocation",
    "x-a:dirty/bravo",
    "x-a:dirty/charlie",
    "qemu:dirty-bitmap:bravo",
];

#[test]
fn a_list_knows_wildcards_and_ignores_what_it_does_not_know() {
    let mut rogue = Rogue::structured();
    assert_eq!(rogue.listed(&[]), ALL);
    assert_eq!(rogue.listed(&["base:"]), &ALL[..1]);
    assert_eq!(rogue.listed(&["x-a:"]), &ALL[1..3]);
    assert_eq!(rogue.listed(&["x-a:dirty/"]), &ALL[1..3]);
    assert_eq!(
        rogue.listed(&["qemu:dirty-bitmap:", "base:allocation"]),
        [ALL[0], ALL[3]]
    );
    let nothing: [&str; 0] = [];
    for unknown in [
        "base:other",
        "x-b:",
        "x-a:dirty",
        "qemu:allocation-depth",
        "base:allocatio",
    ] {
        assert_eq!(rogue.listed(&[unknown]), nothing, "{unknown}");
    }
}

#[test]
fn a_selection_takes_whole_names_each_once_with_numbers_of_their_own() {
    let mut rogue = Rogue::structured();
    let chosen = rogue.set(&[ALL[3], ALL[0], ALL[3], "base:", "x-b:c", "base:other", "x-a:dirty/"]);
    let names: Vec<&str> = chosen.iter().map(|context| context.name.as_str()).collect();
    assert_eq!(names, [ALL[0], ALL[3]]);
    assert_ne!(chosen[0].id, chosen[1].id);
    assert_eq!(rogue.go().contexts, chosen);
}

#[test]
fn the_last_selection_counts_also_when_it_is_empty_or_fails() {
    let too_long = vec![0; crate::constants::MAX_CONTEXT_QUERY + 1];
    let truncated = [0, 0, 0, 9];
    let unknown = query("nope", &[ALL[0]]);
    let many = query("db", &vec![ALL[0]; crate::constants::MAX_CONTEXTS + 1]);
    let failures: [(&[u8], OptionError); 4] = [
        (&too_long, OptionError::TooBig),
        (&truncated, OptionError::Invalid),
        (&unknown, OptionError::UnknownExport),
        (&many, OptionError::TooBig),
    ];
    for (data, error) in failures {
        let mut rogue = Rogue::structured();
        rogue.set(&[ALL[0]]);
        assert_eq!(rogue.refused(OptionCode::SetMetaContext, data), error);
        rogue.assert_in_step();
        assert_eq!(rogue.go().contexts, []);
    }
    let mut rogue = Rogue::structured();
    rogue.set(&[ALL[0]]);
    assert_eq!(rogue.set(&[]), []);
    assert_eq!(rogue.go().contexts, []);
    let mut rogue = Rogue::structured();
    rogue.set(&[ALL[0]]);
    rogue.listed(&[ALL[1]]);
    assert_eq!(rogue.set(&[ALL[1]]).len(), 1);
    assert_eq!(
        rogue.go().contexts[0].name,
        ALL[1],
        "a list changes nothing, a selection replaces"
    );
}

#[test]
fn a_selection_is_for_the_export_it_names() {
    let mut rogue = Rogue::structured();
    rogue.contexts(OptionCode::SetMetaContext, "", &[ALL[0]]);
    assert_eq!(rogue.go().contexts.len(), 1, "the default export by either name");
    rogue = Rogue::structured();
    rogue.set(&[ALL[0]]);
    assert_eq!(rogue.handshake.contexts_of("log"), []);
    let (step, _) = rogue.send_raw(&option_bytes(OptionCode::ExportName, b"db"));
    let Step::Ready(negotiated) = step else {
        panic!("{step:?}")
    };
    assert_eq!(negotiated.contexts.len(), 1, "EXPORT_NAME is as good as GO");
}

#[test]
fn contexts_need_chunks() {
    for option in [OptionCode::ListMetaContext, OptionCode::SetMetaContext] {
        let mut rogue = Rogue::new();
        assert_eq!(rogue.refused(option, &query("db", &[])), OptionError::Invalid);
        rogue.agree(OptionCode::ExtendedHeaders);
        assert_eq!(rogue.option(option, &query("db", &[ALL[0]])).1.len(), 2);
    }
}

#[test]
fn extended_headers_take_precedence_and_stay() {
    let mut rogue = Rogue::structured();
    assert_eq!(rogue.refused(OptionCode::ExtendedHeaders, &[0]), OptionError::Invalid);
    rogue.agree(OptionCode::ExtendedHeaders);
    let refused = rogue.refused(OptionCode::StructuredReply, &[]);
    assert_eq!(refused, OptionError::ExtendedHeadersRequired);
    rogue.assert_in_step();
    let negotiated = rogue.go();
    assert_eq!(negotiated.replies, ReplyStyle::Extended);
    assert!(negotiated.export.flags.contains(TransmissionFlags::SEND_DF));
    let mut rogue = Rogue::new();
    rogue.agree(OptionCode::ExtendedHeaders);
    let (step, _) = rogue.option(OptionCode::ExportName, b"db");
    assert_eq!(step, Step::Failed(PeerMisbehaved::ExportNameWithExtendedHeaders));
}

#[test]
fn filters_are_offered_with_extended_headers_and_a_selection_only() {
    let filters = |rogue: &mut Rogue| {
        rogue
            .go()
            .export
            .flags
            .contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD)
    };
    let mut structured = Rogue::structured();
    structured.set(&[ALL[0]]);
    assert!(!filters(&mut structured));
    let mut extended = Rogue::new();
    extended.agree(OptionCode::ExtendedHeaders);
    assert!(!filters(&mut extended));
    let mut selected = Rogue::new();
    selected.agree(OptionCode::ExtendedHeaders);
    selected.set(&[ALL[0]]);
    assert!(filters(&mut selected));
}
