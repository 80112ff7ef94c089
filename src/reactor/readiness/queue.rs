//! The queue of sources that may have to be reported.
//!
//! It is a FIFO, which makes delivery fair (Q2). A look that takes a limited number of reports
//! leaves others in the kernel. Those were ready before all that is queued after that look, so the
//! reports of the next look are put before it.

use crate::key::Slot;
use std::collections::VecDeque;

/// A queue of slots. A slot whose registration was removed stays until it is popped or swept out.
#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    slots: VecDeque<Slot>,
    /// How many of the slots name no registration any more.
    stale: usize,
    /// How many were queued since the last look, if that look left reports in the kernel.
    newer: Option<usize>,
}

/// Where the reports of a look begin, and how many older entries follow them.
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

    /// Notes that a registration was removed, whose slot stays if it is queued. Sweeps stale slots
    /// out when they are the majority.
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

    /// Begins with the reports of a look. What is pushed until [`end_reports`] is theirs.
    ///
    /// [`end_reports`]: ReportQueue::end_reports
    pub(super) fn begin_reports(&mut self) -> Reports {
        let len = self.slots.len();
        // Some of what was queued since may have been popped.
        let newer = self.newer.take().unwrap_or_default().min(len);
        Reports { begin: len - newer, newer }
    }

    /// Puts the reports where they belong. `has_more` says that the look left some in the kernel.
    pub(super) fn end_reports(&mut self, reports: Reports, has_more: bool) {
        if reports.newer > 0 {
            self.slots.make_contiguous()[reports.begin..].rotate_left(reports.newer);
        }
        self.newer = has_more.then_some(0);
    }

    /// Checks the count of stale slots against the registrations, and returns it.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn verify(&self, is_live: impl Fn(Slot) -> bool) -> usize {
        let stale = self.slots.iter().filter(|&&slot| !is_live(slot)).count();
        assert_eq!(self.stale, stale, "stale entries of the queue");
        stale
    }
}

#[cfg(test)]
mod tests;
