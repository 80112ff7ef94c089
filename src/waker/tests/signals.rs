//! Wakes between any two instructions: a signal handler is the poller to a thread that wakes, and
//! wakes a thread that is the poller.

use super::*;
use crate::sys::staging::{Thread, on_signal};
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const WATCHDOG: Duration = Duration::from_secs(60);

/// How many signals have to come. One in twenty or so falls between two given steps.
const SIGNALS: usize = 500;

/// A parker for a signal handler, and how often the handler ran.
struct Shelf {
    parker: OnceLock<Parker>,
    handled: AtomicUsize,
    slept: AtomicBool,
}

impl Shelf {
    const fn new() -> Self {
        let (handled, slept) = (AtomicUsize::new(0), AtomicBool::new(false));
        Shelf { parker: OnceLock::new(), handled, slept }
    }

    fn parker(&self) -> &Parker {
        self.parker
            .get_or_init(|| Parker::new(WakeHandle::new().expect("an eventfd")).expect("a page"))
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

/// Calls `round` while another thread sends signals to this one, until enough have come.
fn under_fire(signal: i32, is_enough: impl Fn() -> bool, mut round: impl FnMut()) {
    let (target, over) = (Thread::current(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                target.signal(signal);
                std::thread::yield_now();
            }
        });
        let _end = EndOfTest(&over);
        while !is_enough() {
            round();
        }
    });
}

#[test]
fn a_poller_may_lie_down_in_the_middle_of_a_wake() {
    static SHELF: Shelf = Shelf::new();
    extern "C" fn prepare_park(_: i32) {
        if SHELF.parker().prepare_park() {
            SHELF.slept.store(true, Ordering::SeqCst);
        }
        SHELF.handled.fetch_add(1, Ordering::SeqCst);
    }
    let (parker, waker) = (SHELF.parker(), SHELF.parker().waker());
    on_signal(libc::SIGUSR1, prepare_park).expect("a signal");
    let (in_time, started) = (Cell::new(0), Instant::now());
    // On a busy machine the signals may all fall elsewhere, for a while.
    let is_lucky = || in_time.get() > 0 || started.elapsed() > WATCHDOG;
    under_fire(
        libc::SIGUSR1,
        || SHELF.handled() >= SIGNALS && is_lucky(),
        || {
            waker.wake();
            let asleep = SHELF.slept.swap(false, Ordering::SeqCst);
            in_time.set(in_time.get() + usize::from(asleep));
            let writes = if asleep { take_count(&parker.0.0.handle) } else { 0 };
            assert_eq!(writes, u64::from(asleep), "whoever sleeps is written to");
            assert!(parker.finish_park(), "the wake is pending");
        },
    );
    assert!(in_time.get() > 0, "no signal came in time");
}

#[test]
fn a_wake_may_come_in_the_middle_of_getting_up() {
    static SHELF: Shelf = Shelf::new();
    extern "C" fn wake(_: i32) {
        SHELF.handled.fetch_add(1, Ordering::SeqCst);
        SHELF.parker().waker().wake();
    }
    let parker = SHELF.parker();
    on_signal(libc::SIGUSR2, wake).expect("a signal");
    under_fire(
        libc::SIGUSR2,
        || SHELF.handled() >= SIGNALS,
        || {
            // All wakes up to here are taken.
            let mut before = SHELF.handled();
            while parker.finish_park() {
                before = SHELF.handled();
            }
            let asleep = parker.prepare_park();
            let woken = parker.finish_park();
            let after = SHELF.handled();
            let later = parker.finish_park();
            if SHELF.handled() == after {
                assert_eq!(woken || later, before != after, "what came is taken, and nothing else");
                assert!(asleep || woken, "only a wake keeps it up");
            }
        },
    );
}
