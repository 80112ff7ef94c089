//! The mask of programs started from a poller's thread, or replacing its process.

use super::*;
use crate::testing::making_children;

/// Returns the mask of `cat` when it is started from this thread.
fn childs_mask(prepare: impl FnOnce(&mut Command) -> &mut Command) -> u64 {
    let mut command = Command::new("cat");
    prepare(command.arg("/proc/self/status"));
    let output = {
        let _making = making_children();
        command.output().expect("cat is everywhere")
    };
    mask_in(&String::from_utf8_lossy(&output.stdout), "SigBlk")
}

/// Alone, because a process records all signals that were ever blocked in it.
#[test]
fn prepared_child_has_poller_signals_unblocked() {
    if !is_alone("sys::signals::tests::children::prepared_child_has_poller_signals_unblocked") {
        return;
    }
    let last = libc::SIGRTMAX();
    let before = bits(&[libc::SIGUSR1, last, last - 2]);
    with_blocked(&[libc::SIGUSR1, last, last - 2], || {
        assert_eq!(childs_mask(unblock_in_child), before, "nothing was blocked here");
        change_mask(libc::SIG_BLOCK, &[SIGIO]);
        let with_sigio = take_signals();
        assert_eq!(childs_mask(unblock_in_child), before | bits(&[SIGIO]), "it was so before");
        drop(with_sigio);
        change_mask(libc::SIG_UNBLOCK, &[SIGIO]);
        let (first, second) = (take_signals(), take_signals());
        let blocked = mask("SigBlk");
        assert_eq!(blocked, before | bits(&[SIGIO, first.signal(), second.signal()]));
        assert_eq!(childs_mask(|command| command), blocked, "a mask is inherited");
        assert_eq!(childs_mask(unblock_in_child), before);
        drop(first);
        assert_eq!(childs_mask(unblock_in_child), before);
        // A thread also inherits the mask, and may outlive the pollers.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| (childs_mask(unblock_in_child), mask("SigBlk")));
            let expected = (before, before | bits(&[SIGIO, second.signal()]));
            assert_eq!(thread.join().expect("it does not panic"), expected);
        });
    });
}

/// exec(2) in the same process inherits pending signals, which would end it.
#[cfg(feature = "conformance")]
#[test]
fn exec_in_same_process_keeps_mask() {
    if !is_alone("sys::signals::tests::children::exec_in_same_process_keeps_mask") {
        return;
    }
    let (mut local, other) = std::io::pipe().expect("a pipe");
    let mut expected = 0;
    let own = with_blocked(&[], || {
        let signals = take_signals();
        expected = mask("SigBlk");
        let status_code = crate::sys::staging::in_forked_child(|| {
            send(signals.signal());
            let mut command = Command::new("cat");
            command.arg("/proc/self/status").stdout(other.try_clone().expect("a copy"));
            let error = unblock_in_child(&mut command).exec();
            error.raw_os_error().unwrap_or(100)
        });
        assert_eq!(status_code.expect("the child exits"), 0);
        signals.signal()
    });
    drop(other);
    let mut status = String::new();
    std::io::Read::read_to_string(&mut local, &mut status).expect("the output of cat");
    assert_eq!(mask_in(&status, "SigBlk"), expected);
    assert_eq!(mask_in(&status, "SigPnd"), bits(&[own]), "pending signals stay pending");
}
