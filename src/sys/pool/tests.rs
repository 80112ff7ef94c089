//! Buffers are lent once each, come home whoever drops them, and tell whom waits for one.

mod surplus;

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

fn pool(size: usize, limit: usize) -> BufferPool {
    BufferPool::new(size, limit).expect("there is something in it")
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn take_spare(pool: &BufferPool) -> Option<PoolBuf> {
    let mut spare = None;
    pool.take_spare(1, |buf| spare = Some(buf));
    spare
}

#[test]
fn there_are_as_many_as_the_limit_and_none_twice() {
    let pool = pool(100, 5);
    assert_eq!((pool.size(), pool.limit(), pool.made(), pool.idle()), (100, 5, 0, 0));
    let mut lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((lent.len(), pool.made(), pool.idle()), (5, 5, 0));
    for (at, buf) in lent.iter_mut().enumerate() {
        assert_eq!(buf.write(&[at as u8; 200]).expect("memory"), 100);
    }
    for (at, buf) in lent.iter().enumerate() {
        assert_eq!(**buf, [at as u8; 100]);
    }
    lent.truncate(2);
    assert_eq!((pool.made(), pool.idle()), (5, 3));
    assert_eq!(pool.take().expect("three are at home").len(), 0, "it comes empty");
}

#[test]
fn what_can_t_be_is_refused() {
    for (size, limit) in [(0, 1), (1, 0), (usize::MAX, 1), (MOST + 1, 1)] {
        let error = BufferPool::new(size, limit).expect_err("no such pool");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size} {limit}");
    }
}

#[test]
fn they_begin_where_a_disk_wants_it() {
    for (size, align) in [(1, 1), (512, 512), (600, 1024), (4096, 4096), (3 * 4096, 4096)] {
        let pool = pool(size, 3);
        let lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        for buf in &lent {
            assert_eq!(buf.as_ptr() as usize % align, 0, "{size}");
        }
    }
}

#[test]
fn they_come_home_from_another_thread_and_after_the_pool() {
    let pool = pool(64, 1);
    let buf = pool.take().expect("it is new");
    std::thread::spawn(move || drop(buf)).join().expect("it only drops");
    let mut buf = pool.take().expect("it has come home");
    drop(pool);
    buf.write_all(b"still here").expect("there is room");
    assert_eq!(&*buf, b"still here");
}

#[test]
fn whoever_waits_is_told_once_for_each_time_that_he_asks() {
    let (pool, bell) = (pool(8, 2), Arc::new(Bell::default()));
    let waker = Waker::from(bell.clone());
    let lent = [pool.take_or_wait(&waker), pool.take_or_wait(&waker)];
    assert!(lent.iter().all(|its| matches!(its, Ok(Some(_)))));
    assert!(
        matches!(pool.take_or_wait(&waker), Ok(None))
            && matches!(pool.take_or_wait(&waker), Ok(None))
    );
    drop(lent);
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "two came home, and he asked before the first");
    let again = pool.take_or_wait(&waker);
    assert!(matches!(again, Ok(Some(_))));
    drop(again);
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "he did not have to wait");
}

/// What arrives is short: if it began at the start of each page it would share few cache lines.
#[test]
fn buffers_to_receive_into_begin_at_different_cache_lines() {
    for size in [4096, 16384, 10_000] {
        let pool = pool(size, 64);
        let mut bufs = Vec::new();
        while let Ok(Some(mut buf)) = pool.take_or_wait(Waker::noop()) {
            assert_eq!(buf.spare().len(), size);
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
            "a whole page, for a disk"
        );
    }
}

#[test]
fn half_of_them_are_never_set_out() {
    for (limit, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)] {
        let pool = pool(16, limit);
        let out: Vec<_> = std::iter::from_fn(|| take_spare(&pool)).collect();
        assert_eq!((out.len(), pool.most_spare()), (most, most), "of {limit}");
        let rest = std::iter::from_fn(|| pool.take()).collect::<Vec<_>>();
        assert_eq!(rest.len(), limit - most, "of {limit}");
    }
}

/// Nobody may ever come to take what is set out, so that it is not worth waiting for.
#[test]
fn where_memory_is_short_nobody_waits_for_what_is_set_out() {
    const TEST: &str = "where_memory_is_short_nobody_waits_for_what_is_set_out";
    if !crate::testing::is_alone(&format!("sys::pool::tests::{TEST}")) {
        return;
    }
    // No page of them is touched.
    let pool = pool(1 << 30, 16);
    let limit = 4 << 30;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, limit, limit)
        .expect("it is lowered");
    let waker = Waker::noop();
    let refused = || pool.take_or_wait(waker).expect_err("there is no memory").kind();
    let mut set_out: Vec<_> = std::iter::from_fn(|| take_spare(&pool)).collect();
    assert!((1..4).contains(&set_out.len()), "there is room for some: {}", set_out.len());
    assert_eq!(refused(), io::ErrorKind::OutOfMemory);
    assert!(set_out[0].take_is_set_out());
    pool.note_taken(1);
    assert_eq!(pool.take_or_wait(waker).expect("one will come home"), None);
    drop(set_out.remove(0));
    let back = pool.take_or_wait(waker).expect("it has come home").expect("it has come home");
    assert_eq!(pool.take_or_wait(waker).expect("one is lent"), None);
    drop((back, set_out));
    assert_eq!(pool.made(), pool.idle());
    let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(pool.take_or_wait(waker).expect("they are lent"), None);
    drop(all);
}

#[test]
fn bytes_are_appended_cut_and_cleared() {
    let pool = pool(10, 1);
    let mut buf = pool.take().expect("it is new");
    buf.write_all(b"abc").expect("there is room");
    buf.write_all(b"def").expect("there is room");
    buf[0] = b'x';
    assert_eq!(&*buf, b"xbcdef");
    assert_eq!(buf.spare().len(), 4);
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

/// How many are lent is counted on the way in and out, by others than the pool.
#[test]
fn many_threads_never_have_more_than_there_are() {
    const THREADS: usize = 6;
    const TURNS: usize = 3000;
    for limit in [1, 3, 8] {
        let (pool, lent) = (pool(16, limit), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (pool, lent) = (pool.clone(), &lent);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for turn in 0..TURNS {
                        if let Some(mut buf) = pool.take() {
                            let others = lent.fetch_add(1, Ordering::AcqRel);
                            assert!(others < limit, "{others} of {limit} are lent already");
                            assert!(buf.is_empty(), "it comes empty");
                            buf.write_all(&[thread as u8; 16]).expect("there is room");
                            kept.push(buf);
                        }
                        assert!(pool.made() <= limit && pool.idle() <= pool.made());
                        if turn % (thread + 2) == 0 {
                            for buf in kept.drain(..) {
                                assert_eq!(*buf, [thread as u8; 16], "it is nobody else's");
                                lent.fetch_sub(1, Ordering::AcqRel);
                                drop(buf);
                            }
                        }
                    }
                    lent.fetch_sub(kept.len(), Ordering::AcqRel);
                });
            }
        });
        assert_eq!((lent.into_inner(), pool.idle()), (0, pool.made()), "all are at home");
        assert!(pool.made() > 0 && pool.is_last_handle(0));
    }
}

/// Threads that wait for one sleep until they are told; a bell that gets lost leaves one asleep.
#[test]
fn of_many_who_wait_nobody_is_forgotten() {
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
            sender.send(()).expect("somebody counts");
        });
    }
    for at in 0..THREADS {
        let watchdog = std::time::Duration::from_secs(60);
        done.recv_timeout(watchdog).unwrap_or_else(|_| panic!("{at} are done, the others sleep"));
    }
    assert_eq!(pool.made(), pool.idle());
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Take,
    TakeOrWait,
    TakeSpare,
    Drop(prop::sample::Index),
}

proptest! {
    #[test]
    fn the_pool_is_its_counts(
        limit in 1..9_usize,
        turns in prop::collection::vec(prop_oneof![
            2 => Just(Turn::Take),
            2 => Just(Turn::TakeOrWait),
            2 => Just(Turn::TakeSpare),
            5 => any::<prop::sample::Index>().prop_map(Turn::Drop),
        ], 1..80),
    ) {
        let (pool, bell) = (pool(8, limit), Arc::new(Bell::default()));
        let waker = Waker::from(bell.clone());
        let (mut lent, mut made, mut rung, mut waits) = (vec![], 0, 0, false);
        for turn in turns {
            let at_home = made - lent.len();
            let can = lent.len() < limit;
            let (taken, may) = match turn {
                Turn::Take => (pool.take(), can),
                Turn::TakeOrWait => {
                    waits |= !can;
                    (pool.take_or_wait(&waker).expect("there is memory"), can)
                }
                // The first to be lent of those that are set out leaves half of all.
                Turn::TakeSpare => {
                    (take_spare(&pool), limit - lent.len() > limit.div_ceil(2))
                }
                Turn::Drop(at) if !lent.is_empty() => {
                    drop(lent.swap_remove(at.index(lent.len())));
                    rung += usize::from(std::mem::take(&mut waits));
                    (None, false)
                }
                Turn::Drop(_) => (None, false),
            };
            prop_assert_eq!(taken.is_some(), may);
            made += usize::from(taken.is_some() && at_home == 0);
            lent.extend(taken);
            prop_assert_eq!((pool.made(), pool.idle()), (made, made - lent.len()));
            prop_assert!(pool.is_last_handle(lent.len()));
            prop_assert_eq!(bell.0.load(Ordering::Relaxed), rung, "once for each time");
        }
    }
}
