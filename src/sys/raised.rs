//! Calls that raise a signal on failure, and have no flag against it: `SIGPIPE`, `SIGXFSZ`.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Makes a write that may raise `SIGPIPE` on this thread, and discards the signal.
pub(super) fn without_sigpipe(write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let broke = |written: &io::Result<usize>| {
        let error = written.as_ref().err().and_then(io::Error::raw_os_error);
        error == Some(libc::EPIPE)
    };
    Block::of(libc::SIGPIPE)?.run(write, broke)
}

/// Makes a call that may write to regular files on this thread. A write beyond `RLIMIT_FSIZE`
/// raises `SIGXFSZ`, which is discarded.
///
/// # Errors
///
/// Errors of the call, and of pthread_sigmask(3).
pub(super) fn without_sigxfsz<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // There is rarely a limit, and getrlimit(2) is cheaper than blocking a signal.
    match file_size_limit() {
        libc::RLIM_INFINITY => call(),
        // io_uring_enter(2) succeeds although a write failed.
        _ => Block::of(libc::SIGXFSZ)?.run(call, |_| true),
    }
}

fn file_size_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: there is room for the answer. The only failure is an unknown resource.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Blocks a signal on this thread until it is dropped.
#[derive(Debug)]
struct Block {
    signal: libc::c_int,
    /// The signal was already blocked.
    was_blocked: bool,
}

impl Block {
    /// Blocks `signal`.
    ///
    /// # Errors
    ///
    /// Errors of pthread_sigmask(3).
    fn of(signal: libc::c_int) -> io::Result<Self> {
        let set = set_of(signal)?;
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both are sets, one to read and one to write.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) };
        if answer != 0 {
            return Err(io::Error::from_raw_os_error(answer));
        }
        // SAFETY: the call that succeeded has written the set.
        let was_blocked = unsafe { libc::sigismember(before.as_ptr(), signal) == 1 };
        Ok(Block { signal, was_blocked })
    }

    /// Makes a call that may raise the signal, and discards the signal if it may have.
    fn run<T>(
        &self,
        call: impl FnOnce() -> io::Result<T>,
        may_have_raised: impl FnOnce(&io::Result<T>) -> bool,
    ) -> io::Result<T> {
        // A signal that was already pending is the program's. Only a blocked one can be.
        let was_pending = self.was_blocked && is_pending(self.signal);
        let answer = call();
        if may_have_raised(&answer) && !was_pending {
            let set = set_of(self.signal)?;
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the call reads a set and a time, and writes nothing. It fails with EAGAIN if
            // the signal was not raised, or is ignored.
            unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &now) };
        }
        answer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.was_blocked {
            return;
        }
        if let Ok(set) = set_of(self.signal) {
            // SAFETY: the call reads a set, and writes nothing.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) };
        }
    }
}

fn set_of(signal: libc::c_int) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for the answer.
    super::checked(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: sigemptyset has initialised it.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: the set is initialised.
    super::checked(unsafe { libc::sigaddset(&mut set, signal) })?;
    Ok(set)
}

pub(super) fn is_pending(signal: libc::c_int) -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for the answer.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the successful call has initialised the set.
    unsafe { libc::sigismember(set.as_ptr(), signal) == 1 }
}

#[cfg(test)]
mod tests;
