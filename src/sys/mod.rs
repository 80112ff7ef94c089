//! The only room with `unsafe`: system calls that nix lacks, and file numbers whose owner is held
//! beside them.
//!
//! Nothing here knows the rest of the crate. Each raw call, and why it is raw:
//!
//! | call | why not nix |
//! |---|---|
//! | `epoll_pwait2` | not wrapped; `epoll_wait` can't wait less than a millisecond |
//! | `ppoll`, `poll` | no `POLLRDHUP`, no array that lives from call to call |
//! | `pselect6` | wrapped up to number 1,023 only |
//! | `fcntl(F_GETFL)` | wrapped, but a feature (`fs`) with much behind it for one call |
//! | `fcntl(F_SETOWN_EX, F_SETSIG, O_ASYNC)` | not wrapped but for the flag |
//! | `recv`, `send`, `recvmsg`, `sendmsg`, `accept4`, `connect`, `shutdown`, `splice` | into memory and with flags of ours; nix has them for lent slices, behind a feature |
//! | `preadv2`, `pwritev2`, `write`, `pwrite` | wrapped without flags, or not at all |
//! | `openat`, `fsync`, `fdatasync` | wrapped, but a feature (`fs`) with much behind it |
//! | `openat2`, `statx`, `statmount` | the same feature, and no `RESOLVE_CACHED`; not wrapped |
//! | `mmap`, `munmap`, `io_uring_register` for provided buffers | of the crate io-uring, which leaves the memory to us |
//! | `sigpending`, `sigtimedwait` | nix has no wait for a signal that may not come, and no real-time signals |
//! | `pthread_sigmask`, `sigaction`, `signalfd`, `read` | nix has no real-time signals, and reads one at a time |
//! | `fstat`, `fstatfs`, `getsockopt`, `getpeername`, `getrlimit` | wrapped, but features with much behind them for one call each |
//! | `io_uring_enter`, the submission queue | of the crate io-uring, which leaves to us what requests point to |
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

/// Linux moves no more in one call; the result of a completion has 32 bits.
const MOST: usize = 0x7fff_f000;

/// What a system call that answers -1 on failure says.
fn checked(answer: libc::c_int) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// A duration as the C library takes it. What exceeds its range (68 years where `time_t` has 32
/// bits) is cut to it.
fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos() as libc::c_long,
    }
}
