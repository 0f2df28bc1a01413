//! The controller on a model of a link that an application shares.

extern crate std;

use super::*;

/// A link of `capacity` bytes per second: what the application's writes take on it grows with what is queued.
struct Model {
    rate: Rate,
    latency: Latency,
    now: Duration,
    capacity: u64,
    /// Application writes per millisecond, and what one takes without us, in microseconds.
    writes: u32,
    own: u64,
    /// Asked for and not ended: when, bytes.
    queue: std::collections::VecDeque<(Duration, u64)>,
    credit: u64,
    moved: u64,
    slowest: std::vec::Vec<u64>,
}

impl Model {
    fn new(limits: ResyncRate, capacity: u64, writes: u32) -> Self {
        let mut latency = Latency::new();
        for _ in 0..1000 * writes {
            latency.note(Duration::from_micros(500));
        }
        let mut rate = Rate::new(limits);
        if writes > 0 {
            latency.stir(Duration::ZERO);
        }
        latency.set_background(Duration::ZERO, true);
        rate.start(Duration::ZERO, &latency);
        Self {
            rate,
            latency,
            now: Duration::ZERO,
            capacity,
            writes,
            own: 500,
            queue: std::collections::VecDeque::new(),
            credit: 0,
            moved: 0,
            slowest: std::vec![],
        }
    }

    /// Run for so many milliseconds; bytes per second that were moved.
    fn run(&mut self, milliseconds: u64) -> u64 {
        let before = self.moved;
        for _ in 0..milliseconds {
            self.now += Duration::from_millis(1);
            self.credit += self.capacity / 1000;
            while let Some(&(since, length)) = self.queue.front() {
                if self.credit < length || self.now < since + Duration::from_millis(2) {
                    break;
                }
                self.credit -= length;
                self.queue.pop_front();
                self.moved += length;
                self.rate.ended(length, length, self.now - since);
            }
            if self.queue.is_empty() {
                self.credit = 0;
            }
            self.latency.look(self.now, self.rate.is_at_floor(self.in_flight()));
            self.rate.tick(self.now, &self.latency);
            while self.queue.len() < self.rate.requests() {
                let (in_flight, step) = (self.in_flight(), self.rate.step());
                if !self.rate.take(self.now, in_flight, step) {
                    break;
                }
                self.queue.push_back((self.now, step));
            }
            let wait = self.own + self.in_flight() * 1_000_000 / self.capacity / 4;
            for _ in 0..self.writes {
                self.latency.stir(self.now);
                self.latency.note(Duration::from_micros(wait));
                self.slowest.push(wait);
            }
        }
        (self.moved - before) * 1000 / milliseconds
    }

    fn in_flight(&self) -> u64 {
        self.queue.iter().map(|&(_, length)| length).sum()
    }

    fn p99(&mut self) -> u64 {
        self.slowest.sort_unstable();
        self.slowest[self.slowest.len() * 99 / 100]
    }
}

const FREE: ResyncRate = ResyncRate { floor: 4 << 20, cap: 0 };

#[test]
fn alone_it_takes_nine_tenths_of_the_link_whatever_the_link() {
    for capacity in [8 << 20, 100 << 20, 1 << 30, 8 << 30] {
        let mut model = Model::new(FREE, capacity, 0);
        model.run(3000);
        let speed = model.run(5000);
        assert!(speed * 10 >= capacity * 9, "{speed} of {capacity}");
        assert_eq!(model.rate.limit(), Limit::Transport);
    }
}

#[test]
fn where_nobody_writes_the_link_is_full_from_the_beginning() {
    for capacity in [25 << 20, 125 << 20, 1 << 30] {
        let mut model = Model::new(FREE, capacity, 0);
        let speed = model.run(500);
        assert!(speed * 10 >= capacity * 9, "{speed} of {capacity}");
    }
    let cap = 20 << 20;
    let mut model = Model::new(ResyncRate { floor: 1 << 20, cap }, 1 << 30, 0);
    let speed = model.run(1000);
    assert!(speed * 10 <= cap * 13 && speed * 10 >= cap * 9, "{speed}");
}

#[test]
fn where_somebody_writes_it_begins_at_the_floor() {
    let mut model = Model::new(FREE, 400 << 20, 2);
    assert!(model.run(100) <= 2 * BURST * 10);
    assert!(model.rate.allowed() <= 2 * FREE.floor);
    model.run(5000);
    assert!(model.p99() <= 2 * model.own, "{} us", model.p99());
}

#[test]
fn the_first_write_takes_the_place_of_what_would_pile_up() {
    let capacity = 100 << 20;
    let mut model = Model::new(FREE, capacity, 0);
    model.run(2000);
    assert!(model.in_flight() > 8 << 20);
    model.writes = 1;
    model.run(1);
    model.writes = 0;
    model.run(1);
    let delivered = model.rate.allowed();
    assert!(delivered * 10 <= capacity * 11, "{delivered}");
    // What is on its way has to arrive; nothing comes behind it before that.
    model.run(330);
    assert!(model.in_flight() <= 4 << 20, "{}", model.in_flight());
    // One write is no application: soon all of the link is used again.
    model.run(2000);
    assert!(model.run(2000) * 10 >= capacity * 9);
}

#[test]
fn an_application_keeps_its_latency_and_resync_still_moves() {
    let mut model = Model::new(FREE, 400 << 20, 2);
    model.run(2000);
    model.slowest.clear();
    let speed = model.run(20_000);
    assert!(model.p99() <= 2 * model.own, "{} us", model.p99());
    assert!(speed >= FREE.floor, "{speed}");
}

#[test]
fn an_application_that_comes_is_made_room_for_within_a_second_and_when_it_goes_the_link_is_taken_again() {
    let mut model = Model::new(FREE, 400 << 20, 0);
    model.run(3000);
    model.writes = 2;
    // What it is used to: learned at the floor, since there was no quiet time.
    model.run(3000);
    model.slowest.clear();
    model.run(10_000);
    assert!(model.p99() <= 2 * model.own, "{} us", model.p99());
    model.writes = 0;
    model.run(2000);
    assert!(model.run(2000) * 10 >= model.capacity * 9);
}

#[test]
fn never_above_the_cap_and_never_below_the_floor() {
    let cap = 20 << 20;
    let mut model = Model::new(ResyncRate { floor: 1 << 20, cap }, 1 << 30, 0);
    model.run(2000);
    let speed = model.run(10_000);
    assert!(speed <= cap + cap / 50 && speed * 10 >= cap * 9, "{speed}");
    assert_eq!(model.rate.limit(), Limit::Cap);
    // An application that is hurt whatever is done.
    let floor = 16 << 20;
    let mut model = Model::new(ResyncRate { floor, cap: 0 }, 64 << 20, 4);
    model.run(3000);
    let speed = model.run(10_000);
    assert!(speed * 10 >= floor * 9, "{speed}");
}
