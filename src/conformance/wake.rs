//! Clauses W: wake.

use super::util::*;
use crate::event::{Mode, Readiness};
use crate::sys::staging;
use crate::waker::Waker;
use nix::errno::Errno;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

pub(super) fn w1_wake_before_wait_ends_it(cx: &TestContext) {
    let mut harness = cx.harness(4);
    for timeout in [None, Some(LONG), Some(ZERO)] {
        harness.poller.waker().wake();
        harness.wait(timeout);
        assert!(harness.events.woken() && harness.events.is_empty(), "{timeout:?}");
        harness.expect_silence("the wake was reported");
    }
}

pub(super) fn w1_wake_during_wait_ends_it(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let (local, _peer) = stream();
    harness.register(local, 1, READ, Mode::Level);
    for _ in 0..20 {
        let (waker, waiter) = (harness.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            waker.wake();
        });
        harness.wait(None);
        assert!(harness.events.woken() && harness.events.is_empty());
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
        harness.expect_silence("the wake was reported");
    }
}

pub(super) fn w1_wakes_coalesce(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let wakers = [harness.poller.waker(), harness.poller.waker().clone()];
    for _ in 0..10 {
        (0..1000).for_each(|turn| wakers[turn % 2].wake());
        harness.wait(None);
        assert!(harness.events.woken());
        harness.expect_silence("many wakes end one wait");
    }
}

pub(super) fn w1_racing_wakes_are_not_lost(cx: &TestContext) {
    const ROUNDS: u32 = 20_000;
    let mut harness = cx.harness(4);
    let (local, peer) = stream();
    harness.register(local.clone(), 1, READ, Mode::Level);
    let (asked, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (waker, their_asked, their_answered) =
        (harness.poller.waker(), asked.clone(), answered.clone());
    let other = thread::spawn(move || {
        for round in 1..=ROUNDS {
            their_asked.store(round, Ordering::Relaxed);
            waker.wake();
            // In some rounds the poller handles an event at the same moment.
            if round % 8 == 0 {
                put(&peer, b"x");
            }
            while their_answered.load(Ordering::Acquire) != round {
                std::hint::spin_loop();
                thread::yield_now();
            }
        }
        peer
    });
    let mut seen = 0;
    while seen < ROUNDS {
        harness.wait(Some(LONG));
        assert!(
            harness.events.woken() || !harness.events.is_empty(),
            "a wake was lost after {seen}"
        );
        drain(&*local);
        if harness.events.woken() {
            // The wake synchronizes with the wait: the store before it is visible.
            assert_eq!(asked.load(Ordering::Relaxed), seen + 1, "a spurious wake");
            seen += 1;
            answered.store(seen, Ordering::Release);
        }
    }
    other.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

pub(super) fn w2_wake_is_not_an_event(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(1);
        let (local, peer) = stream();
        harness.register(local, 1, READ, mode);
        put(&peer, b"x");
        harness.poller.waker().wake();
        harness.expect_now(&[(1, Readiness::READABLE)], "a wake takes no capacity");
        assert!(harness.events.woken(), "the wake is reported with the event");
        harness.poller.waker().wake();
        harness.wait(None);
        assert!(harness.events.woken(), "events must not starve a wake");
    }
}

pub(super) fn w3_waker_outlives_its_poller(cx: &TestContext) {
    let harness = cx.harness(1);
    let waker = harness.poller.waker();
    drop(harness);
    waker.wake();
    let clone = waker.clone();
    thread::spawn(move || clone.wake()).join().unwrap_or_else(|_| panic!("a late wake panicked"));
    let mut harness = cx.harness(1);
    waker.wake();
    harness.expect_silence("another poller's waker");
}

static WAKER: OnceLock<Waker> = OnceLock::new();
static ERRNO_AFTER: AtomicI32 = AtomicI32::new(0);
/// An errno that no call inside would set.
const ERRNO_BEFORE: i32 = libc::EXDEV;

extern "C" fn wake_from_handler(_: i32) {
    let interrupted = Errno::last_raw();
    Errno::set_raw(ERRNO_BEFORE);
    if let Some(waker) = WAKER.get() {
        waker.wake();
    }
    ERRNO_AFTER.store(Errno::last_raw(), Ordering::SeqCst);
    Errno::set_raw(interrupted);
}

pub(super) fn w3_wake_in_signal_handler_keeps_errno(cx: &TestContext) {
    let mut harness = cx.harness(4);
    WAKER.get_or_init(|| harness.poller.waker());
    staging::on_signal(libc::SIGUSR1, wake_from_handler)
        .unwrap_or_else(|error| panic!("sigaction: {error}"));
    for _ in 0..20 {
        let waiter = staging::Thread::current();
        let thread = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            waiter.signal(libc::SIGUSR1);
        });
        harness.wait(None);
        assert!(harness.events.woken(), "the handler's wake must end the wait");
        assert_eq!(ERRNO_AFTER.load(Ordering::SeqCst), ERRNO_BEFORE, "errno was changed");
        thread.join().unwrap_or_else(|_| panic!("the signalling thread failed"));
    }
}
