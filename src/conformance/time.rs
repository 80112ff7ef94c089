//! Clauses T: time.

use super::util::*;
use crate::event::{Interest, Mode, Readiness};
use crate::sys::staging;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(super) fn t1_zero_timeout_collects_all_ready_sources(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(64);
        let pairs: Vec<_> = (0..40).map(|_| stream()).collect();
        for (token, (local, _)) in pairs.iter().enumerate() {
            harness.register(local.clone(), token, READ, mode);
        }
        harness.expect_silence("a wait that may not block returns no event");
        pairs.iter().for_each(|(_, peer)| put(peer, b"x"));
        let all: Reported = (0..40).map(|token| (token, Readiness::READABLE)).collect();
        harness.expect_now(&all, &format!("{mode:?}"));
    }
}

pub(super) fn t2_wait_without_timeout_blocks_until_event(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        harness.register(local, 1, READ, mode);
        let waiter = staging::Thread::current();
        let writer = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            put(&peer, b"x");
            peer
        });
        harness.wait(None);
        assert_eq!(harness.reported(), [(1, Readiness::READABLE)], "{mode:?}");
        writer.join().unwrap_or_else(|_| panic!("the writer failed"));
    }
}

pub(super) fn t2_unreportable_readiness_does_not_wake_wait(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(16);
        // Hung up, with an empty interest.
        let (silent, peer) = stream();
        harness.register(silent, 1, Interest::empty(), mode);
        drop(peer);
        // Hung up, with an interest that became empty.
        let (silenced, peer) = stream();
        let key = harness.register(silenced, 2, BOTH, mode);
        drop(peer);
        harness.ready_now();
        harness.modify(key, 2, Interest::empty(), mode);
        // One-shot: reported, then hung up.
        let (reported, peer) = stream();
        put(&peer, b"x");
        harness.register(reported, 3, READ, Mode::OneShot);
        harness.expect_now(&[(3, Readiness::READABLE)], "one-shot");
        drop(peer);
        // Edge: reported and not drained.
        let (undrained, undrained_peer) = stream();
        put(&undrained_peer, b"x");
        harness.register(undrained, 4, READ, Mode::Edge);
        harness.expect_now(&[(4, Readiness::READABLE)], "edge");
        // Full, and the peer has shut down writing.
        let (full, peer) = stream();
        fill(&*full);
        peer.shutdown(Shutdown::Write).unwrap_or_else(|e| panic!("shutdown: {e}"));
        harness.register(full, 5, WRITE, mode);
        // Writable, with an interest in reading.
        let (idle, _idle_peer) = stream();
        harness.register(idle, 6, READ, mode);
        // Always ready, except for the direction of the interest.
        let null = File::open("/dev/null").unwrap_or_else(|e| panic!("/dev/null: {e}"));
        harness.register(Arc::new(null), 7, Interest::PRIORITY, mode);
        harness.expect_silence("no source may be reported");
        sleep_through(&mut harness, None, &format!("{mode:?}"));
    }
}

/// Urgent data ends a wait, with or without an interest in reading.
pub(super) fn t2_urgent_data_ends_wait(cx: &TestContext) {
    for mode in MODES {
        for interest in [Interest::PRIORITY, Interest::PRIORITY | READ] {
            let mut harness = cx.harness(4);
            let (local, peer) = tcp();
            harness.register(local, 1, interest, mode);
            harness.expect_silence("nothing was sent");
            let waiter = staging::Thread::current().id();
            let sender = thread::spawn(move || {
                wait_until_asleep(waiter);
                put_urgent(&peer);
                peer
            });
            let reported = harness.next("urgent data");
            let is_reported =
                reported.iter().any(|(_, readiness)| readiness.contains(Readiness::PRIORITY));
            assert!(is_reported, "{mode:?}, {interest:?}: {reported:?}");
            sender.join().unwrap_or_else(|_| panic!("the sender failed"));
        }
    }
}

/// Waits until woken by another thread; fails unless the wait sleeps.
fn sleep_through(harness: &mut ReadinessHarness, timeout: Option<Duration>, why: &str) {
    let (waker, waiter) = (harness.poller.waker(), staging::Thread::current().id());
    let watcher = thread::spawn(move || {
        let usage = CpuUsage::of(waiter);
        waker.wake();
        usage
    });
    harness.wait(timeout);
    let reported = harness.reported();
    assert!(
        harness.events.woken() && reported.is_empty(),
        "only the wake may end the wait: {reported:?}; {why}"
    );
    let usage = watcher.join().unwrap_or_else(|_| panic!("the watcher failed"));
    usage.expect_sleep(why);
}

/// A one-shot source that was reported ends no wait until it is rearmed.
pub(super) fn t2_flood_on_disarmed_source_does_not_wake(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let flooded = Arc::new(EventFd::new().unwrap_or_else(|error| panic!("eventfd: {error}")));
    let key = harness.register(flooded.clone(), 1, READ, Mode::OneShot);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                flooded.write(1).unwrap_or_else(|error| panic!("write: {error}"));
                thread::sleep(Duration::from_micros(100));
            }
        }
    });
    for _ in 0..3 {
        assert_eq!(harness.next("the flood"), [(1, Readiness::READABLE)]);
        sleep_through(&mut harness, None, "a flood");
        harness.rearm(key, READ);
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap_or_else(|_| panic!("the flood failed"));
}

/// POLLRDHUP is set all the time, and not part of the interest.
pub(super) fn t2_full_stream_with_rdhup_sleeps_until_writable(cx: &TestContext) {
    for mode in MODES {
        for ends_meanwhile in [false, true] {
            let mut harness = cx.harness(4);
            let (local, peer) = stream();
            fill(&*local);
            let end = |peer: &UnixStream| {
                peer.shutdown(Shutdown::Write).unwrap_or_else(|e| panic!("shutdown: {e}"));
            };
            if !ends_meanwhile {
                end(&peer);
            }
            harness.register(local, 1, WRITE, mode);
            harness.expect_silence("the send buffer is full");
            let waiter = staging::Thread::current().id();
            let helper = thread::spawn(move || {
                wait_until_asleep(waiter);
                if ends_meanwhile {
                    end(&peer);
                }
                let usage = CpuUsage::of(waiter);
                drain(&peer);
                (usage, peer)
            });
            let room = [(1, Readiness::WRITABLE)];
            assert_eq!(harness.next("room"), room, "only room may end the wait, {mode:?}");
            let (usage, _peer) = helper.join().unwrap_or_else(|_| panic!("the peer failed"));
            usage.expect_sleep(&format!("{mode:?}, the peer ended meanwhile: {ends_meanwhile}"));
        }
    }
}

pub(super) fn t3_wait_is_never_early(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let check = |harness: &mut ReadinessHarness, timeout: Duration| {
        let started = Instant::now();
        harness.wait(Some(timeout));
        let elapsed = started.elapsed();
        assert!(elapsed >= timeout, "a wait of {timeout:?} took {elapsed:?}");
        assert!(harness.events.is_empty() && !harness.events.woken());
    };
    for micros in (1..1000).step_by(7) {
        check(&mut harness, Duration::from_micros(micros));
    }
    let (idle, _peer) = stream();
    harness.register(idle, 1, READ, Mode::Level);
    for micros in [100, 999, 1000, 1001, 3100, 20_000] {
        check(&mut harness, Duration::from_micros(micros));
        check(&mut harness, Duration::from_micros(micros));
    }
}

pub(super) fn t4_nanosecond_timeout_ends_and_max_does_not(cx: &TestContext) {
    let mut harness = cx.harness(4);
    for nanos in [1, 999, 1001] {
        harness.wait(Some(Duration::from_nanos(nanos)));
        assert!(harness.events.is_empty());
    }
    let weeks = Duration::from_millis(i32::MAX as u64 + 1);
    let clock = Duration::from_secs(i64::MAX as u64);
    for timeout in [weeks, Duration::from_secs(u64::from(u32::MAX)), clock, Duration::MAX] {
        let (waker, waiter) = (harness.poller.waker(), staging::Thread::current());
        let thread = thread::spawn(move || {
            wait_until_asleep(waiter.id());
            waker.wake();
        });
        harness.wait(Some(timeout));
        assert!(harness.events.woken(), "{timeout:?} must not have passed");
        thread.join().unwrap_or_else(|_| panic!("the waking thread failed"));
    }
}

pub(super) fn t4_huge_timeouts_sleep_until_woken(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let idle = MODES.map(|_| stream());
    for (mode, (local, _)) in MODES.into_iter().zip(&idle) {
        harness.register(local.clone(), 1, READ, mode);
    }
    const YEAR: u64 = 31_556_952;
    // A 64-bit nanosecond clock overflows after 292 years, one of seconds after 292 billion. The
    // last length overflows once the present is added.
    let lengths = [300 * YEAR, 200_000_000_000 * YEAR, i64::MAX as u64 - 1];
    let ages = lengths.map(|seconds| Some(Duration::new(seconds, 999_999_999)));
    for timeout in ages.into_iter().chain([Some(Duration::MAX), None]) {
        sleep_through(&mut harness, timeout, &format!("{timeout:?}"));
    }
    put(&idle[0].1, b"x");
    harness.wait(Some(Duration::MAX));
    assert_eq!(harness.reported(), [(1, Readiness::READABLE)], "an event ends the wait");
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Sends signals to one thread until dropped.
struct SignalStorm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SignalStorm {
    fn over_this_thread(pause: Duration) -> Self {
        staging::on_signal(libc::SIGUSR1, count_signal)
            .unwrap_or_else(|error| panic!("sigaction: {error}"));
        let (target, stop) = (staging::Thread::current(), Arc::new(AtomicBool::new(false)));
        let is_stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                target.signal(libc::SIGUSR1);
                thread::sleep(pause);
            }
        });
        SignalStorm { stop, thread: Some(thread) }
    }

    /// Returns the count of signals that arrived, including earlier storms.
    fn signals() -> u32 {
        SIGNALS.load(Ordering::Relaxed)
    }
}

impl Drop for SignalStorm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The join cannot fail; the thread ends once the flag is set.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

pub(super) fn t5_signals_do_not_end_wait(cx: &TestContext) {
    for mode in MODES {
        let mut harness = cx.harness(4);
        let (local, peer) = stream();
        harness.register(local, 1, READ, mode);
        let _storm = SignalStorm::over_this_thread(Duration::from_micros(200));
        // Repeats until one wait has received several: on a busy machine signals may be late.
        let watchdog = Instant::now();
        let mut signals = 0;
        while signals < 2 {
            assert!(watchdog.elapsed() < LONG, "no storm within {LONG:?}");
            let (timeout, before) = (Duration::from_millis(20), SignalStorm::signals());
            let started = Instant::now();
            harness.wait(Some(timeout));
            let elapsed = started.elapsed();
            assert!(
                elapsed >= timeout && harness.events.is_empty(),
                "{elapsed:?}, {:?}",
                harness.reported()
            );
            signals = SignalStorm::signals() - before;
        }
        put(&peer, b"x");
        harness.expect_now(&[(1, Readiness::READABLE)], "events are reported despite signals");
    }
}

/// Registers a source, reports it in a wait that does not block and in one that does, and
/// deregisters it.
fn check_short_registration(
    harness: &mut ReadinessHarness,
    token: usize,
    mode: Mode,
    writer: &mpsc::Sender<UnixStream>,
) {
    let (local, peer) = stream();
    if token % 2 == 0 {
        put(&peer, b"x");
    }
    let key = harness.register(local.clone(), token, READ, mode);
    if token % 2 == 1 {
        put(&peer, b"x");
    }
    harness.expect_now(&[(token, Readiness::READABLE)], &format!("in the next wait, {mode:?}"));
    assert_eq!(take(&local, 8), 1);
    harness.drained(key, READ);
    harness.modify(key, token, READ, mode);
    harness.expect_silence("the byte was read");
    let later = peer.try_clone().unwrap_or_else(|error| panic!("dup: {error}"));
    writer.send(later).unwrap_or_else(|_| panic!("the writer failed"));
    assert_eq!(harness.next("a byte"), [(token, Readiness::READABLE)], "later, {mode:?}");
    harness.deregister(key);
    harness.expect_silence("the source was deregistered");
    drop(local);
    // The writer may still hold a duplicate of `peer`, but no duplicate of `local` exists.
    let ended = oracle(&peer, PollFlags::POLLIN).contains(PollFlags::POLLHUP);
    assert!(ended, "the peer sees the end, {mode:?}");
}

pub(super) fn t5_signal_storm_loses_no_event(cx: &TestContext) {
    let (sender, streams) = mpsc::channel::<UnixStream>();
    let writer = thread::spawn(move || {
        for stream in streams {
            // Long enough for the wait to have begun, usually.
            thread::sleep(Duration::from_micros(300));
            put(&stream, b"y");
        }
    });
    for mode in MODES {
        let mut harness = cx.harness(64);
        let lasting: Vec<_> = (0..20).map(|_| stream()).collect();
        for (token, (local, _)) in lasting.iter().enumerate() {
            harness.register(local.clone(), token, READ, mode);
        }
        let storm = SignalStorm::over_this_thread(Duration::from_micros(20));
        let (watchdog, before) = (Instant::now(), SignalStorm::signals());
        let mut token = lasting.len();
        while token < 120 || SignalStorm::signals() - before < 100 {
            assert!(watchdog.elapsed() < LONG, "no storm within {LONG:?}");
            check_short_registration(&mut harness, token, mode, &sender);
            token += 1;
        }
        lasting.iter().for_each(|(_, peer)| put(peer, b"x"));
        let all: Reported = (0..lasting.len()).map(|token| (token, Readiness::READABLE)).collect();
        harness.expect_now(&all, &format!("the sources registered throughout, {mode:?}"));
        drop(storm);
    }
    drop(sender);
    writer.join().unwrap_or_else(|_| panic!("the writer failed"));
}

pub(super) fn t6_timeout_is_measured_on_monotonic_clock(cx: &TestContext) {
    let mut harness = cx.harness(4);
    let now = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|e| panic!("{e}"));
        Duration::from(now)
    };
    for millis in [1, 5, 15] {
        let (started, timeout) = (now(), Duration::from_millis(millis));
        harness.wait(Some(timeout));
        let elapsed = now() - started;
        assert!(elapsed >= timeout, "a wait of {timeout:?} took {elapsed:?}");
    }
}
