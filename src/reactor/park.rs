//! What the kernel watches of one source for its operations, beside what its latch wants, as a pure
//! state machine.
//!
//! An operation that would block *parks* until its direction is ready. What the kernel then watches
//! it goes on to watch when the operation is done, for the next one will soon park too, and not to
//! tell the kernel is what makes that cheap. It stops when there are reports for nobody: by level
//! at once, because they would be repeated, by edges after a few.

use super::latch::Step;
use crate::event::Interest;
use crate::selector::Trigger;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Park {
    /// An operation waits for these.
    parked: Interest,
    /// These are watched; `parked` is a part of them.
    watched: Interest,
    /// These were probably not ready when last tried, and nothing was reported since.
    dry: Interest,
    /// Reports for nobody, in a row.
    strays: u8,
}

/// As in the latch: some are cheaper than to tell the kernel.
const MOST_STRAYS: u8 = 3;

impl Park {
    pub(super) fn parked(&self) -> Interest {
        self.parked
    }

    pub(super) fn watched(&self) -> Interest {
        self.watched
    }

    /// Whether `dir` need not be tried, because a report will come if that is of use. That is
    /// certain of those that are reported `by_level`. An edge may be used up: a receive stops short
    /// where a record ends, or before urgent data.
    pub(super) fn is_dry(&self, dir: Interest, by_level: Interest) -> bool {
        (self.dry & self.watched & by_level).contains(dir)
    }

    /// An operation waits for `dir`.
    pub(super) fn park(&mut self, dir: Interest, trigger: Trigger) -> Step {
        self.parked |= dir;
        self.strays = 0;
        let is_watched = self.watched.contains(dir) && trigger != Trigger::OneShot;
        self.watched |= dir;
        if is_watched { Step::Nothing } else { Step::Arm }
    }

    /// No operation waits for `dir` any more.
    pub(super) fn unpark(&mut self, dir: Interest) {
        self.parked -= dir;
    }

    /// What was read was less than there was room for.
    pub(super) fn note_dry(&mut self, dir: Interest) {
        self.dry |= dir;
    }

    /// The kernel has reported the source, and `ready` was found ready.
    pub(super) fn heard(&mut self, ready: Interest) {
        self.dry -= ready;
    }

    /// Those whom that was for have been served. `by_level` are the directions that are reported
    /// again while they are ready.
    pub(super) fn served(&mut self, ready: Interest, by_level: Interest) -> Step {
        let idle = self.watched - self.parked;
        if !ready.intersects(idle) {
            return Step::Nothing;
        }
        self.strays = MOST_STRAYS.min(self.strays + 1);
        let given_up = match self.strays == MOST_STRAYS {
            true => idle,
            false => idle & ready & by_level,
        };
        if given_up.is_empty() {
            return Step::Nothing;
        }
        self.watched -= given_up;
        Step::Arm
    }

    /// The latch has changed, and with it all that is watched.
    pub(super) fn start_over(&mut self) {
        *self = Park { parked: self.parked, watched: self.parked, ..Park::default() };
    }
}

#[cfg(test)]
mod tests;
