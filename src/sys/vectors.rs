//! Vectored reads and writes, with the flags that only those calls take.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// The arguments of preadv2(2) and pwritev2(2); without an offset, the position of the file.
pub(super) struct Vectors<'a> {
    parts: &'a [libc::iovec],
    offset: Option<u64>,
}

impl<'a> Vectors<'a> {
    pub(super) fn of(parts: &'a [libc::iovec], offset: Option<u64>) -> Self {
        Vectors { parts, offset }
    }

    /// Returns true for the one empty part by which a write of no bytes is described.
    pub(super) fn is_empty_write(&self) -> bool {
        matches!(self.parts, [part] if part.iov_len == 0)
    }

    /// Calls preadv2(2).
    ///
    /// # Safety
    ///
    /// The parts must be valid for writes.
    pub(super) unsafe fn read(&self, fd: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { self.call(libc::SYS_preadv2, fd, flags) }
    }

    /// Calls pwritev2(2).
    ///
    /// # Safety
    ///
    /// The parts must be valid for reads.
    pub(super) unsafe fn write(&self, fd: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { self.call(libc::SYS_pwritev2, fd, flags) }
    }

    /// Makes the raw call, because not every C library has the functions.
    ///
    /// # Safety
    ///
    /// The parts have to be memory that the call may use.
    unsafe fn call(&self, call: libc::c_long, fd: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // -1 is the file's position. The kernel takes an offset in two halves.
        let offset = self.offset.map_or(-1, |offset| offset as i64);
        let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
        let (start, count) = (self.parts.as_ptr(), self.parts.len() as libc::c_ulong);
        let (fd, flags) = (libc::c_long::from(fd), libc::c_long::from(flags));
        // SAFETY: the caller vouches for the parts, which outlive the call.
        let answer = unsafe { libc::syscall(call, fd, start, count, low, high, flags) };
        counted(answer as isize)
    }
}

pub(super) fn counted(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
