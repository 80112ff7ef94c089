//! Timers of operations. They shorten the wait, and need no file, signal or system call.

use crate::key::OpSlot;
use std::collections::BTreeSet;
use std::time::Instant;

/// The times of operations, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, OpSlot)>);

impl Timers {
    pub(super) fn add(&mut self, due: Instant, op: OpSlot) {
        self.0.insert((due, op));
    }

    pub(super) fn remove(&mut self, due: Instant, op: OpSlot) {
        self.0.remove(&(due, op));
    }

    /// Replaces the time of an operation.
    pub(super) fn replace(&mut self, op: OpSlot, before: Option<Instant>, now: Option<Instant>) {
        if let Some(before) = before {
            self.remove(before, op);
        }
        if let Some(now) = now {
            self.add(now, op);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(due, _)| due)
    }

    /// Pops an operation that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<OpSlot> {
        let &(due, op) = self.0.first()?;
        if due > now {
            return None;
        }
        self.0.pop_first();
        Some(op)
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn contains(&self, due: Instant, op: OpSlot) -> bool {
        self.0.contains(&(due, op))
    }

    #[cfg(any(test, feature = "spi"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests;
