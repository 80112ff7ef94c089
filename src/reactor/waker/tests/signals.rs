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

/// A bed for a signal handler, and how often the handler ran.
struct Shelf {
    bed: OnceLock<Bed>,
    handled: AtomicUsize,
    slept: AtomicBool,
}

impl Shelf {
    const fn new() -> Self {
        let (handled, slept) = (AtomicUsize::new(0), AtomicBool::new(false));
        Shelf { bed: OnceLock::new(), handled, slept }
    }

    fn bed(&self) -> &Bed {
        self.bed.get_or_init(|| Bed::new(WakeHandle::new().expect("an eventfd")).expect("a page"))
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
    extern "C" fn lie_down(_: i32) {
        if SHELF.bed().lie_down() {
            SHELF.slept.store(true, Ordering::SeqCst);
        }
        SHELF.handled.fetch_add(1, Ordering::SeqCst);
    }
    let (bed, waker) = (SHELF.bed(), SHELF.bed().waker());
    on_signal(libc::SIGUSR1, lie_down).expect("a signal");
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
            let writes = if asleep { take_count(&bed.0.0.handle) } else { 0 };
            assert_eq!(writes, u64::from(asleep), "whoever sleeps is written to");
            assert!(bed.get_up(), "the wake is pending");
        },
    );
    assert!(in_time.get() > 0, "no signal came in time");
}

#[test]
fn a_wake_may_come_in_the_middle_of_getting_up() {
    static SHELF: Shelf = Shelf::new();
    extern "C" fn wake(_: i32) {
        SHELF.handled.fetch_add(1, Ordering::SeqCst);
        SHELF.bed().waker().wake();
    }
    let bed = SHELF.bed();
    on_signal(libc::SIGUSR2, wake).expect("a signal");
    under_fire(
        libc::SIGUSR2,
        || SHELF.handled() >= SIGNALS,
        || {
            // All wakes up to here are taken.
            let mut before = SHELF.handled();
            while bed.get_up() {
                before = SHELF.handled();
            }
            let asleep = bed.lie_down();
            let woken = bed.get_up();
            let after = SHELF.handled();
            let later = bed.get_up();
            if SHELF.handled() == after {
                assert_eq!(woken || later, before != after, "what came is taken, and nothing else");
                assert!(asleep || woken, "only a wake keeps it up");
            }
        },
    );
}
