//! With what the conformance suite has to set a process up.

use super::*;
use crate::sys::staging::{self, Thread};
use crate::testing::making_children;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clause P1. Alone, because it forks.
#[test]
fn a_childs_drop_changes_nothing() {
    if !is_alone("selector::sigio::tests::staged::a_childs_drop_changes_nothing") {
        return;
    }
    let _making = making_children();
    let (mut sigio, (here, there), side) = (sigio(), stream(), eventfd(1));
    assert_eq!((sigio.watch(0, &here, R), sigio.watch(1, &side, R)), (LOUD, MUTE));
    put(&there);
    let (told, mask) = (state(&here), blocked());
    let mut sigio = Some(sigio);
    let status = staging::in_forked_child(|| {
        let inherited = blocked() == mask;
        drop(sigio.take());
        i32::from(!inherited)
            + 2 * i32::from(blocked() == mask)
            + 4 * i32::from(state(&here) != told)
    });
    assert_eq!(status.expect("it ends"), 0, "the child's own mask, and nobody else's file");
    let mut sigio = sigio.expect("only the child has dropped it");
    assert_eq!((state(&here), blocked()), (told, mask));
    assert_eq!(
        sigio.look(),
        (WaitOutcome::Events, vec![hint(0), readable(1)]),
        "also what was queued"
    );
    put(&there);
    assert_eq!(sigio.look(), (WaitOutcome::Events, vec![hint(0), readable(1)]));
}

#[test]
fn a_process_file_stands_in_the_side_set() {
    let (mut sigio, process) = (sigio(), staging::open_pidfd(std::process::id()));
    let process = process.expect("it lives");
    let before = state(&process);
    assert_eq!(sigio.watch(0, &process, R), MUTE);
    assert!(sigio.side.entry_of(slot(0)).is_some());
    assert_eq!(state(&process), before);
    assert_eq!(sigio.look(), quiet());
}

#[test]
fn what_a_process_has_queued_is_no_report() {
    let (mut sigio, (here, _there)) = (sigio(), stream());
    sigio.watch(0, &here, R);
    let signal = sigio.signals.signal();
    staging::queue_signal(Thread::current(), signal, here.as_raw_fd());
    Thread::current().signal(signal);
    assert_eq!(sigio.look(), quiet());
}

extern "C" fn nothing(_: i32) {}

/// Alone, because handlers belong to the process.
#[test]
fn a_handler_interrupts_and_loses_nothing() {
    if !is_alone("selector::sigio::tests::staged::a_handler_interrupts_and_loses_nothing") {
        return;
    }
    staging::on_signal(libc::SIGUSR1, nothing).expect("a handler");
    let (mut sigio, (here, there), done) = (sigio(), stream(), AtomicBool::new(false));
    sigio.watch(0, &here, R);
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
            put(&there);
            assert_eq!(sigio.wait_until(late()), (WaitOutcome::Events, vec![hint(0)]));
            empty(&here);
        }
        done.store(true, Ordering::Relaxed);
    });
}
