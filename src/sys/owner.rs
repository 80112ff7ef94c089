//! Signal-driven I/O as a file is told of it: whom to send which signal, and whether.
//!
//! All of it belongs to the open file description: duplicates and forked processes share it.
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

/// Who gets a file's signals: `struct f_owner_ex`.
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
    /// This thread alone. Signals to a process would reach any thread that does not block them, and
    /// end the process.
    pub(crate) fn this_thread() -> Self {
        // SAFETY: gettid has no arguments and always succeeds.
        Owner { kind: F_OWNER_TID, id: unsafe { libc::gettid() } }
    }

    /// Whether it is this process, or a group of processes.
    pub(crate) fn is_this_process(self) -> bool {
        self.kind != F_OWNER_TID && self.id == std::process::id() as libc::pid_t
    }

    /// Whether nobody is the owner.
    pub(crate) fn is_nobody(self) -> bool {
        self.id == 0
    }

    /// The owner of a file.
    pub(crate) fn of(number: RawFd) -> io::Result<Self> {
        let mut owner = Owner { kind: 0, id: 0 };
        // SAFETY: the kernel writes one f_owner_ex.
        super::checked(unsafe { libc::fcntl(number, F_GETOWN_EX, &mut owner) })?;
        Ok(owner)
    }

    /// Makes this the owner of a file.
    pub(crate) fn set(self, number: RawFd) -> io::Result<()> {
        // SAFETY: the kernel reads one f_owner_ex.
        super::checked(unsafe { libc::fcntl(number, F_SETOWN_EX, &self) })?;
        Ok(())
    }
}

/// The signal that a file has sent; 0 is `SIGIO`, without the number of the file.
pub(crate) fn signal_of(number: RawFd) -> io::Result<c_int> {
    // SAFETY: F_GETSIG takes no argument and touches no memory.
    super::checked(unsafe { libc::fcntl(number, F_GETSIG) }).map(|signal| signal as c_int)
}

/// Chooses the signal that a file has sent.
pub(crate) fn set_signal(number: RawFd, signal: c_int) -> io::Result<()> {
    // SAFETY: F_SETSIG takes an integer and touches no memory.
    super::checked(unsafe { libc::fcntl(number, F_SETSIG, signal) })?;
    Ok(())
}

/// Whether a file has signals sent.
pub(crate) fn is_async(number: RawFd) -> io::Result<bool> {
    Ok(flags_of(number)? & libc::O_ASYNC != 0)
}

/// Has a file send signals, or send none. Files that can't send any accept it, and
/// [`is_async`] says no all the same. When it returns after switching off, no more signal will
/// be sent.
pub(crate) fn set_async(number: RawFd, on: bool) -> io::Result<()> {
    let flags = flags_of(number)?;
    let flags = if on { flags | libc::O_ASYNC } else { flags & !libc::O_ASYNC };
    // SAFETY: F_SETFL takes an integer and touches no memory.
    super::checked(unsafe { libc::fcntl(number, libc::F_SETFL, flags) })?;
    Ok(())
}

fn flags_of(number: RawFd) -> io::Result<c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    super::checked(unsafe { libc::fcntl(number, libc::F_GETFL) }).map(|flags| flags as c_int)
}

#[cfg(test)]
mod tests;
