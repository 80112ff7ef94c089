//! The array that ppoll(2) is given, and whose entry each is: for the mechanisms that wait by it.

use super::{Deadline, Report};
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Some entries of the mechanism's own (its eventfd, say), which are watched for input, and then
/// one for each slot that is put in.
#[derive(Debug)]
pub(super) struct Array {
    fds: Vec<sys::poll::pollfd>,
    /// How many entries are the mechanism's own.
    own: usize,
    /// Whose entry each of the others is.
    owners: Vec<Slot>,
    /// By slot index: where in `owners` it is, or [`OUT`], or [`UNKNOWN`].
    places: Vec<u32>,
}

/// Not in the array, but it has been.
const OUT: u32 = u32::MAX - 1;
/// Not in the array, nor has it been since it was forgotten.
const UNKNOWN: u32 = u32::MAX;

impl Array {
    pub(super) fn new(own: &[BorrowedFd<'_>]) -> Self {
        let fds = own.iter().map(|&fd| entry(fd, PollBits::IN)).collect();
        Array { fds, own: own.len(), owners: Vec::new(), places: Vec::new() }
    }

    /// Whether no slot is in the array.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether the slot was put in and not forgotten: its file has been checked.
    pub(super) fn knows(&self, slot: Slot) -> bool {
        self.places.get(slot.index()).is_some_and(|&place| place != UNKNOWN)
    }

    /// Watches a slot's file for these bits, instead of what it was watched for before.
    pub(super) fn put(&mut self, slot: Slot, fd: BorrowedFd<'_>, bits: PollBits) {
        let (next, own) = (self.owners.len() as u32, self.own);
        match self.place(slot) {
            place @ &mut (OUT | UNKNOWN) => {
                *place = next;
                self.fds.push(entry(fd, bits));
                self.owners.push(slot);
            }
            &mut place => {
                let held = &mut self.fds[own + place as usize];
                assert_eq!(held.fd, fd.as_raw_fd(), "an entry is its slot's own");
                *held = entry(fd, bits);
            }
        }
    }

    /// Watches a slot's file for `bits`, or no longer if there are none.
    pub(super) fn set(&mut self, slot: Slot, fd: BorrowedFd<'_>, bits: PollBits) {
        match bits.is_empty() {
            true => self.take_out(slot),
            false => self.put(slot, fd, bits),
        }
    }

    /// Watches it no longer.
    pub(super) fn take_out(&mut self, slot: Slot) {
        if !self.knows(slot) {
            return;
        }
        let place = std::mem::replace(self.place(slot), OUT);
        if place != OUT {
            self.fds.swap_remove(self.own + place as usize);
            self.owners.swap_remove(place as usize);
            if let Some(&moved) = self.owners.get(place as usize) {
                *self.place(moved) = place;
            }
        }
    }

    /// Takes it out, and knows it no longer.
    pub(super) fn forget(&mut self, slot: Slot) {
        if self.knows(slot) {
            self.take_out(slot);
            *self.place(slot) = UNKNOWN;
        }
    }

    /// Waits until an entry has something to report: gives how many have, and reports those that
    /// are slots'.
    pub(super) fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<usize> {
        let count = sys::poll::wait(&mut self.fds, deadline.remaining())?;
        let (own, others) = self.fds.split_at(self.own);
        let unseen = count - own.iter().filter(|fd| fd.revents != 0).count();
        let reported = others.iter().zip(&self.owners).filter(|(fd, _)| fd.revents != 0);
        out.extend(reported.take(unseen).map(|(fd, &owner)| {
            Report::Fact(owner, PollBits::from_bits_retain(fd.revents as u16))
        }));
        Ok(count)
    }

    /// Whether the last wait found one of the mechanism's own entries readable.
    pub(super) fn is_readable(&self, own: usize) -> bool {
        self.fds[own].revents != 0
    }

    fn place(&mut self, slot: Slot) -> &mut u32 {
        if self.places.len() <= slot.index() {
            self.places.resize(slot.index() + 1, UNKNOWN);
        }
        &mut self.places[slot.index()]
    }
}

fn entry(fd: BorrowedFd<'_>, bits: PollBits) -> sys::poll::pollfd {
    sys::poll::pollfd { fd: fd.as_raw_fd(), events: bits.bits() as i16, revents: 0 }
}

#[cfg(test)]
impl Array {
    /// The number and the bits of a slot's entry.
    pub(super) fn entry_of(&self, slot: Slot) -> Option<(i32, PollBits)> {
        assert_eq!(self.fds.len(), self.own + self.owners.len(), "each entry has an owner");
        let place = *self.places.get(slot.index())?;
        let place = (place != OUT && place != UNKNOWN).then_some(place as usize)?;
        assert_eq!(self.owners[place], slot, "the place leads to the slot");
        let entry = self.fds[self.own + place];
        Some((entry.fd, PollBits::from_bits_retain(entry.events as u16)))
    }

    /// How many slots are in the array.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }
}
