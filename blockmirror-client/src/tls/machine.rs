//! rustls' connection of either side, without I/O and without memory for records: [`Machine`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::fault::TlsFault;
use super::kernel::Handover;

/// What rustls has. Both sides are alike but for their types.
pub(super) enum Machine {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What a look at received bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There may be more in the same bytes.
    Again,
    /// So many bytes of data have been read; there may be more in the same bytes.
    Data(usize),
    /// More bytes are needed.
    Wanting,
    /// The other side has said that nothing more comes.
    Closed,
}

/// What is to be sealed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Words<'a> {
    Data(&'a [u8]),
    /// The close_notify.
    Goodbye,
    /// A change of our keys that asks for one of theirs.
    #[cfg(test)]
    AskForKeys,
}

/// Shows `bytes` to rustls; `then` takes what either side's says.
macro_rules! show {
    ($machine:expr, $bytes:expr, $then:expr) => {
        match $machine {
            Machine::Client(tls) => $then(tls.process_tls_records($bytes)),
            Machine::Server(tls) => $then(tls.process_tls_records($bytes)),
        }
    };
}

impl Machine {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let tls = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::Client(Box::new(tls)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::Server(Box::new(UnbufferedServerConnection::new(config)?)))
    }

    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client(tls) => tls,
            Self::Server(tls) => tls,
        }
    }

    /// Look at `received`, which begins with what it is not done with. Data, of one record at most, goes to `into` and what there is no
    /// room for behind `opened`; what the other side is to be told behind `outgoing`. Also how many bytes it is
    /// done with now, in any case.
    ///
    /// Behind an error nothing may be shown to it again.
    pub(super) fn look(
        &mut self,
        received: &mut [u8],
        into: &mut [u8],
        opened: &mut VecDeque<u8>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Look, Error>) {
        let (done, look) = show!(self, received, |status| looked(status, into, opened, outgoing));
        // It has nothing looked at before it is rid of its alert.
        while look.is_err() && self.state().wants_write() {
            if show!(self, &mut [], |status| looked(status, &mut [], opened, outgoing))
                .1
                .is_err()
            {
                break;
            }
        }
        (done, look)
    }

    /// Seal `words` into `out`: how many bytes of it they take. `None`: something went to `outgoing` that has to be sent
    /// before. `received` is what it is not done with of what was received.
    pub(super) fn seal(
        &mut self,
        words: Words<'_>,
        received: &mut [u8],
        out: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<usize>, TlsFault> {
        show!(self, received, |status| sealed(status, words, out, outgoing))
    }

    /// What the kernel needs to go on, with `outgoing` to be sent before.
    pub(super) fn into_kernel(mut self, mut outgoing: Vec<u8>) -> Result<Handover, Error> {
        // rustls keeps a change of our keys until data follows. Where that has no room, the change comes out alone: it
        // is ready after the first time, and here after the second.
        for _ in 0..2 {
            while let Ok(None) = self.seal(Words::Data(&[0]), &mut [], &mut [], &mut outgoing) {}
        }
        Ok(match self {
            Self::Client(tls) => Handover::of_client(tls.dangerous_into_kernel_connection()?, outgoing),
            Self::Server(tls) => Handover::of_server(tls.dangerous_into_kernel_connection()?, outgoing),
        })
    }
}

fn looked<D>(
    status: UnbufferedStatus<'_, '_, D>,
    into: &mut [u8],
    opened: &mut VecDeque<u8>,
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Look, Error>) {
    let mut done = status.discard;
    let look = status.state.and_then(|state| match state {
        ConnectionState::ReadTraffic(mut records) => {
            let mut count = 0;
            while let Some(record) = records.next_record() {
                let AppDataRecord { discard, payload } = record?;
                done += discard;
                let (here, later) = payload.split_at(payload.len().min(into.len() - count));
                into[count..count + here.len()].copy_from_slice(here);
                count += here.len();
                opened.extend(later);
            }
            Ok(Look::Data(count))
        }
        ConnectionState::EncodeTlsData(message) => append(message, outgoing).map(|()| Look::Again),
        ConnectionState::TransmitTlsData(message) => {
            message.done();
            Ok(Look::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Look::Wanting),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Look::Closed),
        other => Err(unexpected(&other)),
    });
    (done, look)
}

fn sealed<D>(
    status: UnbufferedStatus<'_, '_, D>,
    words: Words<'_>,
    out: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> Result<Option<usize>, TlsFault> {
    let sealed = match status.state? {
        ConnectionState::WriteTraffic(mut tls) => match words {
            Words::Data(data) => tls.encrypt(data, out),
            Words::Goodbye => tls.queue_close_notify(out),
            #[cfg(test)]
            Words::AskForKeys => return Ok(tls.refresh_traffic_keys().map(|()| None)?),
        },
        ConnectionState::EncodeTlsData(message) => return Ok(append(message, outgoing).map(|()| None)?),
        ConnectionState::TransmitTlsData(message) => {
            message.done();
            return Ok(None);
        }
        ConnectionState::Closed if matches!(words, Words::Goodbye) => Ok(0),
        other => return Err(unexpected(&other).into()),
    };
    match sealed {
        Ok(count) => Ok(Some(count)),
        Err(EncryptError::EncryptExhausted) => Err(TlsFault::Worn),
        Err(EncryptError::InsufficientSize(_)) => Err(TlsFault::Io(io::ErrorKind::WriteZero.into())),
    }
}

/// A message of rustls' own, sealed already.
fn append<D>(mut message: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let begin = outgoing.len();
    if let Err(EncodeError::InsufficientSize(lack)) = message.encode(&mut []) {
        outgoing.resize(begin + lack.required_size, 0);
    }
    message
        .encode(&mut outgoing[begin..])
        .map(|_| ())
        .map_err(|error| Error::General(error.to_string()))
}

fn unexpected<D>(state: &ConnectionState<'_, '_, D>) -> Error {
    Error::General(format!("{state:?} is not a state that can be here"))
}
