//! Buffers are lent once each, come home whoever drops them, and tell whom waits for one.

use super::*;
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
    assert!(lent.iter().all(Option::is_some));
    assert!(pool.take_or_wait(&waker).is_none() && pool.take_or_wait(&waker).is_none());
    drop(lent);
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "two came home, and he asked before the first");
    let again = pool.take_or_wait(&waker);
    assert!(again.is_some());
    drop(again);
    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "he did not have to wait");
}

#[test]
fn half_of_them_are_never_set_out() {
    for (limit, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)] {
        let pool = pool(16, limit);
        let out: Vec<_> = std::iter::from_fn(|| pool.take_spare()).collect();
        assert_eq!((out.len(), pool.most_spare()), (most, most), "of {limit}");
        let rest = std::iter::from_fn(|| pool.take()).collect::<Vec<_>>();
        assert_eq!(rest.len(), limit - most, "of {limit}");
    }
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
