//! epoll_pwait2(2), and epoll_wait(2) for a look, or where the kernel lacks the other (before 5.11)
//! or a sandbox refuses it.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use libc::epoll_event;

/// Set at the first `ENOSYS`, or `EPERM`, which is what older container sandboxes answer for calls
/// they have not heard of. Kernels and filters do not change their mind.
static LACKS_PWAIT2: AtomicBool = AtomicBool::new(false);

/// Waits for events and puts them at the front of `events`; gives their number. `None` waits
/// without limit. Where only milliseconds are to be had the timeout is rounded up and cut to
/// `i32::MAX`: the wait may then end before a very long timeout, never before a short one.
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // For a look milliseconds are enough, and that call has no timespec to copy.
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
    // SAFETY: the kernel writes at most `length` elements, which is no more than the slice has.
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

/// By its number: the C libraries have the function only since glibc 2.35, and musl has not.
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
    // SAFETY: the kernel writes at most `length` elements, no more than the slice has; the timespec
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
    fn milliseconds_round_up_and_never_become_endless() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1_000_001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), libc::c_int::MAX);
    }
}
