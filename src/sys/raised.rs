//! Calls that raise a signal when they fail, and have no flag against it: `SIGPIPE`, `SIGXFSZ`.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Makes a write that may raise `SIGPIPE` on this thread, and takes the signal away if it did.
pub(super) fn without_sigpipe(write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let broke = |written: &io::Result<usize>| {
        let error = written.as_ref().err().and_then(io::Error::raw_os_error);
        error == Some(libc::EPIPE)
    };
    Block::of(libc::SIGPIPE)?.run(write, broke)
}

/// Makes a call that may write to regular files on this thread. Beyond `RLIMIT_FSIZE` such a write
/// raises `SIGXFSZ`, which is taken away.
///
/// # Errors
///
/// Those of the call, and of pthread_sigmask(3).
pub(super) fn without_sigxfsz<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // Nearly always there is no limit, and to ask is cheaper than to block a signal.
    match file_size_limit() {
        libc::RLIM_INFINITY => call(),
        // A ring tells of the failure elsewhere.
        _ => Block::of(libc::SIGXFSZ)?.run(call, |_| true),
    }
}

fn file_size_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: there is room for the answer. The only failure is an unknown resource.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// A signal is blocked on this thread until this is dropped.
#[derive(Debug)]
struct Block {
    signal: libc::c_int,
    /// The signal was blocked before.
    was_blocked: bool,
}

impl Block {
    /// # Errors
    ///
    /// What pthread_sigmask(3) says.
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

    /// Makes a call that may raise the signal, and takes the signal away if it may have.
    fn run<T>(
        &self,
        call: impl FnOnce() -> io::Result<T>,
        may_have_raised: impl FnOnce(&io::Result<T>) -> bool,
    ) -> io::Result<T> {
        // A signal that is pending already is not ours. None can be if it was not blocked.
        let was_pending = self.was_blocked && is_pending(self.signal);
        let answer = call();
        if may_have_raised(&answer) && !was_pending {
            let set = set_of(self.signal)?;
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a set and a time to read, and nowhere to write. It says EAGAIN if the signal
            // was not raised, or is ignored.
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
            // SAFETY: a set to read, and nowhere to write.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) };
        }
    }
}

fn set_of(signal: libc::c_int) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: there is room for a set.
    super::checked(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: the call before has made it a set.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: it is a set.
    super::checked(unsafe { libc::sigaddset(&mut set, signal) })?;
    Ok(set)
}

pub(super) fn is_pending(signal: libc::c_int) -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: there is room for a set.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded and made it a set.
    unsafe { libc::sigismember(set.as_ptr(), signal) == 1 }
}

#[cfg(test)]
mod tests;
