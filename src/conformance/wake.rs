//! Clauses W: wake.

use super::kit::*;
use crate::event::{Mode, Readiness};
use crate::sys::staging;
use crate::waker::Waker;
use nix::errno::Errno;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

pub(super) fn w1_a_wake_before_the_wait_ends_it(stage: &Stage) {
    let mut desk = stage.desk(4);
    for timeout in [None, Some(LONG), Some(ZERO)] {
        desk.poller.waker().wake();
        desk.wait(timeout);
        assert!(desk.events.woken() && desk.events.is_empty(), "{timeout:?}");
        desk.expect_silence("the wake was taken");
    }
}

pub(super) fn w1_a_wake_during_the_wait_ends_it(stage: &Stage) {
    let mut desk = stage.desk(4);
    let (here, _there) = stream();
    desk.register(here, 1, READ, Mode::Level);
    for _ in 0..20 {
        let (waker, waiter) = (desk.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            until_asleep(waiter.id());
            waker.wake();
        });
        desk.wait(None);
        assert!(desk.events.woken() && desk.events.is_empty());
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
        desk.expect_silence("the wake was taken");
    }
}

pub(super) fn w1_wakes_coalesce(stage: &Stage) {
    let mut desk = stage.desk(4);
    let wakers = [desk.poller.waker(), desk.poller.waker().clone()];
    for _ in 0..10 {
        (0..1000).for_each(|turn| wakers[turn % 2].wake());
        desk.wait(None);
        assert!(desk.events.woken());
        desk.expect_silence("many wakes end one wait");
    }
}

pub(super) fn w1_no_wake_is_lost_in_a_race(stage: &Stage) {
    const ROUNDS: u32 = 20_000;
    let mut desk = stage.desk(4);
    let (here, there) = stream();
    desk.register(here.clone(), 1, READ, Mode::Level);
    let (asked, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (waker, their_asked, their_answered) =
        (desk.poller.waker(), asked.clone(), answered.clone());
    let other = thread::spawn(move || {
        for round in 1..=ROUNDS {
            their_asked.store(round, Ordering::Relaxed);
            waker.wake();
            // Some rounds meet a poller that is busy with an event at the same moment.
            if round % 8 == 0 {
                put(&there, b"x");
            }
            while their_answered.load(Ordering::Acquire) != round {
                std::hint::spin_loop();
                thread::yield_now();
            }
        }
        there
    });
    let mut seen = 0;
    while seen < ROUNDS {
        desk.wait(Some(LONG));
        assert!(desk.events.woken() || !desk.events.is_empty(), "a wake was lost after {seen}");
        drain(&*here);
        if desk.events.woken() {
            // The wake orders the store before it: what it was made for is seen.
            assert_eq!(asked.load(Ordering::Relaxed), seen + 1, "woken for nothing");
            seen += 1;
            answered.store(seen, Ordering::Release);
        }
    }
    other.join().unwrap_or_else(|_| panic!("the waking thread failed"));
}

pub(super) fn w2_a_wake_is_not_an_event(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(1);
        let (here, there) = stream();
        desk.register(here, 1, READ, mode);
        put(&there, b"x");
        desk.poller.waker().wake();
        desk.expect_now(&[(1, Readiness::READABLE)], "a wake takes no room");
        assert!(desk.events.woken(), "and comes beside the event");
        desk.poller.waker().wake();
        desk.wait(None);
        assert!(desk.events.woken(), "events of one source do not starve it");
    }
}

pub(super) fn w3_a_waker_outlives_its_poller(stage: &Stage) {
    let desk = stage.desk(1);
    let waker = desk.poller.waker();
    drop(desk);
    waker.wake();
    let clone = waker.clone();
    thread::spawn(move || clone.wake()).join().unwrap_or_else(|_| panic!("a late wake panics"));
    let mut desk = stage.desk(1);
    waker.wake();
    desk.expect_silence("another poller's waker");
}

static WAKER: OnceLock<Waker> = OnceLock::new();
static ERRNO_AFTER: AtomicI32 = AtomicI32::new(0);
/// Any number that the calls inside would not leave behind.
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

pub(super) fn w3_a_signal_handler_may_wake(stage: &Stage) {
    let mut desk = stage.desk(4);
    WAKER.get_or_init(|| desk.poller.waker());
    staging::on_signal(libc::SIGUSR1, wake_from_handler)
        .unwrap_or_else(|error| panic!("sigaction: {error}"));
    for _ in 0..20 {
        let waiter = staging::Thread::current();
        let thread = thread::spawn(move || {
            until_asleep(waiter.id());
            waiter.signal(libc::SIGUSR1);
        });
        desk.wait(None);
        assert!(desk.events.woken(), "the handler ran in the waiting thread");
        assert_eq!(ERRNO_AFTER.load(Ordering::SeqCst), ERRNO_BEFORE, "errno is kept");
        thread.join().unwrap_or_else(|_| panic!("the signalling thread failed"));
    }
}
