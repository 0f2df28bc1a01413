//! How a daemon is told to stop.

use tokio::sync::watch;

/// How urgently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not at all.
    Running,
    /// Finish what is in flight, make everything durable, close.
    Graceful,
    /// Now; metadata stays as after a crash.
    Immediate,
}

/// Tells a daemon to stop.
#[derive(Debug)]
pub struct ShutdownTrigger {
    sender: watch::Sender<Urgency>,
}

/// Waits for the word to stop. Clones see the same word.
#[derive(Clone, Debug)]
pub struct Shutdown {
    receiver: watch::Receiver<Urgency>,
}

/// A trigger and what waits for it. A dropped trigger is a graceful stop.
pub fn shutdown() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(Urgency::Running);
    (ShutdownTrigger { sender }, Shutdown { receiver })
}

impl ShutdownTrigger {
    /// Graceful at first, immediate when asked again.
    pub fn escalate(&self) {
        self.sender.send_modify(|urgency| {
            *urgency = match urgency {
                Urgency::Running => Urgency::Graceful,
                Urgency::Graceful | Urgency::Immediate => Urgency::Immediate,
            };
        });
    }

    /// Graceful, unless something was said already.
    pub fn ask(&self) {
        self.sender.send_if_modified(|urgency| {
            let first = *urgency == Urgency::Running;
            if first {
                *urgency = Urgency::Graceful;
            }
            first
        });
    }

    /// What has been said so far.
    pub fn urgency(&self) -> Urgency {
        *self.sender.borrow()
    }
}

impl Shutdown {
    /// Ends when the daemon shall stop.
    pub async fn graceful(&mut self) {
        // An error means that the trigger is gone: nobody could ever stop this daemon, so it stops now.
        let _ = self.receiver.wait_for(|urgency| *urgency >= Urgency::Graceful).await;
    }

    /// Ends when the daemon shall stop at once; never when the trigger is gone.
    pub async fn immediate(&mut self) {
        if self
            .receiver
            .wait_for(|urgency| *urgency == Urgency::Immediate)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asked_twice_is_immediate() {
        let (trigger, mut waiting) = shutdown();
        trigger.ask();
        waiting.graceful().await;
        trigger.ask();
        assert_eq!(trigger.urgency(), Urgency::Graceful);
        trigger.escalate();
        waiting.immediate().await;
        trigger.escalate();
        assert_eq!(trigger.urgency(), Urgency::Immediate);
    }

    #[tokio::test]
    async fn a_dropped_trigger_stops_gracefully() {
        let (trigger, mut waiting) = shutdown();
        drop(trigger);
        waiting.graceful().await;
    }
}
