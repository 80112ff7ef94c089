//! The state of one registration's file and its poll.

use super::poll_slab::Id;
use crate::event::Interest;
use crate::poll_bits::PollBits;
use crate::sys::file::{self, FileType};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The file of a slot, and the poll that watches it.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) fd: RawFd,
    file_type: FileType,
    pub(super) dirs: Interest,
    /// The poll that is armed for `dirs`.
    pub(super) poll: Option<Id>,
    /// The number of polls that hold the file: the armed one, and earlier ones that have not ended.
    pub(super) polls: usize,
    /// The number of polls in a row that have ended as they began.
    pub(super) immediate_ends: u8,
    /// The kernel has refused its last poll.
    pub(super) is_refused: bool,
    /// True if a poll clears the pending state (c), once that was determined.
    clears_on_poll: Option<bool>,
    pub(super) is_reported: bool,
    /// The bits of its CQEs since the last wait.
    pub(super) pending_bits: PollBits,
}

impl Watch {
    /// # Errors
    ///
    /// `EBADF` for a descriptor that is not open or open with `O_PATH`.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        file::check_pollable(fd)?;
        Ok(Watch {
            fd: fd.as_raw_fd(),
            file_type: FileType::of(fd)?,
            clears_on_poll: None,
            dirs: Interest::empty(),
            poll: None,
            polls: 0,
            immediate_ends: 0,
            is_refused: false,
            is_reported: false,
            pending_bits: PollBits::empty(),
        })
    }

    /// Returns the bits to request.
    pub(super) fn requested(&self) -> PollBits {
        let mut bits = PollBits::asked(self.dirs);
        if self.dirs.contains(Interest::PRIORITY) {
            bits |= PollBits::READ_BANDS;
        }
        if self.is_in_file_system() {
            // A file without a wait queue is then ready, and not EINVAL (e).
            bits |= PollBits::IN;
        }
        bits
    }

    /// Returns true for a file of the file system, which may not support polling.
    pub(super) fn is_in_file_system(&self) -> bool {
        matches!(self.file_type, FileType::Regular | FileType::Block | FileType::Named)
    }

    /// Counts a poll that ended as it began. Returns true if every poll of the file does (e).
    pub(super) fn has_no_wait_queue(&mut self) -> bool {
        self.immediate_ends = MAX_IMMEDIATE_ENDS.min(self.immediate_ends + 1);
        self.is_disabled() && !matches!(self.file_type, FileType::Socket | FileType::Pipe)
    }

    /// Arms no poll until the program arms the file again.
    pub(super) fn disable(&mut self) {
        self.immediate_ends = MAX_IMMEDIATE_ENDS;
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.immediate_ends == MAX_IMMEDIATE_ENDS
    }

    /// Allows one more poll, because the program arms the file again.
    pub(super) fn enable(&mut self) {
        self.immediate_ends = self.immediate_ends.min(MAX_IMMEDIATE_ENDS - 1);
        self.is_refused = false;
    }

    /// Returns true if a poll may clear the pending state (c), as in some files of procfs and
    /// cgroups, and performance counters. The check is as expensive as a whole registration, so it
    /// is deferred until there are bits to report.
    pub(super) fn clears_on_poll(&mut self) -> bool {
        let file_type = self.file_type;
        *self.clears_on_poll.get_or_insert_with(|| match file_type {
            FileType::Regular => true,
            FileType::Anonymous => file::is_counter(self.fd),
            FileType::Socket | FileType::Pipe | FileType::Block | FileType::Named => false,
        })
    }
}

/// This many polls in a row that end as they begin mean that the file has no wait queue. Fewer are
/// ambiguous: a wake-up from a ring ends a poll too (d), and may come at any time.
const MAX_IMMEDIATE_ENDS: u8 = 16;
