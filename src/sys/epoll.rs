//! epoll_pwait2(2); epoll_wait(2) for polls, before Linux 5.11, and in sandboxes that refuse the
//! former.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use libc::epoll_event;

/// Set by the first `ENOSYS` or `EPERM`, the answer of older container sandboxes to unknown calls.
/// Neither kernel nor filter changes later.
static LACKS_PWAIT2: AtomicBool = AtomicBool::new(false);

/// Waits for events, writes them to the front of `events`, and returns their count. `None` waits
/// without limit. Where only milliseconds are available, the timeout is rounded up and clamped to
/// `i32::MAX`: only a wait of weeks may end early.
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // A poll needs no nanoseconds, and epoll_wait(2) has no timespec to copy.
    let is_look = timeout.is_some_and(|timeout| timeout.is_zero());
    if !is_look && !LACKS_PWAIT2.load(Ordering::Relaxed) {
        let answer = pwait2(epoll, events, timeout);
        match answer {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                LACKS_PWAIT2.store(true, Ordering::Relaxed);
            }
            _ => return answer,
        }
    }
    let length = length(events);
    let (epoll, milliseconds) = (epoll.as_raw_fd(), milliseconds(timeout));
    // SAFETY: the kernel writes at most `length` elements, the length of the slice.
    super::checked(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), length, milliseconds) })
}

/// `struct __kernel_timespec`: 64 bits on every architecture.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The layout in `linux/time_types.h`.
const _: () = {
    assert!(size_of::<KernelTimespec>() == 16);
    assert!(offset_of!(KernelTimespec, seconds) == 0);
    assert!(offset_of!(KernelTimespec, nanoseconds) == 8);
};

/// Makes the raw call: glibc has the function since 2.35, musl has not.
fn pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| KernelTimespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i64::from(timeout.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (epoll, length) = (epoll.as_raw_fd(), length(events));
    let (no_mask, mask_size) = (ptr::null::<libc::sigset_t>(), 0_usize);
    // SAFETY: the kernel writes at most `length` elements, the length of the slice; the timespec
    // outlives the call; a null signal mask means none.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll,
            events.as_mut_ptr(),
            length,
            timeout,
            no_mask,
            mask_size,
        )
    };
    super::checked(answer as libc::c_int)
}

fn length(events: &[epoll_event]) -> libc::c_int {
    libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX)
}

fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    let Some(timeout) = timeout else { return -1 };
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(rounded_up).unwrap_or(libc::c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_in_milliseconds_rounds_up_and_saturates() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1_000_001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), libc::c_int::MAX);
    }
}
