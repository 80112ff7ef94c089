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

use super::{Applied, Arm, Deadline, Raw, Selector, Trigger, Triggers, Wake, WakeHandle};
use crate::event::PollBits;
use crate::key::Slot;
use crate::sys;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The poll selector. Entry 0 of the array is the eventfd.
#[derive(Debug)]
pub struct Poll {
    wake: WakeHandle,
    fds: Vec<sys::poll::pollfd>,
    /// Whose entry each of `fds` is; that of entry 0 is never read.
    owners: Vec<Slot>,
    /// By slot index: where in `fds` its entry is, or [`OUT`].
    places: Vec<u32>,
}

/// Not in the array.
const OUT: u32 = u32::MAX;

impl Poll {
    /// # Errors
    ///
    /// What eventfd(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let wake = WakeHandle::new()?;
        let events = PollBits::IN.bits() as i16;
        let entry = sys::poll::pollfd { fd: wake.as_fd().as_raw_fd(), events, revents: 0 };
        let nobody = Slot::from_bits(u64::MAX);
        Ok(Poll { wake, fds: vec![entry], owners: vec![nobody], places: Vec::new() })
    }

    fn place(&mut self, slot: Slot) -> &mut u32 {
        if self.places.len() <= slot.index() {
            self.places.resize(slot.index() + 1, OUT);
        }
        &mut self.places[slot.index()]
    }
}

impl Selector for Poll {
    fn native(&self) -> Triggers {
        Triggers::LEVEL
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: Arm) -> io::Result<Applied> {
        let events = PollBits::asked(arm.dirs).bits() as i16;
        let next = self.fds.len() as u32;
        match self.place(slot) {
            place @ &mut OUT => {
                sys::file::check_pollable(fd)?;
                *place = next;
                self.fds.push(sys::poll::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
                self.owners.push(slot);
            }
            &mut place => {
                let entry = &mut self.fds[place as usize];
                assert_eq!(entry.fd, fd.as_raw_fd(), "an entry is its slot's own");
                entry.events = events;
            }
        }
        Ok(Applied::whole(Trigger::Level))
    }

    fn disarm(&mut self, slot: Slot, _fd: BorrowedFd<'_>) {
        let place = std::mem::replace(self.place(slot), OUT);
        if place != OUT {
            self.fds.swap_remove(place as usize);
            self.owners.swap_remove(place as usize);
            if let Some(&moved) = self.owners.get(place as usize) {
                *self.place(moved) = place;
            }
        }
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Raw>) -> io::Result<Wake> {
        let mut unseen = match sys::poll::wait(&mut self.fds, deadline.remaining()) {
            Ok(0) => return Ok(Wake::TimedOut),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Wake::Interrupted),
            Err(e) => return Err(e),
        };
        if self.fds[0].revents != 0 {
            self.wake.drain();
            unseen -= 1;
        }
        let reported = self.fds.iter().zip(&self.owners).skip(1).filter(|(fd, _)| fd.revents != 0);
        out.extend(
            reported.take(unseen).map(|(fd, &owner)| {
                Raw::Fact(owner, PollBits::from_bits_retain(fd.revents as u16))
            }),
        );
        Ok(Wake::Events)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

#[cfg(test)]
mod tests;
