//! Silent sends in the driver, whose success may not be reported at once.
//!
//! A ring knows that a silent send (`Op::skip_success`) has succeeded when it has entered the
//! kernel without a completion. An enter that sleeps for something else would delay the operations
//! that wait for the send.

/// The silent sends in the driver.
#[derive(Debug, Default)]
pub(super) struct SilentSends {
    count: usize,
    /// An operation is queued behind one of them.
    has_successor: bool,
}

impl SilentSends {
    /// Notes that the driver got a silent send.
    pub(super) fn insert(&mut self, has_successor: bool) {
        self.count += 1;
        self.has_successor |= has_successor;
    }

    /// Notes that the driver has returned a silent send.
    pub(super) fn remove(&mut self) {
        self.count -= 1;
        self.has_successor &= self.count > 0;
    }

    /// Notes that an operation was queued behind another.
    pub(super) fn note_successor(&mut self) {
        self.has_successor = self.count > 0;
    }

    /// Returns true if an operation may wait for a silent send. `awaits_buffers` is true if
    /// receives wait for buffers, which sends may hold.
    pub(super) fn are_awaited(&self, awaits_buffers: bool) -> bool {
        self.has_successor || (self.count > 0 && awaits_buffers)
    }
}
