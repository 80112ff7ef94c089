//! File numbers: held beside their owner, and checked.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// A file number together with the handle it was borrowed from.
pub(crate) struct Held {
    owner: Arc<dyn AsFd + Send + Sync>,
    number: RawFd,
}

impl Held {
    /// Asks `owner` for its file, this once: user code that panics or answers differently later
    /// can't come between the poller's steps.
    pub(crate) fn new(owner: Arc<dyn AsFd + Send + Sync>) -> Self {
        let number = owner.as_fd().as_raw_fd();
        Held { owner, number }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `number` was borrowed from `*self.owner`, which this value has kept alive and in
        // place ever since, so that borrow could have lasted until now.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.number
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = Arc::strong_count(&self.owner);
        f.debug_struct("Held").field("number", &self.number).field("handles", &handles).finish()
    }
}

/// Refuses with `EBADF` a number that is not open, or open with `O_PATH` and thus for naming only.
/// epoll_ctl(2) refuses both by itself; poll(2) and select(2) would report them as ready for ever.
pub(crate) fn check_pollable(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument and touches no memory.
    let flags = super::checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_PATH as usize == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }
}
