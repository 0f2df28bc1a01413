use alloc::vec::Vec;
use core::time::Duration;

use super::super::credit::Credit;
use super::super::outflow::{Outflow, OutflowError, Sent};
use super::*;

const NOW: Duration = Duration::from_secs(100);

fn with(bytes: u64, requests: u32) -> Outflow<u32> {
    Outflow::new(Credit { bytes, requests })
}

/// Everything that may be sent: number, or 0 for a barrier, and item.
fn sent(outflow: &mut Outflow<u32>) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    while let Some(sent) = outflow.poll() {
        all.push(match sent {
            Sent::Request { sequence, item } => (sequence, *item),
            Sent::Barrier { item, .. } => (0, item),
        });
    }
    all
}

#[test]
fn requests_are_numbered_in_their_order_and_answered_in_any() {
    let mut outflow = with(1 << 20, 10);
    for item in 10..14 {
        outflow.offer(NOW, need(1), item);
    }
    assert_eq!((outflow.head(), outflow.last_sent()), (4, 0));
    assert_eq!(sent(&mut outflow), [(1, 10), (2, 11), (3, 12), (4, 13)]);
    assert_eq!(outflow.answered(3), Ok(12));
    assert_eq!(outflow.answered(1), Ok(10));
    assert_eq!(outflow.answered(3), Err(OutflowError::NotInFlight(3)));
    assert_eq!(outflow.answered(1), Err(OutflowError::NotInFlight(1)));
    assert_eq!(outflow.answered(5), Err(OutflowError::NotInFlight(5)));
    assert_eq!(outflow.answered(0), Err(OutflowError::NotInFlight(0)));
    assert_eq!((outflow.get(2), outflow.get(3), outflow.len()), (Some(&11), None, 2));
    assert_eq!(outflow.drain().collect::<Vec<_>>(), [(11, true), (13, true)]);
    assert!(outflow.is_empty());
    assert_eq!((outflow.head(), outflow.last_sent()), (4, 4));
}

#[test]
fn a_barrier_has_a_number_and_no_answer() {
    let mut outflow = with(1 << 20, 10);
    outflow.offer(NOW, need(1), 1);
    outflow.offer(NOW, BARRIER, 2);
    outflow.offer(NOW, need(1), 3);
    assert_eq!(sent(&mut outflow), [(1, 1), (0, 2), (3, 3)]);
    assert_eq!(outflow.answered(2), Err(OutflowError::NotInFlight(2)));
    assert_eq!((outflow.answered(1), outflow.answered(3)), (Ok(1), Ok(3)));
    assert!(outflow.is_empty());
}

#[test]
fn credits_hold_back_in_order() {
    let mut outflow = with(10, 3);
    for (item, cost) in [(1, 6), (2, 5), (3, 0), (4, 0)] {
        outflow.offer(NOW, need(cost), item);
    }
    assert_eq!(sent(&mut outflow), [(1, 1)], "4 bytes are left, and nothing overtakes");
    outflow.credit(Credit { bytes: 1, requests: 0 });
    assert_eq!(sent(&mut outflow), [(2, 2), (3, 3)]);
    outflow.credit(Credit { bytes: 0, requests: 1 });
    assert_eq!(sent(&mut outflow), [(4, 4)]);
}

#[test]
fn what_costs_more_than_is_ever_granted_goes_alone() {
    let mut outflow = with(10, 9);
    for (item, cost) in [(1, 1), (2, 25), (3, 1)] {
        outflow.offer(NOW, need(cost), item);
    }
    assert_eq!(sent(&mut outflow), [(1, 1)]);
    outflow.answered(1).unwrap();
    assert_eq!(sent(&mut outflow), [(2, 2)], "nothing else that costs is in flight");
    outflow.credit(Credit { bytes: 16, requests: 0 });
    assert_eq!(sent(&mut outflow), [], "10 - 1 - 25 + 16 is nothing");
    outflow.credit(Credit { bytes: 1, requests: 0 });
    assert_eq!(sent(&mut outflow), [(3, 3)]);
}

#[test]
fn a_loss_gives_everything_back_in_order_with_what_was_sent() {
    let mut outflow = with(10, 2);
    for item in 1..=4 {
        outflow.offer(NOW, need(1), item);
    }
    sent(&mut outflow);
    assert_eq!(outflow.waiting(), 2);
    let all: Vec<_> = outflow.drain().collect();
    assert_eq!(all, [(1, true), (2, true), (3, false), (4, false)]);
}

#[test]
fn the_age_is_that_of_the_oldest_not_answered() {
    let mut outflow = with(10, 1);
    assert_eq!(outflow.age(NOW), None);
    outflow.offer(NOW, need(1), 1);
    outflow.offer(NOW + Duration::from_secs(2), need(1), 2);
    let later = NOW + Duration::from_secs(5);
    assert_eq!(outflow.age(later), Some(Duration::from_secs(5)));
    sent(&mut outflow);
    assert_eq!(outflow.age(later), Some(Duration::from_secs(5)));
    outflow.answered(1).unwrap();
    assert_eq!(outflow.age(later), Some(Duration::from_secs(3)));
    assert_eq!(
        outflow.age(Duration::ZERO),
        Some(Duration::ZERO),
        "a clock that jumped back"
    );
}

#[test]
fn grants_without_end_are_bounded() {
    let mut outflow = with(0, 1);
    for _ in 0..3 {
        outflow.credit(Credit {
            bytes: u64::MAX,
            requests: u32::MAX,
        });
    }
    let huge = Credit::BYTES_MAX;
    for item in 0..3 {
        outflow.offer(NOW, need(huge), item);
    }
    assert_eq!(sent(&mut outflow).len(), 1);
    assert_eq!(outflow.waiting(), 2);
}
