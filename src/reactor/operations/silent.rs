//! Sends that the driver has, and whose success it may not tell at once.
//!
//! A ring knows that a silent send (`Op::skip_success`) has succeeded when it has entered the
//! kernel and no completion has come. An enter that also sleeps for something else would keep back
//! what waits for the send.

/// Those that the driver has.
#[derive(Debug, Default)]
pub(super) struct SilentSends {
    count: usize,
    /// An operation was behind one of them in its queue.
    has_successor: bool,
}

impl SilentSends {
    /// The driver was given one.
    pub(super) fn insert(&mut self, has_successor: bool) {
        self.count += 1;
        self.has_successor |= has_successor;
    }

    /// The driver has returned one.
    pub(super) fn remove(&mut self) {
        self.count -= 1;
        self.has_successor &= self.count > 0;
    }

    /// An operation is behind another one in a queue.
    pub(super) fn note_successor(&mut self) {
        self.has_successor = self.count > 0;
    }

    /// Returns true if something may wait for one of them. `awaits_buffers`: receives wait for
    /// buffers, which sends may have.
    pub(super) fn are_awaited(&self, awaits_buffers: bool) -> bool {
        self.has_successor || (self.count > 0 && awaits_buffers)
    }
}
