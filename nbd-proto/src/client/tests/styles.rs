//! Extended headers, then structured replies, then neither; and the metadata contexts that go with chunks.

use alloc::vec;

use super::*;
use crate::context::ContextQuery;

const REFUSALS: [OptionError; 3] = [
    OptionError::Unsupported,
    OptionError::Policy,
    OptionError::Other(1 << 31 | 500),
];

fn wanting(handshake: Handshake) -> Rogue {
    let mut rogue = Rogue {
        handshake,
        sent: vec![],
    };
    assert_eq!(rogue.send(&Rogue::greeting(3)), Ok(Step::NeedMore));
    rogue.sent.drain(..4);
    rogue
}

fn go(style: ReplyStyle) -> Handshake {
    Handshake::new(Goal::Go, "db", style)
}

/// The option that was asked last, and nothing beside it.
fn asked(rogue: &Rogue) -> OptionCode {
    let asked = rogue.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked[0].0
}

fn ready(rogue: &mut Rogue) -> Negotiated {
    rogue.info(&export()).unwrap();
    let Ok(Step::Ready(negotiated)) = rogue.ack() else {
        panic!("not ready")
    };
    negotiated
}

#[test]
fn each_style_is_asked_for_until_one_is_granted() {
    use OptionCode::{ExtendedHeaders, Go, StructuredReply};
    for error in REFUSALS {
        for (wanted, granted, path) in [
            (ReplyStyle::Extended, ReplyStyle::Extended, vec![ExtendedHeaders, Go]),
            (
                ReplyStyle::Extended,
                ReplyStyle::Structured,
                vec![ExtendedHeaders, StructuredReply, Go],
            ),
            (
                ReplyStyle::Extended,
                ReplyStyle::Simple,
                vec![ExtendedHeaders, StructuredReply, Go],
            ),
            (
                ReplyStyle::Structured,
                ReplyStyle::Structured,
                vec![StructuredReply, Go],
            ),
            (ReplyStyle::Structured, ReplyStyle::Simple, vec![StructuredReply, Go]),
            (ReplyStyle::Simple, ReplyStyle::Simple, vec![Go]),
        ] {
            let mut rogue = wanting(go(wanted));
            for option in path {
                assert_eq!(asked(&rogue), option);
                let reply = match (option, granted) {
                    (Go, _) => break,
                    (ExtendedHeaders, ReplyStyle::Extended) | (StructuredReply, ReplyStyle::Structured) => {
                        ReplyType::Ack
                    }
                    _ => ReplyType::Error(error),
                };
                rogue.reply(option, reply, &[]).unwrap();
            }
            assert_eq!(ready(&mut rogue).replies, granted);
        }
    }
}

#[test]
fn what_a_style_does_not_have_is_not_used() {
    let all = Info::Export {
        size: 1 << 20,
        flags: TransmissionFlags::all(),
    };
    let extended_only = TransmissionFlags::BLOCK_STATUS_PAYLOAD;
    for (style, missing) in [
        (ReplyStyle::Simple, extended_only | TransmissionFlags::SEND_DF),
        (ReplyStyle::Structured, extended_only),
        (ReplyStyle::Extended, TransmissionFlags::empty()),
    ] {
        let mut rogue = wanting(go(style));
        if style.has_chunks() {
            rogue.reply(asked(&rogue), ReplyType::Ack, &[]).unwrap();
        }
        rogue.info(&all).unwrap();
        let Ok(Step::Ready(negotiated)) = rogue.ack() else {
            panic!("not ready")
        };
        assert_eq!(negotiated.flags, TransmissionFlags::all() - missing);
    }
}

#[test]
fn a_server_that_goes_down_is_not_asked_on() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let mut rogue = wanting(go(style).selecting(&["base:allocation"], false));
        let shutdown = ReplyType::Error(OptionError::Shutdown);
        assert!(rogue.reply(asked(&rogue), shutdown, b"").is_err());
        assert_eq!(asked(&rogue), OptionCode::Abort);
    }
}

#[test]
fn extended_headers_go_with_go_only() {
    let mut rogue = wanting(go(ReplyStyle::Extended));
    rogue.reply(OptionCode::ExtendedHeaders, ReplyType::Ack, &[]).unwrap();
    let error = OptionError::Unsupported;
    let refusal = rogue.reply(OptionCode::Go, ReplyType::Error(error), b"");
    assert!(matches!(
        refusal,
        Err(HandshakeError::Refused {
            option: OptionCode::Go,
            ..
        })
    ));
    assert_eq!(asked(&rogue), OptionCode::Abort);
}

/// A client that is about to hear which contexts it gets.
fn selecting(demanded: bool) -> Rogue {
    let wanted = ["base:allocation", "x:y", "base:allocation"];
    let mut rogue = wanting(go(ReplyStyle::Structured).selecting(&wanted, demanded));
    rogue.reply(OptionCode::StructuredReply, ReplyType::Ack, &[]).unwrap();
    let asked = rogue.asked();
    assert_eq!(asked[0].0, OptionCode::SetMetaContext);
    let query = ContextQuery {
        export: "db".to_owned(),
        queries: vec!["base:allocation".to_owned(), "x:y".to_owned()],
    };
    assert_eq!(ContextQuery::decode(&asked[0].1), Ok(query), "each once");
    rogue
}

fn context(id: u32, name: &str) -> Context {
    Context {
        id,
        name: name.to_owned(),
    }
}

fn select(rogue: &mut Rogue, context: &Context) -> Result<Step, HandshakeError> {
    rogue.reply(OptionCode::SetMetaContext, ReplyType::MetaContext, &context.encode())
}

#[test]
fn contexts_are_selected_and_their_numbers_learned() {
    let contexts = [context(7, "x:y"), context(0, "base:allocation")];
    for count in 0..=2 {
        let mut rogue = selecting(false);
        for context in &contexts[..count] {
            select(&mut rogue, context).unwrap();
        }
        rogue.reply(OptionCode::SetMetaContext, ReplyType::Ack, &[]).unwrap();
        assert_eq!(asked(&rogue), OptionCode::Go);
        assert_eq!(ready(&mut rogue).contexts, contexts[..count]);
    }
}

#[test]
fn contexts_that_are_refused_are_done_without() {
    for error in REFUSALS {
        let mut rogue = selecting(false);
        select(&mut rogue, &context(7, "x:y")).unwrap();
        rogue
            .reply(OptionCode::SetMetaContext, ReplyType::Error(error), b"no")
            .unwrap();
        assert_eq!(asked(&rogue), OptionCode::Go);
        assert_eq!(
            ready(&mut rogue).contexts,
            [],
            "what was named before the refusal does not count"
        );
    }
    // Without chunks there are none, and nothing is asked for.
    let mut rogue = wanting(go(ReplyStyle::Structured).selecting(&["x:y"], false));
    let refused = ReplyType::Error(OptionError::Unsupported);
    rogue.reply(OptionCode::StructuredReply, refused, &[]).unwrap();
    assert_eq!(asked(&rogue), OptionCode::Go);
}

#[test]
fn contexts_that_are_demanded_are_there_or_it_ends() {
    let missing = |name: &str| Err(HandshakeError::NoContext { name: name.to_owned() });
    let mut rogue = selecting(true);
    select(&mut rogue, &context(1, "base:allocation")).unwrap();
    let ended = rogue.reply(OptionCode::SetMetaContext, ReplyType::Ack, &[]);
    assert_eq!(ended, missing("x:y"));
    assert_eq!(asked(&rogue), OptionCode::Abort);

    let mut rogue = selecting(true);
    let refused = ReplyType::Error(OptionError::Policy);
    let ended = rogue.reply(OptionCode::SetMetaContext, refused, b"no");
    assert!(matches!(ended, Err(HandshakeError::Refused { .. })), "{ended:?}");
    assert_eq!(asked(&rogue), OptionCode::Abort);

    let mut rogue = wanting(go(ReplyStyle::Structured).selecting(&["x:y"], true));
    let ended = rogue.reply(OptionCode::StructuredReply, refused, &[]);
    assert_eq!(ended, missing("x:y"));
    assert_eq!(asked(&rogue), OptionCode::Abort);

    let mut handshake = go(ReplyStyle::Simple).selecting(&["x:y"], true);
    let ended = handshake.handle(&Rogue::greeting(3), &mut vec![]);
    assert_eq!(ended.map(|(_, step)| step), missing("x:y"));
}

#[test]
fn contexts_that_cannot_be_asked_for_are_the_callers_fault() {
    let begin = |names: &[String]| {
        let mut handshake = go(ReplyStyle::Structured).selecting(names, false);
        handshake.handle(&Rogue::greeting(3), &mut vec![]).unwrap_err()
    };
    for name in ["allocation", ":x", "a:\0", &"a:".repeat(MAX_STRING)] {
        let error = begin(&[name.to_owned()]);
        assert_eq!(error, HandshakeError::BadContextName(name.to_owned()));
    }
    let many: Vec<_> = (0..=MAX_CONTEXTS).map(|number| alloc::format!("x:{number}")).collect();
    assert_eq!(begin(&many), HandshakeError::TooManyContexts(MAX_CONTEXTS + 1));
}

#[test]
fn selected_contexts_are_checked() {
    let mut rogue = selecting(false);
    select(&mut rogue, &context(7, "x:y")).unwrap();
    let twice = select(&mut rogue, &context(7, "base:allocation"));
    assert_eq!(twice, misbehaved(PeerMisbehaved::ContextTwice(7)));

    let unasked = select(&mut selecting(false), &context(7, "x:z"));
    assert_eq!(unasked, misbehaved(PeerMisbehaved::ContextUnasked("x:z".to_owned())));

    let mut rogue = selecting(false);
    let short = rogue.reply(OptionCode::SetMetaContext, ReplyType::MetaContext, &[0; 4]);
    assert_eq!(short, misbehaved(PeerMisbehaved::ContextTruncated { length: 4 }));

    let mut rogue = selecting(false);
    for id in 0..MAX_CONTEXTS as u32 {
        select(&mut rogue, &context(id, "x:y")).unwrap();
    }
    let endless = select(&mut rogue, &context(u32::MAX, "x:y"));
    let fault = PeerMisbehaved::TooManyReplies(OptionCode::SetMetaContext);
    assert_eq!(endless, misbehaved(fault));

    let option = OptionCode::Go;
    let unasked = wanting(go(ReplyStyle::Simple)).reply(option, ReplyType::MetaContext, &context(1, "x:y").encode());
    let reply = ReplyType::MetaContext.to_wire();
    assert_eq!(
        unasked,
        misbehaved(PeerMisbehaved::UnexpectedReplyType { option, reply })
    );
}

#[test]
fn contexts_are_listed() {
    let option = OptionCode::ListMetaContext;
    let listing = || {
        let mut rogue = wanting(Handshake::new(Goal::Contexts, "db", ReplyStyle::Extended));
        assert_eq!(asked(&rogue), OptionCode::StructuredReply);
        rogue.reply(OptionCode::StructuredReply, ReplyType::Ack, &[]).unwrap();
        assert_eq!(rogue.asked(), [(option, b"\0\0\0\x02db\0\0\0\0".to_vec())]);
        rogue
    };
    let mut rogue = listing();
    // In a list the numbers mean nothing.
    for name in ["base:allocation", "x:y"] {
        let data = context(0, name).encode();
        rogue.reply(option, ReplyType::MetaContext, &data).unwrap();
    }
    let names = vec!["base:allocation".to_owned(), "x:y".to_owned()];
    assert_eq!(rogue.reply(option, ReplyType::Ack, &[]), Ok(Step::Contexts(names)));
    assert_eq!(asked(&rogue), OptionCode::Abort);

    let mut rogue = listing();
    let data = context(0, "x:y").encode();
    let ended = (0..=MAX_LISTED_CONTEXTS).find_map(|_| rogue.reply(option, ReplyType::MetaContext, &data).err());
    assert_eq!(ended, Some(PeerMisbehaved::TooManyReplies(option).into()));

    let refused = listing().reply(option, ReplyType::Error(OptionError::Unsupported), &[]);
    assert!(matches!(refused, Err(HandshakeError::Refused { .. })));

    let mut rogue = wanting(Handshake::new(Goal::Contexts, "db", ReplyStyle::Structured));
    let refused = ReplyType::Error(OptionError::Unsupported);
    let none = rogue.reply(OptionCode::StructuredReply, refused, &[]);
    assert_eq!(none, Ok(Step::Contexts(vec![])), "without chunks there are none");
    assert_eq!(asked(&rogue), OptionCode::Abort);
}
