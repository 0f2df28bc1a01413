//! The kernel's block device over NBD, by generic netlink: family "nbd", `linux/nbd-netlink.h`.
//!
//! | command | what it does here |
//! |---|---|
//! | `NBD_CMD_CONNECT` | sockets become a device; it lives on when this process ends |
//! | `NBD_CMD_RECONFIGURE` | new sockets in the places of dead ones; a new size |
//! | `NBD_CMD_DISCONNECT` | the device is let go: DISC on every socket |
//! | `NBD_CMD_LINK_DEAD` | told to everybody who listens: a device has lost a socket |
//!
//! The kernel wants `CAP_SYS_ADMIN` for all but the last.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use neli::consts::genl::{Cmd, NlAttrType};
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::err::RouterError;
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, Nlmsghdr};
use neli::router::synchronous::{NlRouter, NlRouterReceiverHandle};
use neli::types::{Buffer, GenlBuffer};
use neli::utils::Groups;
use neli::{Size, ToBytes, neli_enum};

const FAMILY: &str = "nbd";
const VERSION: u8 = 1;
const LISTENERS: &str = "nbd_mc_group";

#[neli_enum(serialized_type = "u8")]
enum Command {
    Unspecified = 0,
    Connect = 1,
    Disconnect = 2,
    Reconfigure = 3,
    LinkDead = 4,
    Status = 5,
}
impl Cmd for Command {}

#[neli_enum(serialized_type = "u16")]
enum Attribute {
    Unspecified = 0,
    Index = 1,
    SizeBytes = 2,
    BlockSizeBytes = 3,
    Timeout = 4,
    ServerFlags = 5,
    ClientFlags = 6,
    Sockets = 7,
    DeadConnectionTimeout = 8,
    DeviceList = 9,
    BackendIdentifier = 10,
}
impl NlAttrType for Attribute {}

/// Within `Sockets`.
#[neli_enum(serialized_type = "u16")]
enum List {
    Unspecified = 0,
    Item = 1,
}
impl NlAttrType for List {}

#[neli_enum(serialized_type = "u16")]
enum SocketItem {
    Unspecified = 0,
    Descriptor = 1,
}
impl NlAttrType for SocketItem {}

type Message = Genlmsghdr<Command, Attribute>;
type Answer = Nlmsghdr<u16, Message>;

/// Why the kernel does not do it.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// There is no such family: no driver.
    #[error("the kernel has no nbd driver: load it with \"modprobe nbd nbds_max=0\"")]
    NoDriver,
    /// Refused by the kernel, with its number.
    #[error("the kernel refuses to {what}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Netlink itself.
    #[error("netlink: {0}")]
    Netlink(String),
}

impl NbdError {
    /// Somebody has the device open, or it is attached.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }

    /// The device is not attached, or not to what it is thought to be.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::InvalidInput)
    }
}

/// What a device is made of.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// N of `/dev/nbdN`; `None`: the kernel chooses.
    pub index: Option<u32>,
    /// Bytes.
    pub size: u64,
    /// Logical block size in bytes: a power of two from 512 to a page.
    pub block_size: u32,
    /// The export's transmission flags.
    pub flags: u16,
    /// What is not answered by then is sent again on another connection; `None`: never.
    pub timeout: Option<Duration>,
    /// So long requests wait for a connection when none is left, before they fail. Whole seconds.
    pub dead_timeout: Duration,
    /// What it is attached to, for those who look later: `/sys/block/nbdN/backend` (Linux 5.14).
    pub backend: &'a str,
}

/// The driver. One process may ask it by several.
pub struct Nbd {
    router: NlRouter,
    family: u16,
}

impl Nbd {
    /// Finds the driver.
    ///
    /// # Errors
    /// There is none, or netlink cannot be used.
    pub fn open() -> Result<Self, NbdError> {
        let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty()).map_err(netlink)?;
        let family = router.resolve_genl_family(FAMILY).map_err(|_| NbdError::NoDriver)?;
        Ok(Self { router, family })
    }

    /// Sockets, negotiated and quiet, become a device. They are the kernel's from then on.
    ///
    /// # Errors
    /// EBUSY: the device is in use. EINVAL: several connections without `CAN_MULTI_CONN`, or a block size that is none.
    pub fn connect(&self, device: &Device<'_>, sockets: &[BorrowedFd<'_>]) -> Result<u32, NbdError> {
        let what = "attach the device";
        let mut attributes = Attributes::new();
        if let Some(index) = device.index {
            attributes.put(Attribute::Index, index)?;
        }
        attributes.put(Attribute::SizeBytes, device.size)?;
        attributes.put(Attribute::BlockSizeBytes, u64::from(device.block_size))?;
        attributes.put(Attribute::ServerFlags, u64::from(device.flags))?;
        attributes.put_times(device)?;
        attributes.put(Attribute::BackendIdentifier, device.backend)?;
        attributes.put_sockets(sockets)?;
        let answer = self.ask(what, Command::Connect, attributes)?;
        let index = answer.and_then(|answer| {
            let handle = answer.attrs().get_attr_handle();
            handle.get_attr_payload_as::<u32>(Attribute::Index).ok()
        });
        index.ok_or_else(|| NbdError::Netlink("the kernel does not say which device it is".to_owned()))
    }

    /// New sockets in the places of dead ones. Those for which there is no such place are let go by the kernel, in silence.
    ///
    /// # Errors
    /// EINVAL: the device is not attached. ENODEV: there is none of that number.
    pub fn replace(&self, index: u32, device: &Device<'_>, sockets: &[BorrowedFd<'_>]) -> Result<(), NbdError> {
        let mut attributes = Attributes::new();
        attributes.put(Attribute::Index, index)?;
        attributes.put(Attribute::SizeBytes, device.size)?;
        attributes.put_times(device)?;
        attributes.put(Attribute::BackendIdentifier, device.backend)?;
        attributes.put_sockets(sockets)?;
        self.ask("take new connections", Command::Reconfigure, attributes)?;
        Ok(())
    }

    /// Another size, of a device that is attached to `backend`.
    ///
    /// # Errors
    /// As of [`replace`](Self::replace).
    pub fn resize(&self, index: u32, backend: &str, size: u64) -> Result<(), NbdError> {
        let mut attributes = Attributes::new();
        attributes.put(Attribute::Index, index)?;
        attributes.put(Attribute::SizeBytes, size)?;
        attributes.put(Attribute::BackendIdentifier, backend)?;
        self.ask("change the size", Command::Reconfigure, attributes)?;
        Ok(())
    }

    /// Whether the device is attached to `backend`, and takes connections. One that was detached while somebody has it
    /// open does not, although the kernel calls it connected (`NBD_CMD_STATUS`).
    ///
    /// # Errors
    /// Netlink cannot be used.
    pub fn is_attached(&self, index: u32, backend: &str) -> Result<bool, NbdError> {
        let mut attributes = Attributes::new();
        attributes.put(Attribute::Index, index)?;
        attributes.put(Attribute::BackendIdentifier, backend)?;
        // A change of nothing.
        match self.ask("say what is attached", Command::Reconfigure, attributes) {
            Ok(_) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The device is let go, whatever is under way: what has to be written is written before.
    ///
    /// # Errors
    /// ENODEV or EINVAL: there is none of that number.
    pub fn disconnect(&self, index: u32) -> Result<(), NbdError> {
        let mut attributes = Attributes::new();
        attributes.put(Attribute::Index, index)?;
        self.ask("detach the device", Command::Disconnect, attributes)?;
        Ok(())
    }

    /// What it is asked, and what it answers beside "done".
    fn ask(&self, what: &'static str, command: Command, attributes: Attributes) -> Result<Option<Message>, NbdError> {
        let message = GenlmsghdrBuilder::default()
            .cmd(command)
            .version(VERSION)
            .attrs(attributes.0)
            .build()
            .map_err(netlink)?;
        let answers = self
            .router
            .send::<_, _, u16, Message>(self.family, NlmF::ACK, NlPayload::Payload(message))
            .map_err(netlink)?;
        let mut told = None;
        for answer in answers {
            let answer: Answer = answer.map_err(|error| refused(what, error))?;
            if let NlPayload::Payload(payload) = answer.nl_payload() {
                told = Some(payload.clone());
            }
        }
        Ok(told)
    }
}

/// Devices that have lost a connection, by their numbers, as the kernel tells it.
pub struct DeadLinks {
    _router: NlRouter,
    news: NlRouterReceiverHandle<u16, Genlmsghdr<u8, u16>>,
}

impl DeadLinks {
    /// Begins to listen.
    ///
    /// # Errors
    /// There is no driver, or netlink cannot be used.
    pub fn listen() -> Result<Self, NbdError> {
        let (router, news) = NlRouter::connect(NlFamily::Generic, None, Groups::empty()).map_err(netlink)?;
        let group = router
            .resolve_nl_mcast_group(FAMILY, LISTENERS)
            .map_err(|_| NbdError::NoDriver)?;
        router
            .add_mcast_membership(Groups::new_groups(&[group]))
            .map_err(netlink)?;
        Ok(Self { _router: router, news })
    }
}

impl Iterator for DeadLinks {
    type Item = Result<u32, NbdError>;

    /// Waits for the next one.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let told = match self.news.next_typed::<u16, Message>()? {
                Ok(told) => told,
                Err(error) => return Some(Err(netlink(error))),
            };
            let NlPayload::Payload(message) = told.nl_payload() else {
                continue;
            };
            let handle = message.attrs().get_attr_handle();
            if *message.cmd() == Command::LinkDead
                && let Ok(index) = handle.get_attr_payload_as::<u32>(Attribute::Index)
            {
                return Some(Ok(index));
            }
        }
    }
}

/// Attributes of a question.
struct Attributes(GenlBuffer<Attribute, Buffer>);

impl Attributes {
    fn new() -> Self {
        Self(GenlBuffer::new())
    }

    fn put(&mut self, name: Attribute, value: impl Size + ToBytes) -> Result<(), NbdError> {
        self.0.push(attribute(name, value)?);
        Ok(())
    }

    fn put_times(&mut self, device: &Device<'_>) -> Result<(), NbdError> {
        self.put(
            Attribute::Timeout,
            device.timeout.map_or(0, |timeout| timeout.as_secs()),
        )?;
        self.put(Attribute::DeadConnectionTimeout, device.dead_timeout.as_secs())
    }

    fn put_sockets(&mut self, sockets: &[BorrowedFd<'_>]) -> Result<(), NbdError> {
        let mut list = attribute(Attribute::Sockets, Vec::<u8>::new())?;
        for socket in sockets {
            let descriptor = attribute(SocketItem::Descriptor, socket.as_raw_fd())?;
            let item = attribute(List::Item, Vec::<u8>::new())?
                .nest(&descriptor)
                .map_err(netlink)?;
            list = list.nest(&item).map_err(netlink)?;
        }
        self.0.push(list);
        Ok(())
    }
}

fn attribute<T: NlAttrType>(name: T, value: impl Size + ToBytes) -> Result<Nlattr<T, Buffer>, NbdError> {
    let name = AttrTypeBuilder::default().nla_type(name).build().map_err(netlink)?;
    NlattrBuilder::default()
        .nla_type(name)
        .nla_payload(value)
        .build()
        .map_err(netlink)
}

fn refused<T, P>(what: &'static str, error: RouterError<T, P>) -> NbdError
where
    RouterError<T, P>: Display,
{
    match error {
        RouterError::Nlmsgerr(error) => NbdError::Refused {
            what,
            source: io::Error::from_raw_os_error(-*error.error()),
        },
        error => netlink(error),
    }
}

fn netlink(error: impl Display) -> NbdError {
    NbdError::Netlink(error.to_string())
}
