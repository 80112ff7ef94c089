//! poll(2), by ppoll(2).
//!
//! Behaviour of the kernel (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** The kernel keeps nothing between calls: every call polls all entries of the array.
//! - **b.** `POLLERR` and `POLLHUP` are reported even if `events` is 0, so a file that is not
//!   watched must leave the array.
//! - **c.** The bits are the present ones: facts, complete for the requested bits.
//! - **d.** A descriptor that is not open, or open with `O_PATH`, does not fail the call but has
//!   `POLLNVAL`. Such descriptors are refused before they enter the array.
//! - **e.** More entries than `RLIMIT_NOFILE` are `EINVAL`, if the limit was lowered after they
//!   were registered.
//! - **f.** ppoll(2) as a raw call would write the time left into the timeout; the C library passes
//!   a copy.

use super::poll_fds::PollFds;
use super::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use crate::key::Slot;
use crate::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The poll selector.
#[derive(Debug)]
pub struct Poll {
    wake: WakeHandle,
    fds: PollFds,
}

/// The entry of the eventfd.
const WAKE: usize = 0;

impl Poll {
    /// # Errors
    ///
    /// The errors of eventfd(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let wake = WakeHandle::new()?;
        let fds = PollFds::new(&[wake.as_fd()]);
        Ok(Poll { wake, fds })
    }
}

impl Selector for Poll {
    fn native(&self) -> Triggers {
        Triggers::LEVEL
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        if !self.fds.is_known(slot) {
            sys::file::check_pollable(fd)?;
        }
        self.fds.put(slot, fd, arm.bits());
        Ok(ArmOutcome::whole(Trigger::Level))
    }

    fn disarm(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.fds.exclude(slot);
    }

    fn remove(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.fds.remove(slot);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        match self.fds.wait(deadline, out) {
            Ok(0) => Ok(WaitOutcome::TimedOut),
            Ok(_) => {
                if self.fds.is_readable(WAKE) {
                    self.wake.drain();
                }
                Ok(WaitOutcome::Events)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(WaitOutcome::Interrupted),
            Err(e) => Err(e),
        }
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

#[cfg(test)]
mod tests;
