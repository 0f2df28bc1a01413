//! Telling the service manager (systemd, `Type=notify`) how the daemon is.

use sd_notify::NotifyState;

/// What the manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Clients are served.
    Ready,
    /// The daemon is about to end.
    Stopping,
}

/// Tell the manager that started us; nothing happens when there is none.
pub(super) fn notify(state: State) {
    let states = match state {
        State::Ready => [NotifyState::Ready, NotifyState::Status("Serving")],
        State::Stopping => [
            NotifyState::Stopping,
            NotifyState::Status("Finishing what is in flight"),
        ],
    };
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
