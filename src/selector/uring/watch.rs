//! One registration's file, as the ring has it.

use super::requests::Id;
use crate::event::{Interest, PollBits};
use crate::key::Slot;
use crate::sys::file::{self, Kind};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// What is known of a slot's file.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) slot: Slot,
    pub(super) number: RawFd,
    kind: Kind,
    pub(super) dirs: Interest,
    /// The poll that is armed for `dirs`.
    pub(super) poll: Option<Id>,
    /// How many polls hold the file: that one, and those before it that have not ended yet.
    pub(super) polls: usize,
    /// Nothing ever happens to it (e).
    pub(super) is_still: bool,
    pub(super) is_heard: bool,
    /// What its polls have told since the last wait.
    pub(super) news: PollBits,
}

impl Watch {
    /// # Errors
    ///
    /// `EBADF` for a number that is not open or open with `O_PATH`.
    pub(super) fn new(slot: Slot, fd: BorrowedFd<'_>) -> io::Result<Self> {
        file::check_pollable(fd)?;
        Ok(Watch {
            slot,
            number: fd.as_raw_fd(),
            kind: Kind::of(fd)?,
            dirs: Interest::empty(),
            poll: None,
            polls: 0,
            is_still: false,
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
        matches!(self.kind, Kind::Regular | Kind::Named)
    }

    /// Whether it may forget its news when it is looked at (c): some in procfs do, and performance
    /// counters.
    pub(super) fn is_forgetful(&self) -> bool {
        matches!(self.kind, Kind::Regular | Kind::Counter)
    }
}
