//! What programs inherit that are started from a poller's thread, or in its place.

use super::*;
use crate::testing::making_children;

/// What `cat` says of itself when it is started from this thread.
fn childs_mask(prepare: impl FnOnce(&mut Command) -> &mut Command) -> u64 {
    let mut command = Command::new("cat");
    prepare(command.arg("/proc/self/status"));
    let output = {
        let _making = making_children();
        command.output().expect("cat is everywhere")
    };
    mask_in(&String::from_utf8_lossy(&output.stdout), "SigBlk")
}

/// Alone, because what was ever blocked in a process is remembered in it.
#[test]
fn a_prepared_child_has_none_of_them_blocked() {
    if !is_alone("sys::signals::tests::children::a_prepared_child_has_none_of_them_blocked") {
        return;
    }
    let last = libc::SIGRTMAX();
    let before = bits(&[libc::SIGUSR1, last, last - 2]);
    with_blocked(&[libc::SIGUSR1, last, last - 2], || {
        assert_eq!(childs_mask(unblock_in_child), before, "nothing was blocked here");
        change_mask(libc::SIG_BLOCK, &[SIGIO]);
        let with_sigio = take();
        assert_eq!(childs_mask(unblock_in_child), before | bits(&[SIGIO]), "it was so before");
        drop(with_sigio);
        change_mask(libc::SIG_UNBLOCK, &[SIGIO]);
        let (first, second) = (take(), take());
        let blocked = mask("SigBlk");
        assert_eq!(blocked, before | bits(&[SIGIO, first.number(), second.number()]));
        assert_eq!(childs_mask(|command| command), blocked, "a mask is inherited");
        assert_eq!(childs_mask(unblock_in_child), before);
        drop(first);
        assert_eq!(childs_mask(unblock_in_child), before);
        // A thread inherits it too, and may outlive the pollers.
        std::thread::scope(|scope| {
            let heir = scope.spawn(|| (childs_mask(unblock_in_child), mask("SigBlk")));
            let due = (before, before | bits(&[SIGIO, second.number()]));
            assert_eq!(heir.join().expect("it does not panic"), due);
        });
    });
}

/// exec(2) in the same process inherits what is queued to it, which would end it.
#[cfg(feature = "conformance")]
#[test]
fn a_process_that_replaces_itself_keeps_its_mask() {
    if !is_alone("sys::signals::tests::children::a_process_that_replaces_itself_keeps_its_mask") {
        return;
    }
    let (mut here, there) = std::io::pipe().expect("a pipe");
    let mut due = 0;
    let own = with_blocked(&[], || {
        let signals = take();
        due = mask("SigBlk");
        let said = crate::sys::staging::in_forked_child(|| {
            send(signals.number());
            let mut command = Command::new("cat");
            command.arg("/proc/self/status").stdout(there.try_clone().expect("a copy"));
            let error = unblock_in_child(&mut command).exec();
            error.raw_os_error().unwrap_or(100)
        });
        assert_eq!(said.expect("it ends by itself"), 0);
        signals.number()
    });
    drop(there);
    let mut status = String::new();
    std::io::Read::read_to_string(&mut here, &mut status).expect("what cat has said");
    assert_eq!(mask_in(&status, "SigBlk"), due);
    assert_eq!(mask_in(&status, "SigPnd"), bits(&[own]), "and what is queued stays queued");
}
