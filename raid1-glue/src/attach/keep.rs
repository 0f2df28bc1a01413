//! Keeping a device alive.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use blockmirror_client::uri::NbdUri;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::dial::{self, Dialled};
use super::{AttachError, Wanted, device};
use crate::nbd::{DeadLinks, Nbd, NbdError};

/// Between looks at a device that has lost nothing: whether it is still there, and as large as its export.
const LOOK: Duration = Duration::from_secs(5);
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
    size: u64,
    block_size: u32,
    /// Where its connections go.
    uri: NbdUri,
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
    /// It could not be connected again: why. It is tried again.
    Waiting(&'a AttachError),
    /// It has connections again, after so long.
    Back(&'a NbdUri, Duration),
    /// Its export has this size now.
    Resized(u64),
}

impl Kept {
    pub(super) fn new(nbd: Nbd, wanted: Wanted, dialled: Dialled, block_size: u32) -> Self {
        Self {
            nbd,
            wanted,
            size: dialled.size,
            block_size,
            uri: dialled.uri,
        }
    }

    /// Where its connections go.
    pub fn uri(&self) -> &NbdUri {
        &self.uri
    }

    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Until somebody detaches it, or `told` comes to an end.
    ///
    /// # Errors
    /// The kernel cannot be asked, or a node serves something else under the export's name.
    pub async fn keep(
        &mut self,
        told: impl Future<Output = ()>,
        mut tell: impl FnMut(Event<'_>),
    ) -> Result<End, AttachError> {
        let lost = self.listen()?;
        let mut told = std::pin::pin!(told);
        // What died before anybody listened.
        let mut is_lost = false;
        loop {
            if is_lost {
                tell(Event::Lost);
                tokio::select! {
                    () = &mut told => return Ok(End::Told),
                    back = self.reconnect(&mut tell) => if !back? { return Ok(End::Detached) },
                }
            }
            tokio::select! {
                () = &mut told => return Ok(End::Told),
                () = lost.notified() => {
                    sleep(GATHER).await;
                    is_lost = true;
                }
                () = sleep(LOOK) => {
                    is_lost = false;
                    if !self.is_attached()? {
                        return Ok(End::Detached);
                    }
                    self.follow_size(&mut tell).await?;
                }
            }
        }
    }

    fn listen(&self) -> Result<Arc<Notify>, AttachError> {
        let links = DeadLinks::listen().map_err(|source| self.kernel(source))?;
        let (lost, index) = (Arc::new(Notify::new()), self.wanted.index.0);
        let notify = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("dead-links".to_owned())
            .spawn(move || {
                for link in links {
                    // A listener that has failed lets the periodic look do its work.
                    match link {
                        Ok(dead) if dead == index => notify.notify_one(),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
            })?;
        Ok(lost)
    }

    /// New connections, as soon as a node gives them. False: the device is not attached any more.
    async fn reconnect(&mut self, tell: &mut impl FnMut(Event<'_>)) -> Result<bool, AttachError> {
        let (since, mut pause) = (Instant::now(), AGAIN_FIRST);
        loop {
            if !self.is_attached()? {
                return Ok(false);
            }
            match self.dial_again().await {
                Ok(dialled) => {
                    self.hand_over(dialled)?;
                    tell(Event::Back(&self.uri, since.elapsed()));
                    return Ok(true);
                }
                Err(error @ AttachError::Different { .. }) => return Err(error),
                Err(error) => tell(Event::Waiting(&error)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_LONGEST);
        }
    }

    async fn dial_again(&self) -> Result<Dialled, AttachError> {
        let dialled = dial::any(&self.wanted).await?;
        if dialled.size < self.size {
            return Err(AttachError::Different {
                uri: dialled.uri.to_string(),
                what: format!("it has {} bytes, the device has {}", dialled.size, self.size),
            });
        }
        Ok(dialled)
    }

    /// The kernel puts them in the places of dead ones, and lets go those for which there is none.
    fn hand_over(&mut self, dialled: Dialled) -> Result<(), AttachError> {
        let backend = self.wanted.uris.to_string();
        let device = device(&self.wanted, &dialled, self.block_size, &backend);
        let sockets: Vec<_> = dialled.sockets.iter().map(AsFd::as_fd).collect();
        let index = self.wanted.index.0;
        let replaced = self.nbd.replace(index, &device, &sockets);
        replaced.map_err(|source| self.kernel(source))?;
        (self.uri, self.size) = (dialled.uri, dialled.size);
        Ok(())
    }

    /// A volume that grew while it was attached.
    async fn follow_size(&mut self, tell: &mut impl FnMut(Event<'_>)) -> Result<(), AttachError> {
        // A node that does not answer now is seen when its connections die.
        let Some(size) = dial::size_of(&self.uri).await else {
            return Ok(());
        };
        if size > self.size {
            let resized = self.nbd.resize(self.wanted.index.0, size);
            resized.map_err(|source| self.kernel(source))?;
            self.size = size;
            tell(Event::Resized(size));
        }
        Ok(())
    }

    fn is_attached(&self) -> Result<bool, AttachError> {
        let attached = self.nbd.is_connected(self.wanted.index.0);
        attached.map_err(|source| self.kernel(source))
    }

    fn kernel(&self, source: NbdError) -> AttachError {
        AttachError::Kernel {
            index: self.wanted.index,
            source,
        }
    }
}
