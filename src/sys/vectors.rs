//! Reads and writes of several buffers, with the flags that only those calls take.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// Bytes for preadv2(2) and pwritev2(2): where, and where in the file, if not at its position.
pub(super) struct Vectors<'a> {
    parts: &'a [libc::iovec],
    offset: Option<u64>,
}

impl<'a> Vectors<'a> {
    pub(super) fn of(parts: &'a [libc::iovec], offset: Option<u64>) -> Self {
        Vectors { parts, offset }
    }

    /// Whether it is what write(2) of no bytes is asked.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.parts, [part] if part.iov_len == 0)
    }

    /// # Safety
    ///
    /// The parts have to be memory that may be written to.
    pub(super) unsafe fn read(&self, number: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { self.call(libc::SYS_preadv2, number, flags) }
    }

    /// # Safety
    ///
    /// The parts have to be memory that may be read.
    pub(super) unsafe fn write(&self, number: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { self.call(libc::SYS_pwritev2, number, flags) }
    }

    /// (Not every C library has them.)
    ///
    /// # Safety
    ///
    /// The parts have to be memory that the call may use.
    unsafe fn call(
        &self,
        call: libc::c_long,
        number: RawFd,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        // -1 is the file's position. The kernel takes an offset in two halves.
        let offset = self.offset.map_or(-1, |offset| offset as i64);
        let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
        let (start, count) = (self.parts.as_ptr(), self.parts.len() as libc::c_ulong);
        let (number, flags) = (libc::c_long::from(number), libc::c_long::from(flags));
        // SAFETY: the caller vouches for the parts, which outlive the call.
        let answer = unsafe { libc::syscall(call, number, start, count, low, high, flags) };
        counted(answer as isize)
    }
}

pub(super) fn counted(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
