//! Wakes between any two instructions: a signal handler parks in a thread that wakes, and wakes in
//! a thread that parks.

use super::*;
use crate::sys::staging::{Thread, on_signal};
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const WATCHDOG: Duration = Duration::from_secs(60);

/// The number of signals to handle. About one in twenty arrives between two given steps.
const SIGNALS: usize = 500;

/// The state of a signal handler: its parker, and how often it ran.
struct HandlerState {
    parker: OnceLock<Parker>,
    handled: AtomicUsize,
    parked: AtomicBool,
}

impl HandlerState {
    const fn new() -> Self {
        let (handled, parked) = (AtomicUsize::new(0), AtomicBool::new(false));
        HandlerState { parker: OnceLock::new(), handled, parked }
    }

    fn parker(&self) -> &Parker {
        self.parker
            .get_or_init(|| Parker::new(WakeHandle::new().expect("an eventfd")).expect("a page"))
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

/// Calls `round` while another thread sends signals to this one, until `is_enough`.
fn run_under_signals(signal: i32, is_enough: impl Fn() -> bool, mut round: impl FnMut()) {
    let (target, stopped) = (Thread::current(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                target.signal(signal);
                std::thread::yield_now();
            }
        });
        let _end = StopOnDrop(&stopped);
        while !is_enough() {
            round();
        }
    });
}

#[test]
fn park_races_with_wake() {
    static STATE: HandlerState = HandlerState::new();
    extern "C" fn prepare_park(_: i32) {
        if STATE.parker().prepare_park() {
            STATE.parked.store(true, Ordering::SeqCst);
        }
        STATE.handled.fetch_add(1, Ordering::SeqCst);
    }
    let (parker, waker) = (STATE.parker(), STATE.parker().waker());
    on_signal(libc::SIGUSR1, prepare_park).expect("a signal");
    let (races, started) = (Cell::new(0), Instant::now());
    // On a busy machine no signal may hit the window for a while.
    let has_raced = || races.get() > 0 || started.elapsed() > WATCHDOG;
    run_under_signals(
        libc::SIGUSR1,
        || STATE.handled() >= SIGNALS && has_raced(),
        || {
            waker.wake();
            let asleep = STATE.parked.swap(false, Ordering::SeqCst);
            races.set(races.get() + usize::from(asleep));
            let writes = if asleep { take_count(&parker.0.0.handle) } else { 0 };
            assert_eq!(writes, u64::from(asleep), "a wake of a parked poller writes");
            assert!(parker.finish_park(), "the wake is pending");
        },
    );
    assert!(races.get() > 0, "no signal raced with the wake");
}

#[test]
fn wake_races_with_unpark() {
    static STATE: HandlerState = HandlerState::new();
    extern "C" fn wake(_: i32) {
        STATE.handled.fetch_add(1, Ordering::SeqCst);
        STATE.parker().waker().wake();
    }
    let parker = STATE.parker();
    on_signal(libc::SIGUSR2, wake).expect("a signal");
    run_under_signals(
        libc::SIGUSR2,
        || STATE.handled() >= SIGNALS,
        || {
            // Takes all wakes up to here.
            let mut before = STATE.handled();
            while parker.finish_park() {
                before = STATE.handled();
            }
            let asleep = parker.prepare_park();
            let woken = parker.finish_park();
            let after = STATE.handled();
            let later = parker.finish_park();
            if STATE.handled() == after {
                assert_eq!(
                    woken || later,
                    before != after,
                    "the poller takes exactly the wakes that were made"
                );
                assert!(asleep || woken, "only a wake keeps the poller from parking");
            }
        },
    );
}
