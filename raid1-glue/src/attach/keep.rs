//! Keeping a device alive.
//!
//! What the kernel does (drivers/block/nbd.c of Linux 6.1), and what follows from it:
//!
//! | the kernel | here |
//! |---|---|
//! | tells of every connection that is lost, unless the device is being detached | each is heard; a few are gathered |
//! | sends a request again only when its time (`timeout`) is up, though its connection is long gone | the pause of what was under way is that long; everything else goes on with the new connection |
//! | takes new connections in the places of lost ones, and lets go of those for which there is none, in silence | as many as the device has are brought, whatever is lost |
//! | fails everything once a request has waited for the dead timeout; a new connection brings the device back to life | it is tried for ever; that requests failed is told |
//! | says of a device that was detached, and is open, that it is connected | it is asked for a change of nothing, which only an attached one takes |

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use blockmirror_client::uri::NbdUri;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::dial::{self, Dialled, STRAGGLERS_FIRST, STRAGGLERS_LONGEST};
use super::shape::{difference, whole_blocks};
use super::unanswered::Unanswered;
use super::{AttachError, Wanted, device};
use crate::nbd::sysfs::{Progress, Shape, System};
use crate::nbd::{DeadLinks, Nbd, NbdError};

/// Between looks at a device that has lost nothing: whether it is still attached, and gets on.
const LOOK: Duration = Duration::from_secs(1);
/// So many of them for one look at its export: whether that has grown.
const LOOKS_PER_SIZE: u32 = 5;
/// Requests that stand still for so many looks may wait for a connection whose loss was not heard of.
const LOOKS_STILL: u32 = 4;
/// When that was in vain it is waited longer, up to this.
const LOOKS_STILL_MAX: u32 = 60;
/// Connections of a device die one after the other: so long is waited for the others.
const GATHER: Duration = Duration::from_millis(20);
/// Between attempts to connect again: at first,
const AGAIN_FIRST: Duration = Duration::from_millis(50);
/// and at last, after doubling.
const AGAIN_LONGEST: Duration = Duration::from_secs(1);

/// A device that was attached, and what it needs to stay alive.
pub struct Kept {
    nbd: Nbd,
    wanted: Wanted,
    /// What the kernel calls the nodes.
    backend: String,
    shape: Shape,
    /// Told of every connection that is lost.
    lost: Arc<Notify>,
    /// The node that is tried first, by its place in the list: the one that was used last.
    at: usize,
}

/// How keeping a device ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody has detached it.
    Detached,
    /// It was told to.
    Told,
}

/// What happens to a device that is kept, for who wants to know.
#[derive(Debug)]
pub enum Event<'a> {
    /// Some of its connections, or all, are lost.
    Lost,
    /// Requests stand still: it is brought new connections, should it lack some.
    Still,
    /// A node has taken requests and answered none, twice: it is brought no connections until those that wait have failed.
    Unanswered,
    /// It could not be connected again: why. It is tried again.
    Waiting(&'a AttachError),
    /// No node was there for as long as requests wait: those that were asked meanwhile have failed.
    Failing,
    /// It has been brought connections, after so long.
    Back(&'a NbdUri, Duration),
    /// Its export has this size now.
    Resized(u64),
    /// The kernel refuses what it is asked.
    Kernel(&'a NbdError),
}

impl Kept {
    pub(super) fn new(nbd: Nbd, links: DeadLinks, wanted: &Wanted, shape: Shape) -> Self {
        let lost = Arc::new(Notify::new());
        listen(links, wanted.index.0, Arc::clone(&lost));
        Self {
            nbd,
            wanted: Wanted {
                connections: shape.connections,
                ..wanted.clone()
            },
            backend: wanted.uris.to_string(),
            shape,
            lost,
            at: 0,
        }
    }

    /// With the node that its connections go to.
    pub(super) fn at(mut self, uri: &NbdUri) -> Self {
        let mut nodes = self.wanted.uris.as_slice().iter();
        self.at = nodes.position(|node| node == uri).unwrap_or_default();
        self
    }

    /// Nobody has listened until now: any of its connections may be lost. Those with TLS are, with the process that sealed
    /// what went through them.
    pub(super) fn unheard(self) -> Self {
        self.lost.notify_one();
        self
    }

    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        self.shape.size
    }

    /// Until somebody detaches it, or `told` comes to an end.
    pub async fn keep(&mut self, told: impl Future<Output = ()>, mut tell: impl FnMut(Event<'_>)) -> End {
        let mut told = std::pin::pin!(told);
        tokio::select! {
            () = &mut told => End::Told,
            () = self.keep_on(&mut tell) => End::Detached,
        }
    }

    /// Until somebody detaches it.
    async fn keep_on(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let (lost, system) = (Arc::clone(&self.lost), System::here());
        let (mut stillness, mut unanswered, mut looks) = (Stillness::default(), Unanswered::default(), 0);
        while self.is_attached(tell) {
            tokio::select! {
                () = lost.notified() => {
                    sleep(GATHER).await;
                    tell(Event::Lost);
                    let progress = system.progress(self.wanted.index);
                    if unanswered.is_in_vain(Instant::now().into_std(), progress, self.wanted.timeout) {
                        tell(Event::Unanswered);
                        self.let_fail(&system, tell).await;
                    }
                    self.reconnect(tell).await;
                    unanswered.brought(Instant::now().into_std(), system.progress(self.wanted.index));
                }
                () = sleep(LOOK) => {
                    let progress = system.progress(self.wanted.index);
                    unanswered.look(progress);
                    if stillness.look(progress) {
                        tell(Event::Still);
                        self.reconnect(tell).await;
                    }
                    looks += 1;
                    if looks % LOOKS_PER_SIZE == 0 {
                        self.follow_size(tell).await;
                    }
                }
            }
        }
    }

    /// Waits until the kernel has given up what waits: it does so when the device had no connection for the dead timeout. Those of
    /// its connections that are left have to be found wanting first, each in its turn.
    async fn let_fail(&self, system: &System, tell: &mut impl FnMut(Event<'_>)) {
        let finished = || system.progress(self.wanted.index).map(|progress| progress.finished);
        let (before, since) = (finished(), Instant::now());
        let connections = u32::try_from(self.wanted.connections).unwrap_or(1);
        let most = self.wanted.dead_timeout + self.wanted.timeout.unwrap_or_default() * (connections + 1);
        while finished() == before && since.elapsed() < most && self.is_attached(tell) {
            sleep(LOOK).await;
        }
    }

    /// New connections, as soon as a node gives them; none for a device that is attached no more.
    async fn reconnect(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let (since, mut is_failing) = (Instant::now(), false);
        let (mut pause, mut stragglers) = (AGAIN_FIRST, STRAGGLERS_FIRST);
        while self.is_attached(tell) {
            let fits = |dialled: &Dialled| fits(&self.shape, dialled);
            match dial::any(&self.wanted, self.at, stragglers, fits).await {
                Ok(dialled) => match self.hand_over(dialled) {
                    Ok(()) => {
                        tell(Event::Back(&self.wanted.uris.as_slice()[self.at], since.elapsed()));
                        return;
                    }
                    // Attached no more, most likely.
                    Err(error) => tell(Event::Kernel(&error)),
                },
                Err(error) => tell(Event::Waiting(&error)),
            }
            if !is_failing && since.elapsed() >= self.wanted.dead_timeout {
                is_failing = true;
                tell(Event::Failing);
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_LONGEST);
            stragglers = (stragglers * 2).min(STRAGGLERS_LONGEST);
        }
    }

    /// The kernel puts them in the places of dead ones, and lets go those for which there is none.
    fn hand_over(&mut self, dialled: Dialled) -> Result<(), NbdError> {
        let size = whole_blocks(dialled.size, self.shape.block_size);
        let shape = Shape { size, ..self.shape };
        let sockets: Vec<_> = dialled.sockets.iter().map(AsFd::as_fd).collect();
        let device = device(&self.wanted, &shape, &self.backend);
        self.nbd.replace(self.wanted.index.0, &device, &sockets)?;
        self.shape = shape;
        let mut nodes = self.wanted.uris.as_slice().iter();
        self.at = nodes.position(|node| *node == dialled.uri).unwrap_or_default();
        Ok(())
    }

    /// A volume that grew while it was attached.
    async fn follow_size(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        // A node that does not answer now is seen when its connections die.
        let Some(size) = dial::size_of(&self.wanted.uris.as_slice()[self.at]).await else {
            return;
        };
        let size = whole_blocks(size, self.shape.block_size);
        if size <= self.shape.size {
            return;
        }
        match self.nbd.resize(self.wanted.index.0, &self.backend, size) {
            Ok(()) => {
                self.shape.size = size;
                tell(Event::Resized(size));
            }
            Err(error) => tell(Event::Kernel(&error)),
        }
    }

    fn is_attached(&self, tell: &mut impl FnMut(Event<'_>)) -> bool {
        let attached = self.nbd.is_attached(self.wanted.index.0, &self.backend);
        attached.unwrap_or_else(|error| {
            tell(Event::Kernel(&error));
            true
        })
    }
}

fn fits(shape: &Shape, dialled: &Dialled) -> Result<(), AttachError> {
    let different = |what| AttachError::Different {
        uri: dialled.uri.to_string(),
        what,
    };
    difference(shape, dialled).map_or(Ok(()), |what| Err(different(what)))
}

/// Has `lost` told of every connection that the device loses.
fn listen(links: DeadLinks, index: u32, lost: Arc<Notify>) {
    // It ends with the process: nothing but the kernel's next word wakes it.
    std::thread::spawn(move || {
        for link in links {
            match link {
                Ok(dead) if dead != index => {}
                // Also where it is not understood which device it was.
                _ => lost.notify_one(),
            }
        }
    });
}

/// Whether requests stand still.
#[derive(Debug, Default)]
struct Stillness {
    last: Option<Progress>,
    looks: u32,
    /// So many looks were waited for the last time.
    waited: u32,
}

impl Stillness {
    /// True when requests have stood still for some time, then for twice that, and so on.
    fn look(&mut self, now: Option<Progress>) -> bool {
        let is_still = now.is_some_and(|now| now.under_way > 0)
            && self.last.map(|last| last.finished) == now.map(|now| now.finished);
        self.last = now;
        if !is_still {
            (self.looks, self.waited) = (0, 0);
            return false;
        }
        self.looks += 1;
        let patience = (self.waited * 2).clamp(LOOKS_STILL, LOOKS_STILL_MAX);
        if self.looks < patience {
            return false;
        }
        (self.looks, self.waited) = (0, patience);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stillness_is_told_after_some_looks_and_then_more_rarely() {
        let mut stillness = Stillness::default();
        let stuck = Some(Progress {
            finished: 7,
            under_way: 2,
        });
        let told: Vec<_> = (0..30).filter(|_| stillness.look(stuck)).collect();
        // The first look has nothing to compare with; then 4, 8 and 16.
        assert_eq!(told, [4, 12, 28]);
        let moving = Some(Progress {
            finished: 8,
            under_way: 2,
        });
        assert!(!stillness.look(moving));
        assert!((0..3).all(|_| !stillness.look(moving)));
        assert!(stillness.look(moving));
    }

    #[test]
    fn what_has_nothing_to_do_does_not_stand_still() {
        let mut stillness = Stillness::default();
        let idle = Some(Progress {
            finished: 7,
            under_way: 0,
        });
        assert!((0..20).all(|_| !stillness.look(idle) && !stillness.look(None)));
    }
}
