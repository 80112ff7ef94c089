//! Which directions of one source operations await, and what the kernel watches for that, as a
//! pure state machine.
//!
//! What the kernel watches for an operation it goes on to watch when the operation has completed:
//! the next one will soon await it too, and not to tell the kernel is what makes that cheap. It
//! ends when there are spurious reports, of directions that no operation awaited at that moment: by
//! level at once, because they would be repeated, by edges after a few.

use super::latch::{MAX_SPURIOUS, Step};
use crate::event::Interest;
use crate::selector::Trigger;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AwaitedInterest {
    /// An operation awaits these.
    awaited: Interest,
    /// These are watched; `awaited` is a part of them.
    watched: Interest,
    /// A call has probably used these up, and nothing was reported since.
    likely_not_ready: Interest,
    /// The last report has found these ready, and no operation awaited them.
    unawaited: Interest,
    /// Counts spurious reports in a row.
    spurious: u8,
}

impl AwaitedInterest {
    pub(super) fn awaited(&self) -> Interest {
        self.awaited
    }

    pub(super) fn watched(&self) -> Interest {
        self.watched
    }

    /// Whether `dir` need not be tried, because a report will come if that is of use. That is
    /// certain of those that are reported `by_level`. An edge may be used up: a receive stops short
    /// where a record ends, or before urgent data.
    pub(super) fn is_likely_not_ready(&self, dir: Interest, by_level: Interest) -> bool {
        (self.likely_not_ready & self.watched & by_level).contains(dir)
    }

    /// An operation waits for `dir`.
    pub(super) fn await_ready(&mut self, dir: Interest, trigger: Trigger) -> Step {
        self.awaited |= dir;
        self.spurious = 0;
        let is_watched = self.watched.contains(dir) && trigger != Trigger::OneShot;
        self.watched |= dir;
        if is_watched { Step::Nothing } else { Step::Arm }
    }

    /// No operation waits for `dir` any more.
    pub(super) fn stop_awaiting(&mut self, dir: Interest) {
        self.awaited -= dir;
    }

    /// A call has probably used up what there was of `dir`.
    pub(super) fn note_likely_not_ready(&mut self, dir: Interest) {
        self.likely_not_ready |= dir;
    }

    /// The kernel has reported the source, and `ready` was found ready. Returns true if no
    /// operation awaited a part of that.
    pub(super) fn on_report(&mut self, ready: Interest) -> bool {
        self.likely_not_ready -= ready;
        self.unawaited = ready & (self.watched - self.awaited);
        !self.unawaited.is_empty()
    }

    /// The operations that the report was for were run. `by_level` are the directions that are
    /// reported again while they are ready.
    pub(super) fn on_served(&mut self, by_level: Interest) -> Step {
        let idle = self.watched - self.awaited;
        let unawaited = std::mem::replace(&mut self.unawaited, Interest::empty()) & idle;
        if unawaited.is_empty() {
            return Step::Nothing;
        }
        self.spurious = MAX_SPURIOUS.min(self.spurious + 1);
        let given_up = match self.spurious == MAX_SPURIOUS {
            true => idle,
            false => unawaited & by_level,
        };
        if given_up.is_empty() {
            return Step::Nothing;
        }
        self.watched -= given_up;
        Step::Arm
    }

    /// The latch has changed, and with it all that is watched.
    pub(super) fn start_over(&mut self) {
        *self = AwaitedInterest {
            awaited: self.awaited,
            watched: self.awaited,
            ..AwaitedInterest::default()
        };
    }
}

#[cfg(test)]
mod tests;
