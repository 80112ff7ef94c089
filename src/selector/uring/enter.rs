//! The enters of a wait: how many, and for how long.

use super::poll_state::Watch;
use super::{Deadline, Uring, refusal_error};
use crate::key::Slot;
use std::io;
use std::time::Duration;

/// The most enters without progress while waiting for the end of a poll. One is usual, two if
/// another processor was just waking the poll.
const MAX_IDLE_ENTERS: usize = 1000;
/// The pieces of deferred work that the kernel does in an enter (h).
const WORK_PER_ENTER: usize = 20;
/// Further enters of a wait for deferred work that is left. One is enough, two if another processor
/// was just about to add some.
const EXTRA_ENTERS: usize = 2;
/// The most enters of a wait, in addition to two for each poll: polls that end and are armed again
/// must not keep the wait from returning.
const MAX_ENTERS: usize = 64;
/// The most times that a wait arms polls that end as they begin, for the same reason.
const MAX_RESTARTS: usize = 64;
/// The time that the drop waits for operations that cannot be interrupted. The memory of those that
/// are still in flight then is never freed
/// ([`leaked_buffers`](crate::sys::io_call::leaked_buffers)).
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

impl Uring {
    /// Queues cancels that came too early, and polls that were refused.
    fn retry(&mut self) {
        self.polls.retry_cancels();
        for slot in std::mem::take(&mut self.refused) {
            let is_due = |watch: &mut Watch| watch.poll.is_none() && !watch.dirs.is_empty();
            if self.watch(slot).is_some_and(is_due) {
                self.queue_poll(slot);
            }
        }
    }

    /// Enters the kernel to submit and to collect CQEs, and waits if there are none.
    pub(super) fn run(&mut self, deadline: Deadline) -> io::Result<()> {
        self.retry();
        // Submits what exceeds the ring before the sleep. CQEs may queue more SQEs.
        for _ in 0..self.polls.len() + self.polls.operations() {
            if !self.polls.exceeds_ring() {
                break;
            }
            self.enter(0, None)?;
        }
        let must_not_sleep = self.has_pending() || self.polls.exceeds_ring();
        let entered = if deadline == Deadline::Now || must_not_sleep {
            self.enter(0, None)
        } else {
            self.enter(1, deadline.remaining())
        };
        self.drain_polls()?;
        entered
    }

    /// If there are polls, enters the kernel until it has delivered the edges that were pending at
    /// the start. Those that it would keep back are in no fair order. Ignores later wake-ups.
    /// Operations may be left for the next wait.
    fn drain_polls(&mut self) -> io::Result<()> {
        for _ in 0..MAX_RESTARTS {
            // Only an enter that does not wait shows that a poll ends as it begins.
            if !std::mem::take(&mut self.has_restarted) {
                break;
            }
            self.enter(0, None)?;
        }
        let all = self.polls.len() + self.polls.operations();
        let mut left = EXTRA_ENTERS + all / WORK_PER_ENTER;
        for _ in 0..MAX_ENTERS + 2 * all {
            let is_pushed = self.polls.has_queued();
            let is_drained = !is_pushed && (left == 0 || !self.polls.has_more());
            if self.watches.len() == 0 || is_drained {
                break;
            }
            self.enter(0, None)?;
            // If the CQ was full, the rest was pending at the start, too.
            left = left.saturating_sub(usize::from(!is_pushed && !self.polls.was_full()));
        }
        Ok(())
    }

    fn has_pending(&self) -> bool {
        let has_heard = !self.reported.is_empty() || self.is_notified || self.has_lost_completions;
        has_heard || self.polls.has_op_events()
    }

    /// Enters the kernel until `has_ended` is true, or nothing progresses.
    pub(super) fn enter_until(&mut self, has_ended: impl Fn(&mut Self) -> bool) {
        let mut idle_enters_left = MAX_IDLE_ENTERS;
        for _ in 0..MAX_IDLE_ENTERS + 4 * (self.polls.len() + self.polls.operations()) {
            if has_ended(self) || idle_enters_left == 0 {
                break;
            }
            let before = self.polls.progress();
            self.polls.retry_cancels();
            if self.enter(0, None).is_err_and(|error| !is_transient(&error)) {
                break;
            }
            if self.polls.progress() == before {
                idle_enters_left -= 1;
                std::thread::yield_now();
            }
        }
    }

    /// Waits for operations that cannot be interrupted, up to [`DROP_TIMEOUT`].
    pub(super) fn wait_in_flight(&mut self) {
        let deadline = Deadline::after(Some(DROP_TIMEOUT));
        while self.polls.operations() > 0 && !deadline.has_passed() {
            self.polls.retry_cancels();
            if self.enter(1, deadline.remaining()).is_err_and(|error| !is_transient(&error)) {
                break;
            }
        }
    }

    /// Submits the poll now, so that `register` and not a later `wait` reports an unsupported file.
    pub(super) fn submit_now(&mut self, slot: Slot) -> io::Result<()> {
        let poll = self.watch(slot).and_then(|watch| watch.poll);
        while poll.is_some_and(|poll| self.polls.is_queued(poll)) {
            self.enter(0, None)?;
        }
        match self.refusal.take_if(|(refused, _)| *refused == slot) {
            Some((_, errno)) => Err(refusal_error(errno)),
            None => Ok(()),
        }
    }
}

/// Returns true if the next enter may succeed.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
}
