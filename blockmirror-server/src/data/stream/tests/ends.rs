//! The two ends of a stream, in one thread, at a time of the test's own making.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mirror_core::event::ConnectionId;
use mirror_core::stream::codec::Checksum;
use mirror_core::stream::intake::Started;
use mirror_core::stream::{Control, Credit, Request};
use tokio::sync::mpsc::unbounded_channel;

use super::super::{Checked, StreamEvent, StreamLost, StreamOutcome, StreamPort, StreamSetup, StreamWork, WINDOW};
use crate::data::message::FromData;
use crate::data::plan::Limits;
use crate::data::token::{Kind, Token};
use crate::data::turn::Turn;
use crate::layers::{FaultLayer, FaultPlan};
use crate::ring::{EngineChoice, InlinePolicy, Payload, open_driver_with};

/// Turns a test may take until what it waits for has come.
const PATIENCE: usize = 20_000;

/// One end.
pub(super) struct End {
    pub(super) turn: Turn,
    pub(super) port: StreamPort,
    pub(super) events: Vec<StreamEvent>,
    pub(super) lost: Option<StreamLost>,
    pub(super) faults: FaultPlan,
    _control: tokio::sync::mpsc::UnboundedReceiver<(usize, FromData)>,
}

/// What the test says about a link; the rest is as in production.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) engine: EngineChoice,
    pub(super) inline: InlinePolicy,
    pub(super) window: Credit,
    pub(super) checksum: Checksum,
    pub(super) unread: Vec<u8>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Threads,
            inline: InlinePolicy::Adaptive,
            window: WINDOW,
            checksum: Checksum::Xxh3,
            unread: Vec::new(),
        }
    }
}

/// Both engines, operations that never end at once, and a peer of an older release.
pub(super) fn settings() -> Vec<Setting> {
    let mut settings = vec![
        Setting::default(),
        Setting {
            inline: InlinePolicy::Never,
            ..Setting::default()
        },
        Setting {
            checksum: Checksum::Crc32,
            ..Setting::default()
        },
    ];
    if open_driver_with(EngineChoice::Uring, InlinePolicy::Adaptive).is_ok() {
        settings.push(Setting {
            engine: EngineChoice::Uring,
            ..Setting::default()
        });
    }
    settings
}

impl End {
    pub(super) fn new(setting: &Setting, socket: UnixStream, dialled: bool) -> Self {
        let faults = FaultPlan::new();
        let driver = open_driver_with(setting.engine, setting.inline).unwrap();
        let driver = FaultLayer::new(driver, faults.clone());
        let (control, heard) = unbounded_channel();
        let turn = Turn::new(Box::new(driver), Limits::default(), control, 0);
        let mut end = Self {
            turn,
            port: StreamPort::new(2, setting.window),
            events: Vec::new(),
            lost: None,
            faults,
            _control: heard,
        };
        end.attach(1, setting, socket, dialled);
        end.port.open(&end.turn).unwrap();
        end
    }

    pub(super) fn attach(&mut self, connection: u32, setting: &Setting, socket: UnixStream, dialled: bool) {
        self.attach_any(connection, setting, socket.into(), dialled);
    }

    pub(super) fn attach_any(&mut self, connection: u32, setting: &Setting, socket: OwnedFd, dialled: bool) {
        let setup = StreamSetup {
            connection: ConnectionId(connection),
            socket: socket.into(),
            unread: setting.unread.clone(),
            dialled,
            incarnation: 7,
            checksum: setting.checksum,
            credit: setting.window,
            heartbeat: Duration::from_millis(500),
            dead_after: Duration::from_secs(3),
            request_timeout: Duration::from_secs(20),
        };
        let token = |kind| Token {
            kind,
            index: 0,
            value: u64::from(connection),
        };
        let tokens = (token(Kind::StreamReceive), token(Kind::StreamSend));
        self.port.attach(&self.turn, setup, tokens).unwrap();
        self.lost = None;
    }

    /// One turn of its thread.
    pub(super) fn step(&mut self) {
        if self.lost.is_some() {
            return;
        }
        self.port.flush(&mut self.turn);
        let mut completions = std::mem::take(&mut self.turn.inline);
        self.turn.driver.wait(Some(Duration::ZERO), &mut completions).unwrap();
        for completion in completions {
            let token = Token::decode(completion.token).unwrap();
            let (connection, result, op) = (ConnectionId(token.value as u32), completion.result, completion.op);
            let outcome = match token.kind {
                Kind::StreamReceive => self.port.on_received(&self.turn, connection, result, op),
                Kind::StreamSend => self.port.on_sent(&mut self.turn, connection, result, op),
                other => panic!("{other:?}"),
            };
            self.note(outcome);
        }
        let mut new = Vec::new();
        self.port.take_events(&mut new);
        self.events.append(&mut new);
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.turn.now += time;
        let outcome = self.port.check_time(&self.turn);
        self.note(outcome);
    }

    pub(super) fn ask(&mut self, request: Request, payload: Option<&[u8]>, work: StreamWork) {
        let payload = payload.map(|bytes| Checked::new(self.payload(bytes)));
        assert!(self.port.ask(&self.turn, 1, request, payload, work));
    }

    pub(super) fn payload(&self, bytes: &[u8]) -> Payload {
        self.turn.driver.pool().payload_of(bytes)
    }

    /// The requests that came, taken out.
    pub(super) fn take_requests(&mut self) -> Vec<(Started, Request, Option<Payload>)> {
        self.take(|event| match event {
            StreamEvent::Request {
                started,
                volume: 1,
                request,
                payload,
            } => Ok((started, request, payload)),
            other => Err(other),
        })
    }

    /// The answers that came, taken out.
    pub(super) fn take_answers(&mut self) -> Vec<(StreamWork, StreamOutcome)> {
        self.take(|event| match event {
            StreamEvent::Answered { work, outcome, .. } => Ok((work, outcome)),
            other => Err(other),
        })
    }

    /// The volumes to be flushed for a barrier, taken out.
    pub(super) fn take_flushes(&mut self) -> Vec<(ConnectionId, u16)> {
        self.take(|event| match event {
            StreamEvent::FlushVolume { connection, volume } => Ok((connection, volume)),
            other => Err(other),
        })
    }

    /// The control frames that came, taken out.
    pub(super) fn take_controls(&mut self) -> Vec<Control> {
        self.take(|event| match event {
            StreamEvent::Control(control) => Ok(control),
            other => Err(other),
        })
    }

    fn take<T>(&mut self, mut wanted: impl FnMut(StreamEvent) -> Result<T, StreamEvent>) -> Vec<T> {
        let mut taken = Vec::new();
        for event in std::mem::take(&mut self.events) {
            match wanted(event) {
                Ok(value) => taken.push(value),
                Err(other) => self.events.push(other),
            }
        }
        taken
    }

    fn note(&mut self, outcome: Result<(), StreamLost>) {
        if let (Err(lost), None) = (outcome, &self.lost) {
            self.lost = Some(lost);
        }
    }
}

/// Two links, connected.
pub(super) fn pair(setting: &Setting) -> (End, End) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (End::new(setting, ours, true), End::new(setting, theirs, false))
}

/// Both go on until it is as wanted.
pub(super) fn run(a: &mut End, b: &mut End, what: &str, mut wanted: impl FnMut(&mut End, &mut End) -> bool) {
    for _ in 0..PATIENCE {
        a.step();
        b.step();
        if wanted(a, b) {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("never came: {what}; lost: {:?}, {:?}", a.lost, b.lost);
}

/// One goes on until it is as wanted.
pub(super) fn run_one(end: &mut End, what: &str, mut wanted: impl FnMut(&mut End) -> bool) {
    for _ in 0..PATIENCE {
        end.step();
        if wanted(end) {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("never came: {what}; lost: {:?}", end.lost);
}

/// One link, and the bare other end of its connection.
pub(super) fn tapped(setting: &Setting) -> (UnixStream, End) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (theirs, End::new(setting, ours, true))
}
