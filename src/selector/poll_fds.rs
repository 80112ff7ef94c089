//! The array of a ppoll(2) and the slots of its entries, for the mechanisms that wait by it.

use super::{Deadline, Report};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The mechanism's own entries, such as its eventfd, which are watched for input, followed by one
/// for each watched slot.
#[derive(Debug)]
pub(super) struct PollFds {
    fds: Vec<sys::poll::pollfd>,
    /// The number of the mechanism's own entries.
    own: usize,
    /// The slots of the other entries.
    owners: Vec<Slot>,
    /// By slot index: the position in `owners`, or [`ABSENT`], or [`UNKNOWN`].
    positions: Vec<u32>,
}

/// The slot is not in the array, but was since it was last removed.
const ABSENT: u32 = u32::MAX - 1;
/// The slot is not in the array, and was not since it was last removed.
const UNKNOWN: u32 = u32::MAX;

impl PollFds {
    pub(super) fn new(own: &[BorrowedFd<'_>]) -> Self {
        let fds = own.iter().map(|&fd| entry(fd, PollBits::IN)).collect();
        PollFds { fds, own: own.len(), owners: Vec::new(), positions: Vec::new() }
    }

    /// Returns true if no slot is in the array.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Returns true if the slot was put in and not removed: its file has been checked.
    pub(super) fn is_known(&self, slot: Slot) -> bool {
        self.positions.get(slot.index()).is_some_and(|&position| position != UNKNOWN)
    }

    /// Watches a slot's file for these bits, in place of the earlier ones.
    pub(super) fn put(&mut self, slot: Slot, fd: BorrowedFd<'_>, bits: PollBits) {
        let (next, own) = (self.owners.len() as u32, self.own);
        match self.position(slot) {
            position @ &mut (ABSENT | UNKNOWN) => {
                *position = next;
                self.fds.push(entry(fd, bits));
                self.owners.push(slot);
            }
            &mut position => {
                let current = &mut self.fds[own + position as usize];
                assert_eq!(current.fd, fd.as_raw_fd(), "a slot keeps its descriptor");
                *current = entry(fd, bits);
            }
        }
    }

    /// Watches a slot's file for `bits`, or stops watching it if there are none.
    pub(super) fn set(&mut self, slot: Slot, fd: BorrowedFd<'_>, bits: PollBits) {
        if bits.is_empty() {
            self.exclude(slot);
        } else {
            self.put(slot, fd, bits);
        }
    }

    /// Stops watching a slot's file, which stays known.
    pub(super) fn exclude(&mut self, slot: Slot) {
        if !self.is_known(slot) {
            return;
        }
        let position = std::mem::replace(self.position(slot), ABSENT);
        if position != ABSENT {
            self.fds.swap_remove(self.own + position as usize);
            self.owners.swap_remove(position as usize);
            if let Some(&moved) = self.owners.get(position as usize) {
                *self.position(moved) = position;
            }
        }
    }

    /// Stops watching a slot's file, which is no longer known.
    pub(super) fn remove(&mut self, slot: Slot) {
        if self.is_known(slot) {
            self.exclude(slot);
            *self.position(slot) = UNKNOWN;
        }
    }

    /// Waits until an entry is ready. Reports the slots' entries, and returns the number of all
    /// ready ones.
    pub(super) fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<usize> {
        let count = sys::poll::wait(&mut self.fds, deadline.remaining())?;
        let (own, others) = self.fds.split_at(self.own);
        let slots_ready = count - own.iter().filter(|fd| fd.revents != 0).count();
        let reported = others.iter().zip(&self.owners).filter(|(fd, _)| fd.revents != 0);
        out.extend(reported.take(slots_ready).map(|(fd, &owner)| {
            Report::Fact(owner, PollBits::from_bits_retain(fd.revents as u16))
        }));
        Ok(count)
    }

    /// Returns true if the last wait found this entry of the mechanism's own readable.
    pub(super) fn is_readable(&self, own: usize) -> bool {
        self.fds[own].revents != 0
    }

    fn position(&mut self, slot: Slot) -> &mut u32 {
        if self.positions.len() <= slot.index() {
            self.positions.resize(slot.index() + 1, UNKNOWN);
        }
        &mut self.positions[slot.index()]
    }
}

fn entry(fd: BorrowedFd<'_>, bits: PollBits) -> sys::poll::pollfd {
    sys::poll::pollfd { fd: fd.as_raw_fd(), events: bits.bits() as i16, revents: 0 }
}

#[cfg(test)]
impl PollFds {
    /// Returns the descriptor and the bits of a slot's entry.
    pub(super) fn entry_of(&self, slot: Slot) -> Option<(i32, PollBits)> {
        assert_eq!(self.fds.len(), self.own + self.owners.len(), "each entry has an owner");
        let position = *self.positions.get(slot.index())?;
        let position = (position != ABSENT && position != UNKNOWN).then_some(position as usize)?;
        assert_eq!(self.owners[position], slot, "the position is the slot's");
        let entry = self.fds[self.own + position];
        Some((entry.fd, PollBits::from_bits_retain(entry.events as u16)))
    }

    /// Returns the number of slots in the array.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }
}
