//! A client that says one option after the other, good and bad, to the server's end of the handshake.

use arbitrary::{Arbitrary, Result, Unstructured};
use nbd_proto::constants::{MAX_CONTEXTS, MAX_STRING, REPLY_BYTES_PER_CALL};
use nbd_proto::server::{Handshake, Negotiated, Step, TlsMode};
use nbd_proto::{BlockSizes, Context, ExportInfo, OptionCode, PeerMisbehaved, ReplyStyle, TransmissionFlags, server};

use super::wire::{Name, Query, Reply, Say, read_replies};

/// Most options of one client.
const LONGEST: usize = 100;

/// Everything a run depends on.
#[derive(Debug)]
pub struct Scene {
    tls: Mode,
    /// Flags of the client.
    fixed_newstyle: bool,
    no_zeroes: bool,
    /// After so many options the server goes down.
    ends_after: Option<u8>,
    /// Lengths of the pieces the bytes come in.
    cuts: [u8; 4],
    says: Vec<Say>,
}

impl<'a> Arbitrary<'a> for Scene {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let flags: u8 = u.arbitrary()?;
        let cuts = u.arbitrary()?;
        Ok(Self {
            tls: [Mode::Off, Mode::Allow, Mode::Require][usize::from(flags % 3)],
            fixed_newstyle: flags & 0x30 != 0,
            no_zeroes: flags & 0x40 != 0,
            ends_after: if flags & 0x80 == 0 { None } else { Some(u.arbitrary()?) },
            cuts,
            says: conversation(u)?,
        })
    }
}

/// As much as there are bytes for.
fn conversation<'a>(u: &mut Unstructured<'a>) -> Result<Vec<Say>> {
    let mut says = Vec::new();
    while !u.is_empty() && says.len() < LONGEST {
        says.push(u.arbitrary()?);
    }
    Ok(says)
}

/// What TLS is to the server.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Mode {
    Off,
    Allow,
    Require,
}

impl From<Mode> for TlsMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Allow => Self::Allow,
            Mode::Require => Self::Require,
        }
    }
}

/// `db` is the default, `secret` is for clients inside TLS only.
#[derive(Default)]
pub struct Shelf {
    shutting_down: bool,
}

impl server::Exports for Shelf {
    fn find(&self, name: &str) -> Option<ExportInfo> {
        let name = if name.is_empty() { "db" } else { name };
        matches!(name, "db" | "log" | "secret").then(|| ExportInfo {
            name: name.into(),
            description: "an export".into(),
            size: 1 << 40,
            flags: TransmissionFlags::all(),
            block_sizes: BlockSizes::default(),
        })
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![("db".into(), "the database".into()), ("log".into(), String::new())]
    }

    fn requires_tls(&self, name: &str) -> bool {
        name == "secret"
    }

    fn contexts(&self, export: &str) -> Vec<String> {
        let all = ["base:allocation", "x-test:dirty/a", "x-test:dirty/b"];
        let count = if export == "log" { 1 } else { all.len() };
        all[..count].iter().map(|name| (*name).to_owned()).collect()
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }
}

/// What the server has agreed to, by its own replies.
struct Model {
    mode: Mode,
    is_fixed: bool,
    is_secured: bool,
    no_zeroes: bool,
    shutting_down: bool,
    style: ReplyStyle,
    /// The export and what was selected for it; `None`: not known, since the option was mangled.
    selected: Option<(String, Vec<Context>)>,
    /// What the last option was, if it was a good INFO, and its answer.
    info: Option<(Vec<u8>, Vec<Vec<u8>>)>,
}

/// Plays the scene and holds every answer against the model.
pub fn play(scene: &Scene) {
    let mut handshake = Handshake::new(TlsMode::from(scene.tls));
    let mut cuts = scene.cuts.map(|cut| usize::from(cut) + 1).into_iter().cycle();
    let mut exports = Shelf::default();
    let mut model = Model::new(scene);
    let flags = u32::from(scene.fixed_newstyle) | u32::from(scene.no_zeroes) << 1;
    let (output, step) = feed(&mut handshake, &flags.to_be_bytes(), &mut cuts, &exports);
    assert!(output.is_empty(), "flags are not answered");
    if matches!(scene.tls, Mode::Require) && !scene.fixed_newstyle {
        return assert!(
            matches!(step, Step::Failed(_)),
            "no TLS without fixed newstyle: {step:?}"
        );
    }
    assert_eq!(step, Step::NeedMore);
    for (count, say) in scene.says.iter().enumerate() {
        exports.shutting_down = scene.ends_after.is_some_and(|after| count >= usize::from(after));
        model.shutting_down = exports.shutting_down;
        let (output, step) = feed(&mut handshake, &say.bytes(), &mut cuts, &exports);
        match model.judge(say, &output, step) {
            Next::On => {}
            Next::Secure => handshake.secured(),
            Next::Over => {
                let again = handshake.handle(b"IHAVEOPT\0\0\0\x03\0\0\0\0", &exports, &mut Vec::new());
                return assert_eq!(again, (0, Step::NeedMore), "nothing is taken after the end");
            }
        }
    }
}

/// What comes after an option.
enum Next {
    On,
    Secure,
    Over,
}

/// All of `bytes`, in pieces; what is said in return, and the last step.
fn feed(
    handshake: &mut Handshake,
    bytes: &[u8],
    cuts: &mut impl Iterator<Item = usize>,
    exports: &Shelf,
) -> (Vec<u8>, Step) {
    let (mut rest, mut output) = (bytes, Vec::new());
    loop {
        let piece = cuts.next().unwrap_or(usize::MAX).min(rest.len());
        let before = output.len();
        let (taken, step) = handshake.handle(&rest[..piece], exports, &mut output);
        assert!(
            output.len() - before < REPLY_BYTES_PER_CALL + 8 * MAX_STRING,
            "replies are bounded"
        );
        rest = &rest[taken..];
        if step != Step::NeedMore {
            let may_be_left = matches!(step, Step::Failed(_));
            assert!(
                rest.is_empty() || may_be_left,
                "the last byte of the option ends it: {step:?}"
            );
            return (output, step);
        }
        assert_eq!(taken, piece, "all is taken while more is needed");
        if rest.is_empty() {
            return (output, Step::NeedMore);
        }
    }
}

impl Model {
    fn new(scene: &Scene) -> Self {
        Self {
            mode: scene.tls,
            is_fixed: scene.fixed_newstyle,
            is_secured: false,
            no_zeroes: scene.no_zeroes,
            shutting_down: false,
            style: ReplyStyle::Simple,
            selected: Some((String::new(), Vec::new())),
            info: None,
        }
    }

    fn judge(&mut self, say: &Say, output: &[u8], step: Step) -> Next {
        let info = self.info.take();
        if let Step::Failed(fault) = &step {
            self.check_failure(say, fault);
            assert!(output.is_empty(), "a failure has no answer: {fault}");
            return Next::Over;
        }
        if say.code() == OptionCode::ExportName {
            self.check_export_name(say, output, &step);
            return Next::Over;
        }
        let replies = read_replies(output, say.code());
        let (last, before) = replies.split_last().expect("every option is answered");
        assert!(
            before.iter().all(|reply| !reply.is_final()),
            "one final reply: {replies:?}"
        );
        assert!(last.is_final(), "the final reply comes last: {replies:?}");
        self.check_tls(say, last);
        match (say.code(), last.is_ack()) {
            (OptionCode::Abort, is_ack) => {
                assert!(is_ack && step == Step::Aborted, "ABORT is acknowledged");
                Next::Over
            }
            (OptionCode::StartTls, true) => {
                assert_eq!(step, Step::StartTls);
                self.forget();
                Next::Secure
            }
            (OptionCode::Go, true) => {
                let Step::Ready(negotiated) = step else {
                    panic!("GO was acknowledged: {step:?}")
                };
                self.check_ready(say, &negotiated);
                if let Some((asked, told)) = info
                    && asked == say.data()
                {
                    assert_eq!(told, payloads(before), "GO tells what INFO told");
                }
                Next::Over
            }
            (_, is_ack) => {
                assert_eq!(step, Step::NeedMore, "{say:?}");
                self.learn(say, is_ack, before);
                Next::On
            }
        }
    }

    /// Nothing agreed in the clear counts inside TLS.
    fn forget(&mut self) {
        self.is_secured = true;
        self.style = ReplyStyle::Simple;
        self.selected = Some((String::new(), Vec::new()));
    }

    fn learn(&mut self, say: &Say, is_ack: bool, replies: &[Reply]) {
        match (say.code(), is_ack) {
            (OptionCode::StructuredReply, true) => {
                assert_ne!(self.style, ReplyStyle::Extended, "extended headers are not taken back");
                self.style = ReplyStyle::Structured;
            }
            (OptionCode::ExtendedHeaders, true) => self.style = ReplyStyle::Extended,
            (OptionCode::SetMetaContext, false) => self.selected = Some((String::new(), Vec::new())),
            (OptionCode::SetMetaContext, true) => self.select(say, replies),
            (OptionCode::Info, true) => self.info = Some((say.data(), payloads(replies))),
            _ => {}
        }
    }

    fn select(&mut self, say: &Say, replies: &[Reply]) {
        assert!(self.style.has_chunks(), "contexts without chunks");
        let contexts: Vec<Context> = replies.iter().map(Reply::context).collect();
        assert!(contexts.len() <= MAX_CONTEXTS);
        for (n, context) in contexts.iter().enumerate() {
            let twice = contexts[..n]
                .iter()
                .any(|other| other.id == context.id || other.name == context.name);
            assert!(!twice, "a number or a name twice: {contexts:?}");
        }
        self.selected = say.queries().map(|(name, queries)| {
            let asked = |context: &Context| queries.iter().any(|query| query.text() == context.name);
            assert!(
                contexts.iter().all(asked),
                "selected though not asked for: {contexts:?}"
            );
            (canonical(name), contexts)
        });
    }

    fn check_tls(&self, say: &Say, last: &Reply) {
        let wants_tls = last.is_tls_required();
        assert!(!(wants_tls && self.is_secured), "TLS is asked for inside TLS");
        match self.mode {
            Mode::Off => assert!(!wants_tls, "TLS is asked for where there is none"),
            Mode::Allow => {
                let may = matches!(say.code(), OptionCode::Info | OptionCode::Go);
                assert!(!wants_tls || may, "{say:?} is refused for want of TLS");
            }
            Mode::Require => {
                let may = matches!(say.code(), OptionCode::StartTls | OptionCode::Abort);
                assert!(self.is_secured || may || wants_tls, "{say:?} is answered outside TLS");
            }
        }
        if say.code() == OptionCode::StartTls && last.is_ack() {
            let may = !matches!(self.mode, Mode::Off) && self.is_fixed && !self.is_secured;
            assert!(may && say.data().is_empty(), "STARTTLS is granted");
        }
    }

    fn check_failure(&self, say: &Say, fault: &PeerMisbehaved) {
        let is_torn = matches!(fault, PeerMisbehaved::BadOptionMagic(_));
        assert!(
            is_torn == say.is_torn() && (is_torn || say.code() == OptionCode::ExportName),
            "only what cannot be refused ends it: {say:?}: {fault}"
        );
    }

    fn check_export_name(&self, say: &Say, output: &[u8], step: &Step) {
        let Step::Ready(negotiated) = step else {
            panic!("EXPORT_NAME came to {step:?}")
        };
        assert!(self.is_secured || !matches!(self.mode, Mode::Require), "outside TLS");
        assert!(!self.shutting_down && self.style != ReplyStyle::Extended, "{say:?}");
        assert_eq!(output.len(), if self.no_zeroes { 10 } else { 134 });
        assert_eq!(output[..8], negotiated.export.size.to_be_bytes());
        self.check_ready(say, negotiated);
    }

    fn check_ready(&self, say: &Say, negotiated: &Negotiated) {
        let Negotiated {
            export,
            replies,
            contexts,
            ..
        } = negotiated;
        assert!(!self.shutting_down);
        assert_eq!(*replies, self.style);
        assert!(export.flags.contains(TransmissionFlags::HAS_FLAGS));
        assert!(
            self.is_secured || export.name != "secret" || matches!(self.mode, Mode::Off),
            "{say:?}"
        );
        assert_eq!(
            export.flags.contains(TransmissionFlags::SEND_DF),
            self.style.has_chunks()
        );
        let filter = export.flags.contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        assert!(!filter || self.style == ReplyStyle::Extended);
        if let Some((selected_for, selected)) = &self.selected {
            let expected: &[Context] = if *selected_for == export.name { selected } else { &[] };
            assert_eq!(contexts, expected, "what was selected for {selected_for:?}");
        }
    }
}

fn canonical(name: Name) -> String {
    match name.text() {
        "" => "db".to_owned(),
        name => name.to_owned(),
    }
}

fn payloads(replies: &[Reply]) -> Vec<Vec<u8>> {
    replies.iter().map(|reply| reply.payload.clone()).collect()
}

impl Query {
    /// As it goes over the wire.
    pub fn text(self) -> &'static str {
        const TEXTS: [&str; 8] = [
            "base:allocation",
            "base:",
            "x-test:dirty/a",
            "x-test:dirty/b",
            "x-test:dirty/",
            "base:nothing",
            "x-other:a",
            "no namespace",
        ];
        TEXTS[usize::from(self.0) % TEXTS.len()]
    }
}
