//! The only module with `unsafe`: system calls that nix lacks, and file descriptors that are kept
//! together with their owner.
//!
//! The modules here know nothing else of the crate. Each raw call, and why it is raw:
//!
//! | call | why not nix |
//! |---|---|
//! | `epoll_pwait2` | not wrapped; `epoll_wait` can't wait less than a millisecond |
//! | `ppoll`, `poll` | no `POLLRDHUP`, no array that is reused by each call |
//! | `pselect6` | wrapped up to descriptor 1,023 only |
//! | `fcntl(F_GETFL)` | wrapped, behind a large feature (`fs`) |
//! | `fcntl(F_SETOWN_EX, F_SETSIG, O_ASYNC)` | only the flag is wrapped |
//! | `recv`, `send`, `recvmsg`, `sendmsg`, `accept4`, `connect`, `shutdown`, `splice` | wrapped for
//! borrowed slices only, behind a feature, and without some of the flags |
//! | `preadv2`, `pwritev2`, `write`, `pwrite` | wrapped without flags, or not at all |
//! | `openat`, `fsync`, `fdatasync` | wrapped, behind a large feature (`fs`) |
//! | `openat2`, `statx`, `statmount` | the same feature, and no `RESOLVE_CACHED`; not wrapped |
//! | `mmap`, `munmap`, `io_uring_register` for provided buffers | the crate io-uring leaves the
//! memory to its user |
//! | `sigpending`, `sigtimedwait` | nix has no wait with a timeout, and no real-time signals |
//! | `pthread_sigmask`, `sigaction`, `signalfd`, `read` | nix has no real-time signals, and reads
//! one signal a call |
//! | `fstat`, `fstatfs`, `getsockopt`, `getpeername`, `getrlimit` | wrapped, behind large features
//! |
//! | `io_uring_enter`, the submission queue | the crate io-uring leaves to its user what SQEs point
//! to |
//! | `mmap`, `madvise(MADV_WIPEONFORK)` | the advice is not wrapped |
//! | `gettid`, `kcmp`, `pidfd_open`, `pidfd_getfd` | not wrapped, or not for threads |
//! | `unshare`, `fork`, `tgkill`, `mmap` | for the conformance suite alone; unsafe in nix, or absent |

pub(crate) mod buf;
mod description;
pub(crate) mod epoll;
pub(crate) mod fd_table;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod io_call;
pub(crate) mod io_mode;
pub(crate) mod mount;
pub(crate) mod own_fd;
pub(crate) mod owner;
pub(crate) mod poll;
pub(crate) mod pool;
mod raised;
pub(crate) mod ring;
pub(crate) mod select;
pub(crate) mod signals;
#[cfg(feature = "conformance")]
pub(crate) mod staging;
mod vectors;

use std::io;
use std::time::Duration;

/// Linux transfers at most this many bytes in one call; a CQE's result has 32 bits.
const MAX_TRANSFER: usize = 0x7fff_f000;

/// Converts the result of a system call that returns -1 on failure.
fn checked(answer: libc::c_int) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Converts a duration, clamped to the range of `time_t` (68 years where it has 32 bits).
fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos() as libc::c_long,
    }
}
