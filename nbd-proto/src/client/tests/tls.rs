//! STARTTLS, the client's part (section "TLS support" of the protocol).

use alloc::format;
use alloc::vec;

use super::*;

/// A client that wants TLS, after a greeting with these flags.
fn wanting(handshake: Handshake, flags: u16) -> (Rogue, Result<Step, HandshakeError>) {
    let mut rogue = Rogue {
        handshake: handshake.inside_tls(),
        sent: vec![],
    };
    let step = rogue.send(&Rogue::greeting(flags));
    rogue.sent.drain(..rogue.sent.len().min(4));
    (rogue, step)
}

fn asking() -> Rogue {
    let (rogue, step) = wanting(Handshake::new(Goal::Go, "db", ReplyStyle::Structured), 3);
    assert_eq!(step, Ok(Step::NeedMore));
    rogue
}

fn ack(rogue: &mut Rogue) {
    let step = rogue.reply(OptionCode::StartTls, ReplyType::Ack, &[]);
    assert_eq!(step, Ok(Step::StartTls));
}

#[test]
fn nothing_but_starttls_is_said_in_the_clear() {
    let goals = [Goal::Go, Goal::Info, Goal::List].map(|goal| Handshake::new(goal, "secret", ReplyStyle::Structured));
    for handshake in goals.into_iter().chain([Handshake::upgrade(b"secret".to_vec())]) {
        let (mut rogue, step) = wanting(handshake, 3);
        assert_eq!(step, Ok(Step::NeedMore));
        assert_eq!(rogue.asked(), [(OptionCode::StartTls, vec![])]);
        ack(&mut rogue);
        assert!(rogue.sent.is_empty());
        // Before it is secured nothing is taken and nothing said.
        assert_eq!(rogue.handshake.handle(b"x", &mut rogue.sent), Ok((0, Step::NeedMore)));
        assert!(rogue.sent.is_empty());
        rogue.handshake.secured(&mut rogue.sent);
        assert_eq!(rogue.asked().len(), 1);
    }
}

#[test]
fn inside_tls_it_goes_on_as_ever() {
    let mut rogue = asking();
    assert_eq!(
        rogue.handshake.closed(),
        HandshakeError::ClosedAtOption(OptionCode::StartTls)
    );
    ack(&mut rogue);
    assert_eq!(
        rogue.handshake.closed(),
        HandshakeError::ClosedAtOption(OptionCode::StartTls)
    );
    rogue.handshake.secured(&mut rogue.sent);
    assert_eq!(rogue.asked(), [(OptionCode::StructuredReply, vec![])]);
    rogue.reply(OptionCode::StructuredReply, ReplyType::Ack, &[]).unwrap();
    assert_eq!(rogue.asked()[0].0, OptionCode::Go);
    rogue.info(&export()).unwrap();
    assert!(matches!(rogue.ack(), Ok(Step::Ready(_))));
    rogue.handshake.secured(&mut rogue.sent);
    assert!(rogue.sent.is_empty(), "once");
}

#[test]
fn no_refusal_makes_it_go_on_in_the_clear() {
    for error in [
        OptionError::Unsupported,
        OptionError::Policy,
        OptionError::Platform,
        OptionError::Invalid,
        OptionError::Shutdown,
    ] {
        let mut rogue = asking();
        let refusal = rogue
            .reply(OptionCode::StartTls, ReplyType::Error(error), b"no")
            .unwrap_err();
        let told = format!("{refusal}");
        assert!(told.starts_with("STARTTLS refused"), "{told}");
        assert_eq!(
            told.contains("nothing goes without it"),
            error != OptionError::Shutdown,
            "{told}"
        );
        assert_eq!(rogue.asked(), [(OptionCode::Abort, vec![])]);
        assert_eq!(rogue.send(b""), Ok(Step::NeedMore));
        rogue.handshake.secured(&mut rogue.sent);
        assert!(rogue.sent.is_empty());
    }
    let (rogue, step) = wanting(Handshake::new(Goal::Go, "db", ReplyStyle::Structured), 0);
    assert_eq!(step, misbehaved(PeerMisbehaved::NotFixedNewstyle(OptionCode::StartTls)));
    assert!(rogue.sent.is_empty());
}

#[test]
fn what_comes_in_the_clear_behind_the_answer_ends_it() {
    let mut rogue = asking();
    let mut bytes = Vec::new();
    put_reply(&mut bytes, OptionCode::StartTls, ReplyType::Ack, &[]);
    put_reply(&mut bytes, OptionCode::StructuredReply, ReplyType::Ack, &[]);
    let fault = PeerMisbehaved::PlaintextBehindStartTls(20);
    assert_eq!(rogue.send(&bytes), misbehaved(fault));
    rogue.handshake.secured(&mut rogue.sent);
    assert!(rogue.sent.is_empty());
}

#[test]
fn a_server_that_requires_tls_is_explained() {
    let mut rogue = Rogue::new(Goal::Go);
    let error = ReplyType::Error(OptionError::TlsRequired);
    let told = format!("{}", rogue.reply(OptionCode::Go, error, b"").unwrap_err());
    assert!(told.contains("requires TLS") && told.contains("nbds:"), "{told}");
}
