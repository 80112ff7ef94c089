//! File descriptor tables: which threads share one, and how a descriptor gets to another.
//!
//! The threads of a process share a table until one of them copies it (unshare(2), `CLONE_FILES`).
//! Afterwards a descriptor may mean another file there.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadId(libc::pid_t);

/// The relation between the tables of two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    /// The tables are separate, or the other thread has ended.
    Separate,
    /// kcmp(2) is missing, or forbidden by a sandbox.
    Unknown,
}

/// The types of kcmp(2) (`linux/kcmp.h`), which the libc crate lacks.
const KCMP_FILE: libc::c_int = 0;
const KCMP_FILES: libc::c_int = 2;
/// The flag of pidfd_open(2), since Linux 6.9; the libc crate lacks it for some C libraries.
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;

/// The directory of the calling thread's descriptors in procfs. `/proc/self/fd` has those of the
/// first thread of the process.
pub(super) const THREAD_FDS: &CStr = c"/proc/thread-self/fd";

/// Returns the path in procfs of a descriptor of the calling thread.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> CString {
    let name = fd.as_raw_fd().to_string();
    let path = [THREAD_FDS.to_bytes(), b"/", name.as_bytes()].concat();
    CString::new(path).unwrap_or_default()
}

impl ThreadId {
    pub(crate) fn current() -> Self {
        // SAFETY: gettid has no arguments and always succeeds.
        ThreadId(unsafe { libc::gettid() })
    }

    /// Compares the tables of this thread and the calling one. A table that is shared now has been
    /// shared since the younger thread was started. Async-signal-safe.
    pub(crate) fn shares_fd_table(self) -> Sharing {
        let me = ThreadId::current();
        if self == me {
            return Sharing::Shared;
        }
        match self.compare(me, KCMP_FILES, 0) {
            Ok(true) => Sharing::Shared,
            Ok(false) => Sharing::Separate,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Sharing::Separate,
            Err(_) => Sharing::Unknown,
        }
    }

    /// Returns true if kcmp(2) finds the two threads' tables, or their files under `fd`, equal.
    fn compare(self, other: ThreadId, what: libc::c_int, fd: RawFd) -> io::Result<bool> {
        // SAFETY: only integers are passed.
        match unsafe { libc::syscall(libc::SYS_kcmp, self.0, other.0, what, fd, fd) } {
            -1 => Err(io::Error::last_os_error()),
            order => Ok(order == 0),
        }
    }

    /// Duplicates a descriptor of this thread into the table of the calling one, close-on-exec
    /// (pidfd_getfd(2)). This thread must keep `fd` open meanwhile. Async-signal-safe.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the thread has ended; `EINVAL` or `ENOENT` before Linux 6.9, except for the first
    /// thread of the process; `ENOSYS` and `EPERM` in sandboxes; `EMFILE`, `ENFILE`.
    pub(crate) fn duplicate(self, fd: RawFd) -> io::Result<OwnedFd> {
        let thread = match new_fd(libc::SYS_pidfd_open, [self.0, PIDFD_THREAD, 0]) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                new_fd(libc::SYS_pidfd_open, [self.0, 0, 0])?
            }
            opened => opened?,
        };
        new_fd(libc::SYS_pidfd_getfd, [thread.as_raw_fd(), fd, 0])
    }
}

/// Makes a call that takes integers and returns a new descriptor.
fn new_fd(call: libc::c_long, [a, b, c]: [libc::c_int; 3]) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open and pidfd_getfd touch no memory.
    let answer = unsafe { libc::syscall(call, a, b, c) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as RawFd) })
}

/// A descriptor in the table of the thread that made this value, to be fetched by another.
#[derive(Debug)]
pub(crate) struct ForeignFd {
    /// `None` once it was fetched by a thread with the same table.
    fd: Option<OwnedFd>,
    thread: ThreadId,
}

impl ForeignFd {
    /// Wraps `fd`. The calling thread must also drop the value.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        ForeignFd { fd: Some(fd), thread: ThreadId::current() }
    }

    fn has_come_with_the_table(&self, fd: RawFd) -> bool {
        self.thread.compare(ThreadId::current(), KCMP_FILE, fd).unwrap_or(false)
    }

    /// Returns a descriptor of the same file in the table of the calling thread.
    ///
    /// # Errors
    ///
    /// `NotFound` if the descriptor was fetched before; an error that names the cause if the
    /// tables are separate and the descriptor can't be duplicated.
    pub(crate) fn fetch(&mut self) -> io::Result<OwnedFd> {
        let Some(opened) = &self.fd else { return Err(fetched_before()) };
        let fd = opened.as_raw_fd();
        match self.thread.shares_fd_table() {
            // Moved, not duplicated, which might exceed `RLIMIT_NOFILE`.
            Sharing::Shared => self.fd.take().ok_or_else(fetched_before),
            // The table was copied after the file was opened.
            Sharing::Separate if self.has_come_with_the_table(fd) => {
                // SAFETY: the descriptor was copied with the table, and nothing owns it here.
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            }
            Sharing::Separate => self.thread.duplicate(fd).map_err(|error| {
                let cause = "the file was opened in the descriptor table that this thread has left \
                             by unshare(2), and can't be fetched from there";
                io::Error::new(error.kind(), format!("{cause}: {error}"))
            }),
            // Where a sandbox forbids both, assume that the table is still shared.
            Sharing::Unknown => self.thread.duplicate(fd).or_else(|_| opened.try_clone()),
        }
    }
}

fn fetched_before() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the opened file was fetched before")
}

#[cfg(test)]
mod tests;
