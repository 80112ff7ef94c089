//! What the conformance suite needs to set a process up: children made by fork(2), and signal
//! handlers.
#![allow(unsafe_code)]

use std::io;
use std::panic::{self, AssertUnwindSafe};

/// Runs `child` in a forked copy of this process, and gives its exit status: what `child` said, or
/// 101 if it panicked. The caller's process must be its own: no thread but the caller's may be at
/// work in it, because the copy has only that one.
pub(crate) fn in_forked_child(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: no other thread holds a lock that the child could wait for (the caller's promise).
    let id = unsafe { libc::fork() };
    match id {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = panic::catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: _exit ends the process without running anything of the parent's.
            unsafe { libc::_exit(status) }
        }
        id => exit_status(id),
    }
}

fn exit_status(id: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int.
    super::checked(unsafe { libc::waitpid(id, &mut status, 0) })?;
    if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        Err(io::Error::other(format!("the child was killed by signal {}", libc::WTERMSIG(status))))
    }
}

/// Installs `handler`, which must be async-signal-safe, with `SA_RESTART`: waits fail with `EINTR`
/// all the same (signal(7)).
pub(crate) fn on_signal(signal: i32, handler: extern "C" fn(i32)) -> io::Result<()> {
    // SAFETY: sigaction is plain data, and all zeroes is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the struct is initialised; the handler is a function that lives for ever.
    super::checked(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

/// A thread of this process, to which signals can be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    process: i32,
    thread: i32,
}

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: gettid has no arguments and always succeeds.
        let thread = unsafe { libc::gettid() };
        Thread { process: std::process::id() as i32, thread }
    }

    pub(crate) fn id(self) -> i32 {
        self.thread
    }

    /// Sends a signal to this thread alone. If the thread has ended, nothing happens.
    pub(crate) fn signal(self, signal: i32) {
        // SAFETY: tgkill touches no memory, and reaches only threads of this process.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal) };
    }
}

/// dup2(2) onto a number that nothing in this process may be using.
pub(crate) fn duplicate_onto(
    fd: std::os::fd::BorrowedFd<'_>,
    number: i32,
) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: dup3 touches no memory; that the number is free is the caller's promise.
    super::checked(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    // SAFETY: dup3 has just made this number, and nobody else knows it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(number) })
}

/// A number that is not open, for as long as the process opens nothing.
pub(crate) fn closed_number(number: i32) -> std::os::fd::BorrowedFd<'static> {
    assert_ne!(number, -1, "-1 is no number for a BorrowedFd to have");
    // SAFETY: not sound in general; it is the point of the cases that use it, and the number is
    // only ever passed to system calls.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}
