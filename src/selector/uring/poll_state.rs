//! One registration's file, as the ring has it.

use super::poll_slab::Id;
use crate::event::Interest;
use crate::poll_bits::PollBits;
use crate::sys::file::{self, FileType};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// What is known of a slot's file.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) number: RawFd,
    shape: FileType,
    pub(super) dirs: Interest,
    /// The poll that is armed for `dirs`.
    pub(super) poll: Option<Id>,
    /// How many polls hold the file: that one, and those before it that have not ended yet.
    pub(super) polls: usize,
    /// How often in a row a poll has ended as it began.
    pub(super) ends: u8,
    /// The kernel has refused its last poll.
    pub(super) is_refused: bool,
    /// Whether a look uses its news up (c), if that was asked already.
    forgets: Option<bool>,
    pub(super) is_heard: bool,
    /// What its polls have told since the last wait.
    pub(super) news: PollBits,
}

impl Watch {
    /// # Errors
    ///
    /// `EBADF` for a number that is not open or open with `O_PATH`.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        file::check_pollable(fd)?;
        Ok(Watch {
            number: fd.as_raw_fd(),
            shape: FileType::of(fd)?,
            forgets: None,
            dirs: Interest::empty(),
            poll: None,
            polls: 0,
            ends: 0,
            is_refused: false,
            is_heard: false,
            news: PollBits::empty(),
        })
    }

    /// What a poll for it asks for.
    pub(super) fn asked(&self) -> PollBits {
        let mut bits = PollBits::asked(self.dirs);
        if self.dirs.contains(Interest::PRIORITY) {
            bits |= PollBits::READ_BANDS;
        }
        if self.is_named() {
            // Then no bits are no reason for EINVAL (e).
            bits |= PollBits::IN;
        }
        bits
    }

    /// Whether it is in the file system: it may not be possible to poll it.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.shape, FileType::Regular | FileType::Block | FileType::Named)
    }

    /// A poll has ended as it began. Gives whether this file's polls always will (e).
    pub(super) fn ends_at_once(&mut self) -> bool {
        self.ends = MOST_ENDS.min(self.ends + 1);
        self.is_still() && !matches!(self.shape, FileType::Socket | FileType::Pipe)
    }

    /// No poll is to be armed for it, until the program asks for that again.
    pub(super) fn be_still(&mut self) {
        self.ends = MOST_ENDS;
    }

    pub(super) fn is_still(&self) -> bool {
        self.ends == MOST_ENDS
    }

    /// The program asks again: one poll will tell whether it is still still.
    pub(super) fn stir(&mut self) {
        self.ends = self.ends.min(MOST_ENDS - 1);
        self.is_refused = false;
    }

    /// Whether it may forget its news when it is looked at (c): some in procfs do and in cgroups,
    /// and performance counters. To tell these takes as long as all the rest, so it is put off
    /// until there are news.
    pub(super) fn is_forgetful(&mut self) -> bool {
        let shape = self.shape;
        *self.forgets.get_or_insert_with(|| match shape {
            FileType::Regular => true,
            FileType::Anonymous => file::is_counter(self.number),
            FileType::Socket | FileType::Pipe | FileType::Block | FileType::Named => false,
        })
    }
}

/// So many polls in a row that end as they begin are no accident. Some files end one at a wake-up
/// too (d), and a wake-up may come at any time.
const MOST_ENDS: u8 = 16;
