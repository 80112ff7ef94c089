//! Writes by calls that have no flag against `SIGPIPE`.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Runs a write that may raise `SIGPIPE` on this thread, and takes the signal away if it did.
pub(super) fn without_sigpipe(write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    SigpipeBlock::new()?.run(write)
}

/// `SIGPIPE` is blocked on this thread until this is dropped.
#[derive(Debug)]
pub(crate) struct SigpipeBlock {
    /// The signal was blocked before.
    was_blocked: bool,
}

impl SigpipeBlock {
    /// # Errors
    ///
    /// What pthread_sigmask(3) says.
    pub(crate) fn new() -> io::Result<Self> {
        let pipe = set_of(libc::SIGPIPE)?;
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both are sets, one to read and one to write.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, before.as_mut_ptr()) };
        if answer != 0 {
            return Err(io::Error::from_raw_os_error(answer));
        }
        // SAFETY: the call that succeeded has written the set.
        let was_blocked = unsafe { libc::sigismember(before.as_ptr(), libc::SIGPIPE) == 1 };
        Ok(SigpipeBlock { was_blocked })
    }

    /// Runs a write that may raise the signal, and takes the signal away if it did.
    pub(super) fn run(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        // A signal that is pending already is not ours. None can be if it was not blocked.
        let was_pending = self.was_blocked && is_pending(libc::SIGPIPE);
        let written = write();
        let broke = matches!(&written, Err(error) if error.raw_os_error() == Some(libc::EPIPE));
        if broke && !was_pending {
            let pipe = set_of(libc::SIGPIPE)?;
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a set and a time to read, and nowhere to write. It says EAGAIN if the signal
            // is ignored and so was never raised.
            unsafe { libc::sigtimedwait(&pipe, ptr::null_mut(), &now) };
        }
        written
    }
}

impl Drop for SigpipeBlock {
    fn drop(&mut self) {
        if self.was_blocked {
            return;
        }
        if let Ok(pipe) = set_of(libc::SIGPIPE) {
            // SAFETY: a set to read, and nowhere to write.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &pipe, ptr::null_mut()) };
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
