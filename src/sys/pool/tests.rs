//! Each buffer is in use once, returns from any thread, and wakes pollers that wait for one.

mod surplus;

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("a valid size and limit")
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn take_for_ring(pool: &BufferPool) -> Option<PoolBuf> {
    let mut spare = None;
    pool.take_for_ring(1, |buf| spare = Some(buf));
    spare
}

#[test]
fn pool_hands_out_limit_distinct_buffers() {
    let pool = pool(100, 5);
    assert_eq!((pool.size(), pool.limit(), pool.allocated(), pool.available()), (100, 5, 0, 0));
    let mut in_use: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((in_use.len(), pool.allocated(), pool.available()), (5, 5, 0));
    for (at, buf) in in_use.iter_mut().enumerate() {
        assert_eq!(buf.write(&[at as u8; 200]).expect("memory"), 100);
    }
    for (at, buf) in in_use.iter().enumerate() {
        assert_eq!(**buf, [at as u8; 100]);
    }
    in_use.truncate(2);
    assert_eq!((pool.allocated(), pool.available()), (5, 3));
    assert_eq!(pool.take().expect("three are free").len(), 0, "a taken buffer is empty");
}

#[test]
fn invalid_sizes_and_limits_are_refused() {
    for (size, limit) in [(0, 1), (1, 0), (usize::MAX, 1), (MAX_TRANSFER + 1, 1)] {
        let error = BufferPool::new(size, limit).expect_err("no such pool");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size} {limit}");
    }
}

#[test]
fn taken_buffers_are_aligned_for_o_direct() {
    for (size, align) in [(1, 1), (512, 512), (600, 1024), (4096, 4096), (3 * 4096, 4096)] {
        let pool = pool(size, 3);
        let in_use: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        for buf in &in_use {
            assert_eq!(buf.as_ptr() as usize % align, 0, "{size}");
        }
    }
}

#[test]
fn buffers_return_from_threads_and_after_pool_drop() {
    let pool = pool(64, 1);
    let buf = pool.take().expect("it is new");
    std::thread::spawn(move || drop(buf)).join().expect("it only drops");
    let mut buf = pool.take().expect("it was returned");
    drop(pool);
    buf.write_all(b"still here").expect("there is room");
    assert_eq!(&*buf, b"still here");
}

#[test]
fn waker_is_woken_once_per_failed_take() {
    let (pool, wakes) = (pool(8, 2), Arc::new(CountingWaker::default()));
    let waker = Waker::from(wakes.clone());
    let in_use = [pool.take_or_wait(&waker), pool.take_or_wait(&waker)];
    assert!(in_use.iter().all(|its| matches!(its, Ok(Some(_)))));
    assert!(
        matches!(pool.take_or_wait(&waker), Ok(None))
            && matches!(pool.take_or_wait(&waker), Ok(None))
    );
    drop(in_use);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "two were returned after one request");
    let again = pool.take_or_wait(&waker);
    assert!(matches!(again, Ok(Some(_))));
    drop(again);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the last take did not wait");
}

/// Received data is short. At the start of each page it would compete for few cache lines.
#[test]
fn receive_buffers_start_at_different_cache_lines() {
    for size in [4096, 16384, 10_000] {
        let pool = pool(size, 64);
        let mut bufs = Vec::new();
        while let Ok(Some(mut buf)) = pool.take_or_wait(Waker::noop()) {
            assert_eq!(buf.spare_capacity().len(), size);
            buf.write_all(&vec![7; size]).expect("that is its size");
            bufs.push(buf);
        }
        assert_eq!(bufs.len(), 64);
        let lines: HashSet<_> = bufs.iter().map(|buf| buf.as_ptr().addr() % PAGE).collect();
        assert!(lines.len() >= 16 && lines.iter().all(|line| line % CACHE_LINE == 0), "{lines:?}");
        drop(bufs);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken.len(), 64);
        assert!(
            taken.iter().all(|buf| buf.as_ptr().addr() % PAGE == 0),
            "taken buffers start at a page, for a disk"
        );
    }
}

#[test]
fn pool_provides_at_most_half_its_limit() {
    for (limit, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)] {
        let pool = pool(16, limit);
        let out: Vec<_> = std::iter::from_fn(|| take_for_ring(&pool)).collect();
        assert_eq!((out.len(), pool.max_provided()), (most, most), "of {limit}");
        let rest = std::iter::from_fn(|| pool.take()).collect::<Vec<_>>();
        assert_eq!(rest.len(), limit - most, "of {limit}");
    }
}

/// No request may ever take the provided buffers, so waiting for them could last without limit.
#[test]
fn take_or_wait_never_waits_for_provided_buffers() {
    const TEST: &str = "take_or_wait_never_waits_for_provided_buffers";
    if !crate::testing::is_alone(&format!("sys::pool::tests::{TEST}")) {
        return;
    }
    // No page of the buffers is touched.
    let pool = pool(1 << 30, 16);
    let limit = 4 << 30;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, limit, limit)
        .expect("it is lowered");
    let waker = Waker::noop();
    let refused = || pool.take_or_wait(waker).expect_err("there is no memory").kind();
    let mut provided: Vec<_> = std::iter::from_fn(|| take_for_ring(&pool)).collect();
    assert!((1..4).contains(&provided.len()), "memory for some: {}", provided.len());
    assert_eq!(refused(), io::ErrorKind::OutOfMemory);
    assert!(provided[0].take_is_provided());
    pool.note_taken(1);
    assert_eq!(pool.take_or_wait(waker).expect("one will be returned"), None);
    drop(provided.remove(0));
    let back = pool.take_or_wait(waker).expect("it was returned").expect("it was returned");
    assert_eq!(pool.take_or_wait(waker).expect("one is in use"), None);
    drop((back, provided));
    assert_eq!(pool.allocated(), pool.available());
    let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(pool.take_or_wait(waker).expect("they are in use"), None);
    drop(all);
}

#[test]
fn pool_buf_appends_truncates_and_clears() {
    let pool = pool(10, 1);
    let mut buf = pool.take().expect("it is new");
    buf.write_all(b"abc").expect("there is room");
    buf.write_all(b"def").expect("there is room");
    buf[0] = b'x';
    assert_eq!(&*buf, b"xbcdef");
    assert_eq!(buf.spare_capacity().len(), 4);
    buf.truncate(100);
    assert_eq!(buf.len(), 6);
    buf.truncate(2);
    assert_eq!(&*buf, b"xb");
    buf.clear();
    assert_eq!(buf.len(), 0);
    assert_eq!(buf.write(b"0123456789a").expect("memory"), 10);
    let error = buf.write_all(b"b").expect_err("it is full");
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

/// The buffers in use are counted outside the pool.
#[test]
fn threads_never_exceed_the_limit() {
    const THREADS: usize = 6;
    const TURNS: usize = 3000;
    for limit in [1, 3, 8] {
        let (pool, in_use) = (pool(16, limit), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (pool, in_use) = (pool.clone(), &in_use);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for turn in 0..TURNS {
                        if let Some(mut buf) = pool.take() {
                            let others = in_use.fetch_add(1, Ordering::AcqRel);
                            assert!(others < limit, "{others} of {limit} are in use already");
                            assert!(buf.is_empty(), "a taken buffer is empty");
                            buf.write_all(&[thread as u8; 16]).expect("there is room");
                            kept.push(buf);
                        }
                        assert!(pool.allocated() <= limit && pool.available() <= pool.allocated());
                        if turn % (thread + 2) == 0 {
                            for buf in kept.drain(..) {
                                assert_eq!(*buf, [thread as u8; 16], "another thread wrote to it");
                                in_use.fetch_sub(1, Ordering::AcqRel);
                                drop(buf);
                            }
                        }
                    }
                    in_use.fetch_sub(kept.len(), Ordering::AcqRel);
                });
            }
        });
        assert_eq!(
            (in_use.into_inner(), pool.available()),
            (0, pool.allocated()),
            "all were returned"
        );
        assert!(pool.allocated() > 0 && pool.is_last_handle(0));
    }
}

/// Threads park until a buffer is returned; a lost wake-up leaves one parked.
#[test]
fn all_waiting_threads_get_buffers() {
    const THREADS: usize = 5;
    let pool = pool(8, 2);
    let (sender, done) = std::sync::mpsc::channel();
    for _ in 0..THREADS {
        let (pool, sender) = (pool.clone(), sender.clone());
        std::thread::spawn(move || {
            let unpark = Waker::from(Arc::new(Unpark(std::thread::current())));
            for _ in 0..400 {
                let buf = loop {
                    match pool.take_or_wait(&unpark) {
                        Ok(Some(buf)) => break buf,
                        other => {
                            assert!(matches!(other, Ok(None)));
                            std::thread::park();
                        }
                    }
                };
                std::thread::yield_now();
                drop(buf);
            }
            sender.send(()).expect("the main thread receives");
        });
    }
    for at in 0..THREADS {
        let watchdog = std::time::Duration::from_secs(60);
        done.recv_timeout(watchdog).unwrap_or_else(|_| panic!("{at} are done, others are parked"));
    }
    assert_eq!(pool.allocated(), pool.available());
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take,
    TakeOrWait,
    TakeForRing,
    Drop(prop::sample::Index),
}

proptest! {
    #[test]
    fn pool_matches_its_counts(
        limit in 1..9_usize,
        steps in prop::collection::vec(prop_oneof![
            2 => Just(Step::Take),
            2 => Just(Step::TakeOrWait),
            2 => Just(Step::TakeForRing),
            5 => any::<prop::sample::Index>().prop_map(Step::Drop),
        ], 1..80),
    ) {
        let (pool, wakes) = (pool(8, limit), Arc::new(CountingWaker::default()));
        let waker = Waker::from(wakes.clone());
        let (mut in_use, mut made, mut expected_wakes, mut waits) = (vec![], 0, 0, false);
        for step in steps {
            let idle = made - in_use.len();
            let can = in_use.len() < limit;
            let (taken, may) = match step {
                Step::Take => (pool.take(), can),
                Step::TakeOrWait => {
                    waits |= !can;
                    (pool.take_or_wait(&waker).expect("there is memory"), can)
                }
                // The first provided buffer must leave half of the limit.
                Step::TakeForRing => {
                    (take_for_ring(&pool), limit - in_use.len() > limit.div_ceil(2))
                }
                Step::Drop(at) if !in_use.is_empty() => {
                    drop(in_use.swap_remove(at.index(in_use.len())));
                    expected_wakes += usize::from(std::mem::take(&mut waits));
                    (None, false)
                }
                Step::Drop(_) => (None, false),
            };
            prop_assert_eq!(taken.is_some(), may);
            made += usize::from(taken.is_some() && idle == 0);
            in_use.extend(taken);
            prop_assert_eq!((pool.allocated(), pool.available()), (made, made - in_use.len()));
            prop_assert!(pool.is_last_handle(in_use.len()));
            prop_assert_eq!(wakes.0.load(Ordering::Relaxed), expected_wakes, "once for each wait");
        }
    }
}
