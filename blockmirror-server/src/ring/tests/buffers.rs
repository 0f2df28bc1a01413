use super::*;

#[test]
fn buffers_are_aligned_and_used_again() {
    let pool = BufferPool::new();
    let buffer = pool.take(5000);
    assert_eq!(buffer.len(), 5000);
    assert_eq!(buffer.capacity(), 8192);
    let address = buffer.as_slice().as_ptr();
    assert_eq!(address.addr() % ALIGNMENT, 0);
    drop(buffer);
    assert_eq!(pool.cached_bytes(), 8192);
    let again = pool.take(8000);
    assert_eq!(again.as_slice().as_ptr(), address);
    assert_eq!(pool.cached_bytes(), 0);
}

#[test]
fn the_cache_is_bounded_and_outsized_buffers_are_not_kept() {
    let pool = BufferPool::new();
    let held: Vec<_> = (0..80).map(|_| pool.take(1 << 20)).collect();
    drop(held);
    assert_eq!(pool.cached_bytes(), 32 << 20);
    drop(pool.take((32 << 20) + 1));
    assert_eq!(pool.cached_bytes(), 32 << 20);
}

/// As after a resync, whose buffers nobody wants any more.
#[test]
fn a_cache_full_of_one_size_makes_way_for_what_is_used_now() {
    let pool = BufferPool::new();
    let held: Vec<_> = (0..32).map(|_| pool.take(1 << 20)).collect();
    drop(held);
    let used = pool.take(128 << 10);
    let address = used.as_slice().as_ptr();
    drop(used);
    assert_eq!(pool.cached_bytes(), (31 << 20) + (128 << 10));
    assert_eq!(pool.take(128 << 10).as_slice().as_ptr(), address);
}

#[test]
fn the_last_view_gives_the_memory_back() {
    let pool = BufferPool::new();
    let payload = pool.payload_of(&pattern(100, 1));
    let part = payload.slice(10..20);
    let tail = part.slice(5..);
    drop(payload);
    drop(part);
    assert_eq!(pool.cached_bytes(), 0, "a view is left");
    assert_eq!(tail.as_slice(), &pattern(100, 1)[15..20]);
    drop(tail);
    assert_eq!(pool.cached_bytes(), ALIGNMENT);
}

#[test]
fn a_payload_becomes_a_buffer_only_for_its_last_owner() {
    let pool = BufferPool::new();
    let payload = pool.payload_of(b"abc");
    let other = payload.clone();
    let payload = payload.into_buffer().unwrap_err();
    drop(other);
    let mut buffer = payload.into_buffer().unwrap();
    buffer.as_mut_slice()[0] = b'x';
    assert_eq!(buffer.as_slice(), b"xbc");
    let inner = buffer.into_payload().slice(1..);
    assert!(inner.into_buffer().is_err(), "a view that starts later is no buffer");
}

#[test]
fn views_are_shared_between_threads() {
    let pool = BufferPool::new();
    for round in 0..200 {
        let payload = pool.payload_of(&pattern(4096, round as u8));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let payload = payload.clone();
                std::thread::spawn(move || assert_eq!(payload.as_slice(), pattern(4096, round as u8)))
            })
            .collect();
        drop(payload);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert!(pool.cached_bytes() <= 2 * ALIGNMENT);
}

#[test]
fn a_buffer_outlives_its_pool() {
    let buffer = BufferPool::new().take_zeroed(10);
    assert_eq!(buffer.as_slice(), [0; 10]);
}

#[test]
fn a_segment_keeps_headers_in_place() {
    assert!(matches!(Segment::copy_of(&[7; 64]), Segment::Inline(_)));
    assert!(matches!(Segment::copy_of(&[7; 65]), Segment::Bytes(_)));
    assert_eq!(Segment::copy_of(&[7; 64]).as_slice(), Some(&[7; 64][..]));
    assert_eq!(Segment::copy_of(&[]).len(), 0);
}
