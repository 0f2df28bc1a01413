//! One request in flight: what was asked, what has come of it, and what that comes to.

use std::time::Duration;

use nbd_proto::{Command, NbdError, PeerMisbehaved};

use super::Event;
use super::reading::Reading;
use super::reporting::Reporting;

/// One request in flight.
pub(super) struct InFlight<T> {
    pub tag: T,
    pub started: Duration,
    pub command: Command,
    pub offset: u64,
    pub length: u64,
    /// What has come of a READ.
    pub reading: Option<Reading>,
    /// What has come of a BLOCK_STATUS.
    pub reporting: Option<Reporting>,
    /// The first error reported.
    pub failure: Option<Failure>,
}

/// An error the server reported.
pub(super) struct Failure {
    pub error: NbdError,
    pub message: Option<String>,
}

impl<T> InFlight<T> {
    pub fn is_read(&self) -> bool {
        matches!(self.command, Command::Read { .. })
    }

    /// Whether everything that was asked for has come, now that the reply has ended without an error.
    pub fn check_complete(&self) -> Result<(), PeerMisbehaved> {
        if self.failure.is_some() {
            return Ok(());
        }
        let missing = self
            .reading
            .as_ref()
            .map_or(self.length, |reading| u64::from(reading.missing()));
        if self.is_read() && missing > 0 {
            let length = self.length;
            return Err(PeerMisbehaved::ContentMissing { missing, length });
        }
        match self.reporting.as_ref().and_then(Reporting::missing) {
            Some(context) => Err(PeerMisbehaved::ContextMissing(context)),
            None => Ok(()),
        }
    }

    pub fn into_event(self) -> Event<T> {
        let tag = self.tag;
        match self.failure {
            Some(Failure { error, message }) => Event::Done {
                tag,
                outcome: Err(error),
                message,
                data: None,
                statuses: Vec::new(),
            },
            None => Event::Done {
                tag,
                outcome: Ok(()),
                message: None,
                data: self.reading.map(Reading::into_data),
                statuses: self.reporting.map(Reporting::into_statuses).unwrap_or_default(),
            },
        }
    }

    /// The first error counts: later ones are often its consequence.
    pub fn fail(&mut self, error: NbdError, message: Option<String>) {
        self.failure.get_or_insert(Failure { error, message });
    }
}
