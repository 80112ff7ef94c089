//! select(2), by pselect6(2).
//!
//! How it really behaves (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** The kernel keeps nothing between calls. It overwrites the sets with its answer, so it
//!   is given copies.
//! - **b.** It looks at every number that is set, and reads the sets as far as the highest of them,
//!   beyond `FD_SETSIZE` too: the limit is the C library's.
//! - **c.** To read: IN, its bands, HUP and ERR of poll(2). To write: OUT, its bands and ERR.
//!   Exceptions: PRI. Which of them it was the sets to read and to write don't say: they are hints.
//!   There are files that forget their news when they are looked at, so a PRI is taken as said.
//! - **d.** Hence HUP is in no set for those who only want to write, and neither HUP nor ERR nor
//!   RDHUP for those who only wait for PRI. Adding such a number to the set to read would end every
//!   wait while there is something to read.
//!   Nor can a set show an end alone of what may be readable (E5).
//! - **e.** One number that is not open fails the whole call with `EBADF`, and the sets say nothing
//!   of the others. (Beyond the size of the process's table of files it would be ignored, but the
//!   table never shrinks, and the number was open when it was registered.)
//! - **f.** A number that was opened with `O_PATH` is in every set: it is refused before.
//! - **g.** `RLIMIT_NOFILE` does not matter.

use super::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use crate::event::Interest;
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::sys;
use crate::sys::select::{BITS, Word};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The directions, in the order of the kernel's sets (c).
const DIRECTIONS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

/// The select selector.
#[derive(Debug)]
pub struct Select {
    wake: WakeHandle,
    asked: [Set; 3],
    /// What the kernel is given, and answers in (a).
    answer: [Vec<Word>; 3],
    /// By number: whose it is, or [`NOBODY`].
    owners: Vec<Slot>,
    /// One more than the highest number that is set.
    length: usize,
}

/// A set of numbers.
#[derive(Debug, Default)]
struct Set {
    words: Vec<Word>,
    count: usize,
}

/// The owner of numbers that no slot has, the eventfd's among them.
const NOBODY: Slot = Slot { index: u32::MAX, generation: u32::MAX };

impl Set {
    /// Puts a number in or takes it out.
    fn put(&mut self, number: usize, is_in: bool) {
        let (at, bit) = (number / BITS, 1 << (number % BITS));
        if self.words.len() <= at {
            if !is_in {
                return;
            }
            self.words.resize(at + 1, 0);
        }
        let was_in = self.words[at] & bit != 0;
        if was_in != is_in {
            self.words[at] ^= bit;
            self.count = if is_in { self.count + 1 } else { self.count - 1 };
        }
    }

    fn word(&self, at: usize) -> Word {
        self.words.get(at).copied().unwrap_or_default()
    }

    /// Copies the set into `answer`: `length` words, or none if it is empty.
    fn copy_to(&self, answer: &mut Vec<Word>, length: usize) {
        answer.clear();
        if self.count > 0 {
            answer.extend_from_slice(&self.words[..self.words.len().min(length)]);
            answer.resize(length, 0);
        }
    }
}

/// The number of a file that is open: never negative.
fn number_of(fd: BorrowedFd<'_>) -> usize {
    fd.as_raw_fd() as usize
}

impl Select {
    /// # Errors
    ///
    /// What eventfd(2) says: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let wake = WakeHandle::new()?;
        let number = number_of(wake.as_fd());
        let (asked, answer, owners) = Default::default();
        let mut select = Select { wake, asked, answer, owners, length: 0 };
        select.watch(number, Interest::READABLE);
        Ok(select)
    }

    /// Has the sets say `dirs` of a number.
    fn watch(&mut self, number: usize, dirs: Interest) {
        for (set, direction) in self.asked.iter_mut().zip(DIRECTIONS) {
            set.put(number, dirs.contains(direction));
        }
        if !dirs.is_empty() {
            self.length = self.length.max(number + 1);
        } else if number + 1 == self.length {
            self.length = self.highest_below(number);
        }
    }

    /// One more than the highest number below `end` that is in a set.
    fn highest_below(&self, end: usize) -> usize {
        let words = (0..end.div_ceil(BITS)).rev();
        let mut found =
            words.map(|at| (at, self.asked.iter().fold(0, |w: Word, set| w | set.word(at))));
        let highest = found.find(|&(_, word)| word != 0);
        highest.map_or(0, |(at, word)| (at + 1) * BITS - word.leading_zeros() as usize)
    }

    fn owner(&self, number: usize) -> Slot {
        self.owners.get(number).copied().unwrap_or(NOBODY)
    }

    /// Tells `each` owner of a number that is set in one of `sets`, and whether it is an exception.
    fn owners_in<'a>(&self, sets: [&'a [Word]; 3], mut each: impl FnMut(Slot, bool)) {
        let words = sets.iter().map(|set| set.len()).max().unwrap_or_default();
        for at in 0..words {
            let [read, write, except] =
                sets.map(|set: &'a [Word]| set.get(at).copied().unwrap_or_default());
            let mut word = read | write | except;
            while word != 0 {
                let bit = word.trailing_zeros();
                let owner = self.owner(at * BITS + bit as usize);
                if owner != NOBODY {
                    each(owner, except >> bit & 1 == 1);
                }
                word &= word - 1;
            }
        }
    }
}

impl Selector for Select {
    fn native(&self) -> Triggers {
        Triggers::LEVEL
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let number = number_of(fd);
        if self.owner(number) != slot {
            sys::file::check_pollable(fd)?;
            if self.owners.len() <= number {
                self.owners.resize(number + 1, NOBODY);
            }
            self.owners[number] = slot;
        }
        self.watch(number, arm.dirs);
        let blind = !arm.dirs.contains(Interest::READABLE);
        Ok(ArmOutcome { blind, ..ArmOutcome::whole(Trigger::Level) })
    }

    fn disarm(&mut self, _slot: Slot, fd: BorrowedFd<'_>) {
        self.watch(number_of(fd), Interest::empty());
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
        if let Some(owner) = self.owners.get_mut(number_of(fd)) {
            *owner = NOBODY;
        }
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        for (set, answer) in self.asked.iter().zip(&mut self.answer) {
            set.copy_to(answer, self.length.div_ceil(BITS));
        }
        let sets = self.answer.each_mut().map(Vec::as_mut_slice);
        match sys::select::wait(self.length, sets, deadline.remaining()) {
            Ok(0) => return Ok(WaitOutcome::TimedOut),
            Ok(_) => self.owners_in(self.answer.each_ref().map(Vec::as_slice), |owner, except| {
                // An exception is PRI, and the look that has shown it may have used it up (c).
                out.push(match except {
                    true => Report::Partial(owner, PollBits::PRI),
                    false => Report::Hint(owner),
                });
            }),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                return Ok(WaitOutcome::Interrupted);
            }
            // Somebody has closed a number that is registered. Which one, a look at all of them
            // tells (e).
            Err(e) if e.raw_os_error() == Some(Errno::EBADF as i32) => {
                let asked = self.asked.each_ref().map(|set| &*set.words);
                self.owners_in(asked, |owner, _| out.push(Report::Hint(owner)));
            }
            Err(e) => return Err(e),
        }
        let wake = number_of(self.wake.as_fd());
        if self.answer[0][wake / BITS] >> (wake % BITS) & 1 == 1 {
            self.wake.drain();
        }
        Ok(WaitOutcome::Events)
    }

    fn wake_handle(&self) -> WakeHandle {
        self.wake.clone()
    }
}

#[cfg(test)]
mod tests;
