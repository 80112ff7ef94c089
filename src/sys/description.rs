//! A second open file description of a file. Flags that the poller sets on it affect neither the
//! program nor processes that share its description.
#![allow(unsafe_code)]

use super::fd_table::path_of;
use super::file::FileType;
use super::mount::CachedStat;
use super::own_fd::above_stdio;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The flags that the second description inherits.
const INHERITED_FLAGS: libc::c_int = libc::O_ACCMODE | libc::O_DIRECT;

/// Opens the file again with `O_NONBLOCK`, if opening has no side effect: pipes, FIFOs and
/// terminals. Opening the master of a pseudo-terminal makes another one; other devices get a new
/// state.
/// Returns `None` for other files, and on failure: `EACCES` (another user's file), `EBUSY` (opened
/// exclusively), `ENXIO` (a FIFO without a reader), or no free descriptors.
pub(super) fn reopen(
    fd: BorrowedFd<'_>,
    file_type: FileType,
    flags: libc::c_int,
) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    let may_open = match file_type {
        FileType::Pipe => true,
        FileType::Named => is_terminal_line(fd.as_raw_fd()),
        _ => false,
    };
    if !may_open {
        return None;
    }
    let path = path_of(fd);
    let flags = flags & INHERITED_FLAGS | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = above_stdio(|| {
        // SAFETY: the path ends with a zero and outlives the call.
        let raw_fd = super::checked(unsafe { libc::open(path.as_ptr(), flags) })?;
        // SAFETY: the call has just made the descriptor, and nothing else owns it.
        Ok::<_, io::Error>(unsafe { OwnedFd::from_raw_fd(raw_fd as RawFd) })
    });
    let opened = opened.ok()?;
    // Another file system than procfs may be mounted there.
    let of = |fd| CachedStat::of(fd).ok()?.identity;
    let identity = of(fd)?;
    (of(opened.as_fd()) == Some(identity)).then_some(opened)
}

/// Returns true for a terminal that is not the master of a pseudo-terminal.
fn is_terminal_line(raw_fd: RawFd) -> bool {
    let mut index: libc::c_int = 0;
    // SAFETY: no memory is passed.
    let is_terminal = unsafe { libc::isatty(raw_fd) } == 1;
    // SAFETY: `index` has room for the answer.
    is_terminal && unsafe { libc::ioctl(raw_fd, libc::TIOCGPTN, &raw mut index) } != 0
}
