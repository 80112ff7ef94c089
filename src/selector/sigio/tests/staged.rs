//! Tests that use the staging helpers of the conformance suite.

use super::*;
use crate::sys::staging::{self, Thread};
use crate::testing::making_children;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clause P1. Alone, because it forks.
#[test]
fn drop_in_forked_child_changes_nothing() {
    if !is_alone("selector::sigio::tests::staged::drop_in_forked_child_changes_nothing") {
        return;
    }
    let _making = making_children();
    let (mut sigio, (local, peer), fallback) = (sigio(), stream(), eventfd(1));
    assert_eq!((sigio.watch(0, &local, R), sigio.watch(1, &fallback, R)), (SIGNALS, FALLBACK));
    put(&peer);
    let (claimed, mask) = (state(&local), blocked());
    let mut sigio = Some(sigio);
    let status = staging::in_forked_child(|| {
        let inherited = blocked() == mask;
        drop(sigio.take());
        i32::from(!inherited)
            + 2 * i32::from(blocked() == mask)
            + 4 * i32::from(state(&local) != claimed)
    });
    assert_eq!(
        status.expect("an exit status"),
        0,
        "the drop restores the child's mask, and no file"
    );
    let mut sigio = sigio.expect("only the child has dropped it");
    assert_eq!((state(&local), blocked()), (claimed, mask));
    assert_eq!(
        sigio.poll_now(),
        (WaitOutcome::Events, vec![hint(0), readable(1)]),
        "queued signals are kept"
    );
    put(&peer);
    assert_eq!(sigio.poll_now(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
}

#[test]
fn pidfd_is_in_the_fallback_set() {
    let (mut sigio, process) = (sigio(), staging::open_pidfd(std::process::id()));
    let process = process.expect("this process");
    let before = state(&process);
    assert_eq!(sigio.watch(0, &process, R), FALLBACK);
    assert!(sigio.fallback.entry_of(slot(0)).is_some());
    assert_eq!(state(&process), before);
    assert_eq!(sigio.poll_now(), quiet());
}

#[test]
fn signals_of_other_senders_are_no_report() {
    let (mut sigio, (local, _peer)) = (sigio(), stream());
    sigio.watch(0, &local, R);
    let signal = sigio.signals.signal();
    staging::queue_signal(Thread::current(), signal, local.as_raw_fd());
    Thread::current().signal(signal);
    assert_eq!(sigio.poll_now(), quiet());
}

extern "C" fn nothing(_: i32) {}

/// Alone, because handlers are per process.
#[test]
fn signal_handler_interrupts_and_loses_nothing() {
    if !is_alone("selector::sigio::tests::staged::signal_handler_interrupts_and_loses_nothing") {
        return;
    }
    staging::on_signal(libc::SIGUSR1, nothing).expect("a handler");
    let (mut sigio, (local, peer), done) = (sigio(), stream(), AtomicBool::new(false));
    sigio.watch(0, &local, R);
    let this = Thread::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                this.signal(libc::SIGUSR1);
                std::thread::yield_now();
            }
        });
        assert_eq!(sigio.wait_until(late()), (WaitOutcome::Interrupted, vec![]));
        for _ in 0..300 {
            put(&peer);
            assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
            empty(&local);
        }
        done.store(true, Ordering::Relaxed);
    });
}
