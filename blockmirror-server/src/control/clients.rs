//! Who is connected to which export, for the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blockmirror_client::admin::ClientStatus;
use blockmirror_client::stream::Wire;

use super::client::{ClientAddress, ClientIdentity};

/// Clients of one export that are told; there are as many connections as are counted.
const TOLD_MAX: usize = 256;
/// Names of one certificate that are told.
const NAMES_MAX: usize = 4;

/// The clients that are in their transmission phase, in the order they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients(Arc<Mutex<Present>>);

#[derive(Debug, Default)]
struct Present {
    next: u64,
    clients: BTreeMap<u64, (String, ClientStatus)>,
}

/// A client's place among them; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    clients: Clients,
    number: u64,
}

impl Clients {
    /// A client has opened this export.
    pub(super) fn enter(&self, export: &str, client: ClientStatus) -> Presence {
        let mut present = self.lock();
        let number = present.next;
        present.next += 1;
        present.clients.insert(number, (export.to_owned(), client));
        Presence {
            clients: self.clone(),
            number,
        }
    }

    /// Those of an export.
    pub(super) fn of(&self, export: &str) -> Vec<ClientStatus> {
        let present = self.lock();
        let mine = present.clients.values().filter(|(opened, _)| opened == export);
        mine.take(TOLD_MAX).map(|(_, client)| client.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        // Nothing that is done with it can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.clients.lock().clients.remove(&self.number);
    }
}

/// Who a client is, and how safely it is connected.
pub(super) fn describe(client: &ClientIdentity, wire: &Wire) -> ClientStatus {
    let (process, user) = match client.address {
        ClientAddress::Unix { process, user } => (process, user),
        ClientAddress::Tcp(_) | ClientAddress::Given => (None, None),
    };
    let is_tcp = matches!(client.address, ClientAddress::Tcp(_));
    let tls = wire.tls.as_ref().map(|session| {
        // The kernel has TLS for TCP only.
        let records = if is_tcp && session.is_for_kernel() {
            "in the kernel"
        } else {
            "in user space"
        };
        format!("{}, {records}", session.describe())
    });
    ClientStatus {
        address: match client.address {
            ClientAddress::Tcp(address) => address.to_string(),
            ClientAddress::Unix { .. } | ClientAddress::Given => client.listener.to_string(),
        },
        process,
        user,
        certificate: client.certificate.iter().flatten().take(NAMES_MAX).cloned().collect(),
        tls,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::super::access::tests::client;
    use super::*;

    #[test]
    fn whoever_leaves_is_not_told_any_more() {
        let clients = Clients::default();
        let come = |export: &str, address: &str| {
            let (socket, _other) = UnixStream::pair().unwrap();
            clients.enter(export, describe(&client(address), &socket.into()))
        };
        let first = come("db", "192.0.2.1");
        let _second = come("db", "unix:1000");
        let _elsewhere = come("logs", "192.0.2.1");
        let told = clients.of("db");
        assert_eq!(told[0].address, "192.0.2.1:1");
        assert_eq!((told[1].address.as_str(), told[1].user), ("here", Some(1000)));
        assert_eq!((&told[0].user, &told[0].tls, told.len()), (&None, &None, 2));
        drop(first);
        assert_eq!(clients.of("db"), told[1..]);
        assert_eq!(clients.of("logs").len(), 1);
    }

    #[test]
    fn the_names_of_a_certificate_are_not_told_without_end() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let mut who = client("192.0.2.1");
        who.certificate = Some((0..100).map(|n| format!("{n}.example")).collect());
        assert_eq!(describe(&who, &socket.into()).certificate.len(), NAMES_MAX);
    }
}
