//! Clauses T: time.

use super::kit::*;
use crate::event::{Interest, Mode, Readiness};
use crate::sys::staging;
use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) fn t1_zero_collects_everything(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(64);
        let pairs: Vec<_> = (0..40).map(|_| stream()).collect();
        for (token, (here, _)) in pairs.iter().enumerate() {
            desk.register(here.clone(), token, READ, mode);
        }
        desk.expect_silence("a wait that may not block comes back empty");
        pairs.iter().for_each(|(_, there)| put(there, b"x"));
        let all: Said = (0..40).map(|token| (token, Readiness::READABLE)).collect();
        desk.expect_now(&all, &format!("{mode:?}"));
    }
}

pub(super) fn t2_no_timeout_waits_for_an_event(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = stream();
        desk.register(here, 1, READ, mode);
        let waiter = staging::Thread::current();
        let writer = thread::spawn(move || {
            until_asleep(waiter.id());
            put(&there, b"x");
            there
        });
        desk.wait(None);
        assert_eq!(desk.said(), [(1, Readiness::READABLE)], "{mode:?}");
        writer.join().unwrap_or_else(|_| panic!("the writer failed"));
    }
}

pub(super) fn t2_what_is_not_to_be_told_keeps_no_wait_awake(stage: &Stage) {
    for mode in MODES {
        let mut desk = stage.desk(16);
        // Hung up, and asked for nothing.
        let (silent, there) = stream();
        desk.register(silent, 1, Interest::empty(), mode);
        drop(there);
        // Hung up, and asked for nothing any more.
        let (silenced, there) = stream();
        let key = desk.register(silenced, 2, BOTH, mode);
        drop(there);
        desk.now();
        desk.modify(key, 2, Interest::empty(), mode);
        // Reported, and then it hung up.
        let (told, there) = stream();
        put(&there, b"x");
        desk.register(told, 3, READ, Mode::OneShot);
        desk.expect_now(&[(3, Readiness::READABLE)], "one-shot");
        drop(there);
        // Reported, and not drained.
        let (undrained, undrained_there) = stream();
        put(&undrained_there, b"x");
        desk.register(undrained, 4, READ, Mode::Edge);
        desk.expect_now(&[(4, Readiness::READABLE)], "edge");
        // Full, while the peer has shut down writing.
        let (full, there) = stream();
        fill(&*full);
        there.shutdown(std::net::Shutdown::Write).unwrap_or_else(|e| panic!("shutdown: {e}"));
        desk.register(full, 5, WRITE, mode);
        // Writable, and asked for reading.
        let (idle, _idle_there) = stream();
        desk.register(idle, 6, READ, mode);
        desk.expect_silence("none of this is to be told");

        let (waker, waiter) = (desk.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            let asleep = falls_asleep(waiter.id());
            waker.wake();
            asleep
        });
        desk.wait(None);
        assert!(desk.events.woken() && desk.events.is_empty(), "{:?}", desk.said());
        let asleep = thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
        assert!(asleep, "a blocked wait sleeps, it does not look again and again; {mode:?}");
    }
}

pub(super) fn t3_never_early(stage: &Stage) {
    let mut desk = stage.desk(4);
    let check = |desk: &mut Desk, timeout: Duration| {
        let started = Instant::now();
        desk.wait(Some(timeout));
        let elapsed = started.elapsed();
        assert!(elapsed >= timeout, "a wait of {timeout:?} took {elapsed:?}");
        assert!(desk.events.is_empty() && !desk.events.woken());
    };
    for micros in (1..1000).step_by(7) {
        check(&mut desk, Duration::from_micros(micros));
    }
    let (idle, _there) = stream();
    desk.register(idle, 1, READ, Mode::Level);
    for micros in [100, 999, 1000, 1001, 3100, 20_000] {
        check(&mut desk, Duration::from_micros(micros));
        check(&mut desk, Duration::from_micros(micros));
    }
}

pub(super) fn t4_one_nanosecond_ends_and_the_longest_does_not(stage: &Stage) {
    let mut desk = stage.desk(4);
    for nanos in [1, 999, 1001] {
        desk.wait(Some(Duration::from_nanos(nanos)));
        assert!(desk.events.is_empty());
    }
    let weeks = Duration::from_millis(i32::MAX as u64 + 1);
    let clock = Duration::from_secs(i64::MAX as u64);
    for timeout in [weeks, Duration::from_secs(u64::from(u32::MAX)), clock, Duration::MAX] {
        let (waker, waiter) = (desk.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            until_asleep(waiter.id());
            waker.wake();
        });
        desk.wait(Some(timeout));
        assert!(desk.events.woken(), "{timeout:?} is not over yet");
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
    }
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn t5_signals_do_not_end_a_wait(stage: &Stage) {
    staging::on_signal(libc::SIGUSR1, count_signal).unwrap_or_else(|e| panic!("sigaction: {e}"));
    for mode in MODES {
        let mut desk = stage.desk(4);
        let (here, there) = stream();
        desk.register(here, 1, READ, mode);
        let (waiter, over) = (staging::Thread::current(), Arc::new(AtomicBool::new(false)));
        let is_over = over.clone();
        let storm = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                waiter.signal(libc::SIGUSR1);
                thread::sleep(Duration::from_micros(200));
            }
        });
        // Until one wait has seen several: on a busy machine the storm may be late.
        let watchdog = Instant::now();
        let mut signals = 0;
        while signals < 2 {
            assert!(watchdog.elapsed() < LONG, "no storm within {LONG:?}");
            let (timeout, before) = (Duration::from_millis(20), SIGNALS.load(Ordering::Relaxed));
            let started = Instant::now();
            desk.wait(Some(timeout));
            let elapsed = started.elapsed();
            assert!(elapsed >= timeout && desk.events.is_empty(), "{elapsed:?}, {:?}", desk.said());
            signals = SIGNALS.load(Ordering::Relaxed) - before;
        }
        put(&there, b"x");
        desk.expect_now(&[(1, Readiness::READABLE)], "events get through the storm");
        over.store(true, Ordering::Relaxed);
        storm.join().unwrap_or_else(|_| panic!("the storm failed"));
    }
}

pub(super) fn t6_measured_on_the_monotonic_clock(stage: &Stage) {
    let mut desk = stage.desk(4);
    let now = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|e| panic!("{e}"));
        Duration::from(now)
    };
    for millis in [1, 5, 15] {
        let (started, timeout) = (now(), Duration::from_millis(millis));
        desk.wait(Some(timeout));
        let elapsed = now() - started;
        assert!(elapsed >= timeout, "a wait of {timeout:?} took {elapsed:?}");
    }
}
