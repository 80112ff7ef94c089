//! A second open file description of the same file, so that flags of the poller's are not those of
//! the program, nor of the processes that share its description.
#![allow(unsafe_code)]

use super::fd_table::path_of;
use super::file::FileType;
use super::mount::CachedStat;
use super::own_fd::above_stdio;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The flags of a description that the second one has too.
const KEPT: libc::c_int = libc::O_ACCMODE | libc::O_DIRECT;

/// Opens the file again, not to block, if that has no side effect: pipes, FIFOs and terminals. To
/// open the master of a pseudo-terminal makes another one, and other devices get a new state.
/// Returns `None` of other files, and where it fails: the file may be another user's (`EACCES`), or
/// opened exclusively (`EBUSY`), a FIFO may lack a reader (`ENXIO`), and descriptors may be short.
pub(super) fn reopen(fd: BorrowedFd<'_>, shape: FileType, flags: libc::c_int) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    let may_open = match shape {
        FileType::Pipe => true,
        FileType::Named => is_terminal_line(fd.as_raw_fd()),
        _ => false,
    };
    if !may_open {
        return None;
    }
    let path = path_of(fd);
    let flags = flags & KEPT | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = above_stdio(|| {
        // SAFETY: the name ends with a zero, and outlives the call.
        let number = super::checked(unsafe { libc::open(path.as_ptr(), flags) })?;
        // SAFETY: the call has just made the number, and nothing else knows it.
        Ok::<_, io::Error>(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
    });
    let opened = opened.ok()?;
    // What is mounted there need not be procfs.
    let of = |fd| CachedStat::of(fd).ok()?.identity;
    let identity = of(fd)?;
    (of(opened.as_fd()) == Some(identity)).then_some(opened)
}

/// Returns true if it is a terminal, and not the master of a pseudo-terminal.
fn is_terminal_line(number: RawFd) -> bool {
    let mut index: libc::c_int = 0;
    // SAFETY: no memory is passed.
    let is_terminal = unsafe { libc::isatty(number) } == 1;
    // SAFETY: there is room for the answer.
    is_terminal && unsafe { libc::ioctl(number, libc::TIOCGPTN, &raw mut index) } != 0
}
