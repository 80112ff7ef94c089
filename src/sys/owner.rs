//! The signal-driven I/O settings of a file: signal, recipient, and `O_ASYNC`.
//!
//! They belong to the open file description: duplicates and forked processes share them.
#![allow(unsafe_code)]

use libc::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::RawFd;

// The libc crate has none of these for every C library.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;
const F_SETOWN_EX: c_int = 15;
const F_GETOWN_EX: c_int = 16;
const F_OWNER_TID: c_int = 0;

/// The recipient of a file's signals: `struct f_owner_ex`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    kind: c_int,
    id: libc::pid_t,
}

/// The layout in `asm-generic/fcntl.h`, where `pid` is a `__kernel_pid_t`, an int.
const _: () = {
    assert!(size_of::<Owner>() == 8 && align_of::<Owner>() == 4);
    assert!(offset_of!(Owner, kind) == 0);
    assert!(offset_of!(Owner, id) == 4);
};

impl Owner {
    /// Returns an owner that is this thread alone. A signal to the process could reach a thread
    /// that does not block it, and end the process.
    pub(crate) fn this_thread() -> Self {
        // SAFETY: gettid has no arguments and always succeeds.
        Owner { kind: F_OWNER_TID, id: unsafe { libc::gettid() } }
    }

    /// Returns true for this process, or a process group of the same ID.
    pub(crate) fn is_this_process(self) -> bool {
        self.kind != F_OWNER_TID && self.id == std::process::id() as libc::pid_t
    }

    /// Returns true if no owner is set.
    pub(crate) fn is_unset(self) -> bool {
        self.id == 0
    }

    /// Returns the owner of a file.
    pub(crate) fn of(fd: RawFd) -> io::Result<Self> {
        let mut owner = Owner { kind: 0, id: 0 };
        // SAFETY: the kernel writes one f_owner_ex.
        super::checked(unsafe { libc::fcntl(fd, F_GETOWN_EX, &mut owner) })?;
        Ok(owner)
    }

    /// Makes this the owner of a file.
    pub(crate) fn set(self, fd: RawFd) -> io::Result<()> {
        // SAFETY: the kernel reads one f_owner_ex.
        super::checked(unsafe { libc::fcntl(fd, F_SETOWN_EX, &self) })?;
        Ok(())
    }
}

/// Returns the signal that a file sends; 0 is `SIGIO`, without the descriptor.
pub(crate) fn signal_of(fd: RawFd) -> io::Result<c_int> {
    // SAFETY: F_GETSIG takes no argument and touches no memory.
    super::checked(unsafe { libc::fcntl(fd, F_GETSIG) }).map(|signal| signal as c_int)
}

/// Sets the signal that a file sends.
pub(crate) fn set_signal(fd: RawFd, signal: c_int) -> io::Result<()> {
    // SAFETY: F_SETSIG takes an integer and touches no memory.
    super::checked(unsafe { libc::fcntl(fd, F_SETSIG, signal) })?;
    Ok(())
}

/// Returns true if a file sends signals.
pub(crate) fn is_async(fd: RawFd) -> io::Result<bool> {
    Ok(flags_of(fd)? & libc::O_ASYNC != 0)
}

/// Sets or clears `O_ASYNC`. Files that can't send signals accept it, but [`is_async`] still
/// returns false. After it was cleared no more signals are sent.
pub(crate) fn set_async(fd: RawFd, on: bool) -> io::Result<()> {
    let flags = flags_of(fd)?;
    let flags = if on { flags | libc::O_ASYNC } else { flags & !libc::O_ASYNC };
    // SAFETY: F_SETFL takes an integer and touches no memory.
    super::checked(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) })?;
    Ok(())
}

fn flags_of(fd: RawFd) -> io::Result<c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    super::checked(unsafe { libc::fcntl(fd, libc::F_GETFL) }).map(|flags| flags as c_int)
}

#[cfg(test)]
mod tests;
