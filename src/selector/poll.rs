//! poll(2), by ppoll(2).
//!
//! How it really behaves (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** The kernel keeps nothing between calls: what is in the array is watched, and every call
//!   looks at all of it.
//! - **b.** `POLLERR` and `POLLHUP` are reported whatever `events` says, also when it is 0, so what
//!   is not to be watched has to leave the array.
//! - **c.** The bits are those of the moment: facts, complete for what was asked.
//! - **d.** A number that is not open is no error of the call but an entry with `POLLNVAL`, and so
//!   is `O_PATH`: such numbers are refused before they enter the array.
//! - **e.** More entries than `RLIMIT_NOFILE` are `EINVAL`, which takes a limit lowered after they
//!   were registered.
//! - **f.** ppoll(2) as a raw call would write the time left into the timeout; the C library passes
//!   a copy.

use super::array::Array;
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
    array: Array,
}

/// The eventfd's entry.
const WAKE: usize = 0;

impl Poll {
    /// # Errors
    ///
    /// What eventfd(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let wake = WakeHandle::new()?;
        let array = Array::new(&[wake.as_fd()]);
        Ok(Poll { wake, array })
    }
}

impl Selector for Poll {
    fn native(&self) -> Triggers {
        Triggers::LEVEL
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        if !self.array.knows(slot) {
            sys::file::check_pollable(fd)?;
        }
        self.array.put(slot, fd, arm.bits());
        Ok(ArmOutcome::whole(Trigger::Level))
    }

    fn disarm(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.array.take_out(slot);
    }

    fn remove(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        self.array.forget(slot);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        match self.array.wait(deadline, out) {
            Ok(0) => Ok(WaitOutcome::TimedOut),
            Ok(_) => {
                if self.array.is_readable(WAKE) {
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
