//! How many connections a client may have, and how fast it may ask for more, so that none keeps the others out.
//!
//! A client is an IPv4 address, an IPv6 network of 64 bits (one customer has at least that), or a local user. Too many
//! connections are refused; too many in a short time are made to wait, each in a place of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::{ClientAddress, ClientIdentity};
use crate::config::Limits;

/// A client that was quiet may ask for this many seconds' worth of handshakes at once.
const BURST_SECONDS: f64 = 2.0;
/// Of the connections of a client, one in so many may be negotiating.
const NEGOTIATING_SHARE: usize = 2;
/// Clients that are remembered, those with connections and those that had some a moment ago.
const CLIENTS_MAX: usize = 65_536;

/// Places for connections, by client.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    clients: Arc<Mutex<HashMap<ClientKey, Client>>>,
    connections_max: usize,
    per_second: f64,
}

/// Who is taken for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientKey {
    Address(IpAddr),
    User(u32),
    Unknown,
}

#[derive(Debug)]
struct Client {
    connections: usize,
    negotiating: usize,
    /// Handshakes it may begin now; below zero: as many wait.
    tokens: f64,
    counted: Instant,
}

/// A place of a connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct ClientPlace {
    admission: Admission,
    key: ClientKey,
    negotiating: bool,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            clients: Arc::default(),
            connections_max: limits.max_connections_per_client,
            per_second: limits.handshakes_per_second as f64,
        }
    }

    /// A place for one more connection, and how long it has to wait for its handshake; or which limit is reached.
    pub(super) fn admit(&self, client: &ClientIdentity, now: Instant) -> Result<(ClientPlace, Duration), &'static str> {
        let key = ClientKey::of(client);
        let burst = self.per_second * BURST_SECONDS;
        let mut clients = self.lock();
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&key) {
            clients.retain(|_, client| !client.is_forgettable(self.per_second, burst, now));
            if clients.len() >= CLIENTS_MAX {
                return Err("there are too many clients");
            }
        }
        let client = clients.entry(key).or_insert(Client {
            connections: 0,
            negotiating: 0,
            tokens: burst,
            counted: now,
        });
        if client.connections >= self.connections_max {
            return Err("it has max_connections_per_client connections already");
        }
        if client.negotiating >= (self.connections_max / NEGOTIATING_SHARE).max(1) {
            return Err("half of max_connections_per_client is negotiating already");
        }
        client.refill(self.per_second, burst, now);
        client.tokens -= 1.0;
        client.connections += 1;
        client.negotiating += 1;
        let wait = Duration::from_secs_f64((-client.tokens).max(0.0) / self.per_second);
        let place = ClientPlace {
            admission: self.clone(),
            key,
            negotiating: true,
        };
        Ok((place, wait))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientKey, Client>> {
        // Nothing that is done with it can panic half way.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn refill(&mut self, per_second: f64, burst: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(burst);
        self.counted = now;
    }

    /// It is as one that was never seen.
    fn is_forgettable(&mut self, per_second: f64, burst: f64, now: Instant) -> bool {
        self.refill(per_second, burst, now);
        self.connections == 0 && self.tokens >= burst
    }
}

impl ClientKey {
    fn of(client: &ClientIdentity) -> Self {
        match client.address {
            ClientAddress::Tcp(address) => Self::Address(match address.ip().to_canonical() {
                IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
                v4 => v4,
            }),
            ClientAddress::Unix { user: Some(user), .. } => Self::User(user),
            ClientAddress::Unix { user: None, .. } | ClientAddress::Given => Self::Unknown,
        }
    }
}

impl ClientPlace {
    /// The handshake is over.
    pub(super) fn negotiated(&mut self) {
        if std::mem::take(&mut self.negotiating)
            && let Some(client) = self.admission.lock().get_mut(&self.key)
        {
            client.negotiating -= 1;
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.negotiated();
        if let Some(client) = self.admission.lock().get_mut(&self.key) {
            client.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::access::tests::client;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admission() -> Admission {
        Admission::new(&Limits {
            max_connections_per_client: 4,
            handshakes_per_second: 10,
            ..Limits::default()
        })
    }

    #[test]
    fn one_client_cannot_have_them_all() {
        let (admission, now) = (admission(), Instant::now());
        let one = client("192.0.2.1");
        let mut held = Vec::new();
        for _ in 0..4 {
            let (mut place, _) = admission.admit(&one, now).unwrap();
            place.negotiated();
            held.push(place);
        }
        assert!(
            admission
                .admit(&one, now)
                .unwrap_err()
                .contains("max_connections_per_client")
        );
        assert!(admission.admit(&client("192.0.2.2"), now).is_ok(), "another address");
        held.pop();
        assert!(admission.admit(&one, now).is_ok(), "one has left");
    }

    #[test]
    fn those_that_do_not_finish_their_handshake_leave_room() {
        let (admission, now) = (admission(), Instant::now());
        let one = client("2001:db8:1:2::1");
        let mut slow = [
            admission.admit(&one, now).unwrap().0,
            admission.admit(&one, now).unwrap().0,
        ];
        let neighbour = client("2001:db8:1:2:ffff::9");
        assert!(
            admission.admit(&neighbour, now).unwrap_err().contains("negotiating"),
            "the same 64 bits"
        );
        assert!(admission.admit(&client("2001:db8:1:3::1"), now).is_ok());
        slow[0].negotiated();
        assert!(admission.admit(&one, now).is_ok());
    }

    #[test]
    fn who_comes_too_fast_waits() {
        let (admission, now) = (admission(), Instant::now());
        let wait = |who: &str, now| admission.admit(&client(who), now).unwrap().1;
        for _ in 0..20 {
            assert_eq!(wait("unix:7", now), Duration::ZERO, "two seconds' worth at once");
        }
        assert_eq!(wait("unix:7", now), SECOND / 10);
        assert_eq!(wait("unix:7", now), SECOND / 5);
        assert_eq!(wait("unix:8", now), Duration::ZERO, "another user");
        assert_eq!(wait("unix:7", now + SECOND), Duration::ZERO);
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let (admission, now) = (admission(), Instant::now());
        let address = |n: usize| client(&std::net::Ipv4Addr::from(n as u32).to_string());
        let _stays = admission.admit(&address(CLIENTS_MAX), now).unwrap();
        for n in 1..CLIENTS_MAX {
            admission.admit(&address(n), now).unwrap();
        }
        assert!(
            admission.admit(&address(0), now).is_err(),
            "none of them is forgotten yet"
        );
        assert!(admission.admit(&address(0), now + SECOND).is_ok());
        assert_eq!(admission.lock().len(), 2);
    }
}
