//! Flushes of one leg: one in flight at a time, numbered, each covering what was completed before it was issued (I5).

/// Group commit for one leg.
///
/// Flush number `n` covers every mutation that completed before flush `n` was issued. A mutation takes the number
/// issued so far as its *stamp* when it completes, and is durable once a later flush has completed. Whoever needs
/// durability asks for the next flush to be issued, never for one in flight: that one may have been issued too early.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlushLine {
    issued: u64,
    durable: u64,
    wanted: u64,
    in_flight: bool,
    /// The leg is not there: nothing of it is waited for.
    absent: bool,
}

impl FlushLine {
    /// Ask for a flush that covers everything completed by now; its number.
    pub(crate) fn request(&mut self) -> u64 {
        self.wanted = self.issued + 1;
        self.wanted
    }

    /// I5 removed: join the flush in flight.
    pub(crate) fn join(&mut self) -> u64 {
        if self.in_flight { self.issued } else { self.request() }
    }

    /// True when a flush has to be issued now; it counts as in flight.
    pub(crate) fn issue(&mut self) -> bool {
        if self.absent || self.in_flight || self.wanted <= self.issued {
            return false;
        }
        self.issued += 1;
        self.in_flight = true;
        true
    }

    /// The flush in flight completed.
    pub(crate) fn completed(&mut self) {
        assert!(self.in_flight, "I5: only an issued flush completes");
        self.in_flight = false;
        self.durable = self.issued;
    }

    /// The flush in flight failed: it made nothing durable.
    pub(crate) fn failed(&mut self) {
        self.in_flight = false;
    }

    /// The leg is given up, or there again: what it had flushed by then is forgotten.
    pub(crate) fn set_absent(&mut self, absent: bool) {
        self.reset();
        self.absent = absent;
    }

    /// A flush is on its way.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// The leg is gone; nothing of it is waited for any more.
    pub(crate) fn reset(&mut self) {
        self.in_flight = false;
        self.durable = self.issued;
        self.wanted = self.issued;
    }

    /// Has flush `number` completed?
    pub(crate) fn reached(&self, number: u64) -> bool {
        self.absent || self.durable >= number
    }

    /// The stamp of a mutation that completes now.
    pub(crate) fn stamp(&self) -> u64 {
        self.issued
    }

    /// Is a mutation with this stamp durable?
    pub(crate) fn covers(&self, stamp: u64) -> bool {
        self.absent || self.durable > stamp
    }

    /// A flush is in flight or asked for.
    pub(crate) fn is_busy(&self) -> bool {
        !self.absent && (self.in_flight || self.wanted > self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_in_flight_does_not_cover_what_completes_after_it_was_issued() {
        let mut line = FlushLine::default();
        let early = line.stamp();
        let first = line.request();
        assert!(line.issue() && !line.issue());
        let late = line.stamp();
        let second = line.request();
        assert_ne!(first, second);
        line.completed();
        assert!(line.reached(first) && line.covers(early));
        assert!(!line.reached(second) && !line.covers(late));
        assert!(line.issue());
        line.completed();
        assert!(line.reached(second) && line.covers(late) && !line.is_busy());
    }
}
