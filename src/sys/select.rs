//! pselect6(2) over bitmaps of any length.
//!
//! The raw call, because the C library's `fd_set` ends at 1,023 and POSIX lets select(2) refuse
//! more. The kernel has no such limit: it reads as many words as `nfds` needs.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::ptr;
use std::time::Duration;

/// A word of a bitmap: descriptor `n` is bit `n % BITS` of word `n / BITS`.
pub(crate) type Word = libc::c_ulong;

/// The number of descriptors in a word.
pub(crate) const BITS: usize = Word::BITS as usize;

/// `struct timespec` as this call takes it: two machine words.
#[repr(C)]
struct Timespec {
    seconds: libc::c_long,
    nanoseconds: libc::c_long,
}

/// The layout of `__kernel_old_timespec` in `linux/time_types.h`.
const _: () = {
    assert!(size_of::<Timespec>() == 2 * size_of::<libc::c_long>());
    assert!(align_of::<Timespec>() == align_of::<libc::c_long>());
    assert!(offset_of!(Timespec, seconds) == 0);
    assert!(offset_of!(Timespec, nanoseconds) == size_of::<libc::c_long>());
};

/// Waits until one of the descriptors below `count` in `sets` (read, write, except) is ready, or
/// `timeout` (`None`: no limit) has passed. Leaves the ready ones set, and returns their count. An
/// empty slice is a null set. An error leaves the sets unchanged.
///
/// # Panics
///
/// If a set that is not empty is shorter than `count` needs.
pub(crate) fn wait(
    count: usize,
    sets: [&mut [Word]; 3],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let words = count.div_ceil(BITS);
    let [read, write, except] = sets.map(|set| {
        assert!(set.is_empty() || set.len() >= words, "a set is shorter than the count");
        if set.is_empty() { ptr::null_mut() } else { set.as_mut_ptr() }
    });
    let mut timeout = timeout.map(|timeout| Timespec {
        seconds: libc::c_long::try_from(timeout.as_secs()).unwrap_or(libc::c_long::MAX),
        nanoseconds: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let no_mask = ptr::null_mut::<libc::c_void>();
    let count = count as libc::c_long;
    // SAFETY: the kernel reads and writes `words` words of each set that is not null. It writes
    // the time left into the timespec, a local. A null signal mask means none.
    let answer =
        unsafe { libc::syscall(libc::SYS_pselect6, count, read, write, except, timeout, no_mask) };
    super::checked(answer as libc::c_int)
}

#[cfg(test)]
mod tests;
