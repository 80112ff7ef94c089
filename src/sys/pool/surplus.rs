//! Counts the buffers that a pool did not need, by periods of takes.

/// A period has this many takes for each buffer. A burst that takes all of them is only a part of a
/// period, so bursts that follow each other closely share one.
const TAKES_PER_BUFFER: usize = 4;
/// A period has at least this many takes.
pub(super) const MIN_PERIOD: usize = 256;
/// Up to one buffer in this many is no surplus: a load with such variation allocates nothing.
const SLACK: usize = 8;
/// The number of buffers that are always kept for the next burst.
pub(super) const MIN_KEPT: usize = 16;

/// Counts the takes of a period, and the buffers that were idle throughout.
#[derive(Debug)]
pub(super) struct Surplus {
    takes_left: usize,
    min_idle: usize,
}

impl Default for Surplus {
    fn default() -> Self {
        Surplus { takes_left: MIN_PERIOD, min_idle: 0 }
    }
}

impl Surplus {
    /// Counts a take that leaves `idle` buffers.
    pub(super) fn note_take(&mut self, idle: usize) {
        self.takes_left = self.takes_left.saturating_sub(1);
        self.min_idle = self.min_idle.min(idle);
    }

    /// Returns true if the period has ended.
    pub(super) fn is_due(&self) -> bool {
        self.takes_left == 0
    }

    /// Returns the number of idle buffers to free: half of those that the period did not need.
    pub(super) fn count(&self, made: usize) -> usize {
        if self.min_idle <= made / SLACK {
            return 0;
        }
        self.min_idle.div_ceil(2).min(made.saturating_sub(MIN_KEPT))
    }

    /// Begins a period with `made` buffers, of which `idle` are idle.
    pub(super) fn begin(&mut self, made: usize, idle: usize) {
        self.takes_left = made.saturating_mul(TAKES_PER_BUFFER).max(MIN_PERIOD);
        self.min_idle = idle;
    }
}
