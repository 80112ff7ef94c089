//! The directions of one source that operations await, and those the kernel watches for them, as a
//! pure state machine.
//!
//! The kernel keeps watching a direction after its operation has completed: the next operation
//! usually awaits it too, and needs no system call. Spurious reports, of directions that no
//! operation awaited, end that: by level at once, because they would repeat, by edges after a few.

use super::latch::{MAX_SPURIOUS, Step};
use crate::event::Interest;
use crate::selector::Trigger;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AwaitedInterest {
    /// Awaited by an operation.
    awaited: Interest,
    /// Watched by the kernel; a superset of `awaited`.
    watched: Interest,
    /// Probably consumed by a call, and not reported since.
    likely_not_ready: Interest,
    /// Found ready by the last report, and awaited by no operation.
    unawaited: Interest,
    /// Counts consecutive spurious reports.
    spurious: u8,
}

impl AwaitedInterest {
    pub(super) fn awaited(&self) -> Interest {
        self.awaited
    }

    pub(super) fn watched(&self) -> Interest {
        self.watched
    }

    /// Returns true if an attempt in `dir` can be skipped because a report is certain. Only a
    /// direction reported `by_level` qualifies. An edge may be used up: a receive stops short at
    /// the end of a record, or before urgent data.
    pub(super) fn is_likely_not_ready(&self, dir: Interest, by_level: Interest) -> bool {
        (self.likely_not_ready & self.watched & by_level).contains(dir)
    }

    /// Adds a direction that an operation awaits.
    pub(super) fn await_ready(&mut self, dir: Interest, trigger: Trigger) -> Step {
        self.awaited |= dir;
        self.spurious = 0;
        let is_watched = self.watched.contains(dir) && trigger != Trigger::OneShot;
        self.watched |= dir;
        if is_watched { Step::Nothing } else { Step::Arm }
    }

    /// Removes a direction that no operation awaits any more.
    pub(super) fn stop_awaiting(&mut self, dir: Interest) {
        self.awaited -= dir;
    }

    /// Notes that a call has probably consumed the readiness of `dir`.
    pub(super) fn note_likely_not_ready(&mut self, dir: Interest) {
        self.likely_not_ready |= dir;
    }

    /// Notes that a report found `ready` ready. Returns true if no operation awaited a part of it.
    pub(super) fn on_report(&mut self, ready: Interest) -> bool {
        self.likely_not_ready -= ready;
        self.unawaited = ready & (self.watched - self.awaited);
        !self.unawaited.is_empty()
    }

    /// Notes that the operations awaiting the report were run. `by_level` are the directions
    /// reported as long as they are ready.
    pub(super) fn on_served(&mut self, by_level: Interest) -> Step {
        let idle = self.watched - self.awaited;
        let unawaited = std::mem::replace(&mut self.unawaited, Interest::empty()) & idle;
        if unawaited.is_empty() {
            return Step::Nothing;
        }
        self.spurious = MAX_SPURIOUS.min(self.spurious + 1);
        let given_up = if self.spurious == MAX_SPURIOUS { idle } else { unawaited & by_level };
        if given_up.is_empty() {
            return Step::Nothing;
        }
        self.watched -= given_up;
        Step::Arm
    }

    /// Resets the state after the latch has changed.
    pub(super) fn reset(&mut self) {
        *self = AwaitedInterest {
            awaited: self.awaited,
            watched: self.awaited,
            ..AwaitedInterest::default()
        };
    }
}

#[cfg(test)]
mod tests;
