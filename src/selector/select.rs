//! select(2), by pselect6(2).
//!
//! Behaviour of the kernel (Linux 6.18, measured unless a man page says it):
//!
//! - **a.** The kernel keeps nothing between calls. It overwrites the sets with its answer, so it
//!   gets copies.
//! - **b.** It polls every descriptor that is set, and reads the sets as far as the highest of
//!   them, beyond `FD_SETSIZE` too. That limit is the C library's.
//! - **c.** The read set is IN, its bands, HUP and ERR of poll(2). The write set is OUT, its bands
//!   and ERR. The exception set is PRI. The read and write sets do not say which bit it was: they
//!   are hints. In some files a poll clears the pending state, so a PRI is passed on as it is.
//! - **d.** So HUP is in no set if only writing is requested, and neither HUP nor ERR nor RDHUP if
//!   only PRI is. Adding the descriptor to the read set would end every wait while it is readable.
//!   Nor can a set show only an end of a readable file (E5).
//! - **e.** One descriptor that is not open fails the whole call with `EBADF`, and the sets say
//!   nothing of the others. (Beyond the size of the process's descriptor table it would be ignored.
//!   But the table never shrinks, and the descriptor was open when it was registered.)
//! - **f.** A descriptor that was opened with `O_PATH` is in every set: it is refused before.
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
    requested: [Set; 3],
    /// The copies that the kernel overwrites with its answer (a).
    answer: [Vec<Word>; 3],
    /// By descriptor: its slot, or [`NO_SLOT`].
    owners: Vec<Slot>,
    /// One more than the highest descriptor that is set.
    length: usize,
}

/// A set of descriptors.
#[derive(Debug, Default)]
struct Set {
    words: Vec<Word>,
    count: usize,
}

/// The owner of descriptors without a slot, such as the eventfd.
const NO_SLOT: Slot = Slot { index: u32::MAX, generation: u32::MAX };

impl Set {
    /// Adds or removes a descriptor.
    fn put(&mut self, fd: usize, is_in: bool) {
        let (at, bit) = (fd / BITS, 1 << (fd % BITS));
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

/// Returns the raw descriptor, which is never negative for an open file.
fn raw_fd(fd: BorrowedFd<'_>) -> usize {
    fd.as_raw_fd() as usize
}

impl Select {
    /// # Errors
    ///
    /// The errors of eventfd(2): `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        let wake = WakeHandle::new()?;
        let fd = raw_fd(wake.as_fd());
        let (requested, answer, owners) = Default::default();
        let mut select = Select { wake, requested, answer, owners, length: 0 };
        select.watch(fd, Interest::READABLE);
        Ok(select)
    }

    /// Sets a descriptor in the sets of `dirs`, and clears it in the others.
    fn watch(&mut self, fd: usize, dirs: Interest) {
        for (set, direction) in self.requested.iter_mut().zip(DIRECTIONS) {
            set.put(fd, dirs.contains(direction));
        }
        if !dirs.is_empty() {
            self.length = self.length.max(fd + 1);
        } else if fd + 1 == self.length {
            self.length = self.highest_below(fd);
        }
    }

    /// Returns one more than the highest descriptor below `end` that is in a set.
    fn highest_below(&self, end: usize) -> usize {
        let words = (0..end.div_ceil(BITS)).rev();
        let mut found =
            words.map(|at| (at, self.requested.iter().fold(0, |w: Word, set| w | set.word(at))));
        let highest = found.find(|&(_, word)| word != 0);
        highest.map_or(0, |(at, word)| (at + 1) * BITS - word.leading_zeros() as usize)
    }

    fn owner(&self, fd: usize) -> Slot {
        self.owners.get(fd).copied().unwrap_or(NO_SLOT)
    }

    /// Calls `each` with the owner of each descriptor in `sets`, and whether it is an exception.
    fn owners_in<'a>(&self, sets: [&'a [Word]; 3], mut each: impl FnMut(Slot, bool)) {
        let words = sets.iter().map(|set| set.len()).max().unwrap_or_default();
        for at in 0..words {
            let [read, write, except] =
                sets.map(|set: &'a [Word]| set.get(at).copied().unwrap_or_default());
            let mut word = read | write | except;
            while word != 0 {
                let bit = word.trailing_zeros();
                let owner = self.owner(at * BITS + bit as usize);
                if owner != NO_SLOT {
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
        let index = raw_fd(fd);
        if self.owner(index) != slot {
            sys::file::check_pollable(fd)?;
            if self.owners.len() <= index {
                self.owners.resize(index + 1, NO_SLOT);
            }
            self.owners[index] = slot;
        }
        self.watch(index, arm.dirs);
        let needs_poll_each_wait = !arm.dirs.contains(Interest::READABLE);
        Ok(ArmOutcome { needs_poll_each_wait, ..ArmOutcome::whole(Trigger::Level) })
    }

    fn disarm(&mut self, _slot: Slot, fd: BorrowedFd<'_>) {
        self.watch(raw_fd(fd), Interest::empty());
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
        if let Some(owner) = self.owners.get_mut(raw_fd(fd)) {
            *owner = NO_SLOT;
        }
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        for (set, answer) in self.requested.iter().zip(&mut self.answer) {
            set.copy_to(answer, self.length.div_ceil(BITS));
        }
        let sets = self.answer.each_mut().map(Vec::as_mut_slice);
        match sys::select::wait(self.length, sets, deadline.remaining()) {
            Ok(0) => return Ok(WaitOutcome::TimedOut),
            Ok(_) => self.owners_in(self.answer.each_ref().map(Vec::as_slice), |owner, except| {
                // An exception is PRI, which this poll may have cleared (c).
                let pri = Report::Partial(owner, PollBits::PRI);
                out.push(if except { pri } else { Report::Hint(owner) });
            }),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                return Ok(WaitOutcome::Interrupted);
            }
            // A registered descriptor was closed. A poll of each finds it (e).
            Err(e) if e.raw_os_error() == Some(Errno::EBADF as i32) => {
                let requested = self.requested.each_ref().map(|set| &*set.words);
                self.owners_in(requested, |owner, _| out.push(Report::Hint(owner)));
            }
            Err(e) => return Err(e),
        }
        let wake = raw_fd(self.wake.as_fd());
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
