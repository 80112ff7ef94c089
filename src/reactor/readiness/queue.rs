//! The queue of sources that may have to be reported.
//!
//! The queue is a FIFO, which makes delivery fair (Q2). A selector wait with a limit leaves reports
//! in the kernel. Those were ready before any entry queued after that wait, so the next wait's
//! reports are inserted before such entries.

use crate::key::Slot;
use std::collections::VecDeque;

/// A queue of slots. The slot of a removed registration stays until it is popped or swept.
#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    slots: VecDeque<Slot>,
    /// Counts the slots without a registration.
    stale: usize,
    /// Counts the slots queued since the last selector wait, if that left reports in the kernel.
    newer: Option<usize>,
}

/// The start of the reports of a selector wait, and the number of newer entries before them.
pub(super) struct Reports {
    begin: usize,
    newer: usize,
}

impl ReportQueue {
    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        if let Some(newer) = &mut self.newer {
            *newer += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.slots.pop_front()
    }

    pub(super) fn front(&self, count: usize) -> impl Iterator<Item = Slot> {
        self.slots.iter().take(count).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Notes that a registration was removed; its slot stays if it is queued. Sweeps stale slots
    /// once they are the majority.
    pub(super) fn on_removed(&mut self, is_queued: bool, is_live: impl Fn(Slot) -> bool) {
        self.stale += usize::from(is_queued);
        if self.stale > self.slots.len() / 2 {
            self.sweep(is_live);
        }
    }

    /// Notes that a stale slot was popped.
    pub(super) fn note_stale_popped(&mut self) {
        self.stale -= 1;
    }

    fn sweep(&mut self, is_live: impl Fn(Slot) -> bool) {
        if let Some(newer) = &mut self.newer {
            let since = self.slots.iter().rev().take(*newer);
            *newer = since.filter(|&&slot| is_live(slot)).count();
        }
        self.slots.retain(|&slot| is_live(slot));
        self.stale = 0;
    }

    /// Begins the reports of a selector wait. Slots pushed until [`end_reports`] belong to them.
    ///
    /// [`end_reports`]: ReportQueue::end_reports
    pub(super) fn begin_reports(&mut self) -> Reports {
        let len = self.slots.len();
        // Some of the newer entries may have been popped.
        let newer = self.newer.take().unwrap_or_default().min(len);
        Reports { begin: len - newer, newer }
    }

    /// Moves the reports into their place. `has_more` is true if some are left in the kernel.
    pub(super) fn end_reports(&mut self, reports: Reports, has_more: bool) {
        if reports.newer > 0 {
            self.slots.make_contiguous()[reports.begin..].rotate_left(reports.newer);
        }
        self.newer = has_more.then_some(0);
    }

    /// Checks the count of stale slots against the registrations, and returns the count.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self, is_live: impl Fn(Slot) -> bool) -> usize {
        let stale = self.slots.iter().filter(|&&slot| !is_live(slot)).count();
        assert_eq!(self.stale, stale, "stale entries of the queue");
        stale
    }
}

#[cfg(test)]
mod tests;
