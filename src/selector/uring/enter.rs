//! How often the kernel is entered, and for how long.

use super::poll_state::Watch;
use super::{Deadline, Uring, refused_with};
use crate::key::Slot;
use std::io;
use std::time::Duration;

/// How often in vain the kernel is entered for the end of a poll. Once is usual; twice, if another
/// processor was just waking the poll.
const PATIENCE: usize = 1000;
/// How many pieces of deferred work the kernel does when it is entered (h).
const WORK_PER_ENTER: usize = 20;
/// How often a wait enters the kernel beyond that for what is left. Once is enough; twice, if
/// another processor was just about to leave it something.
const EXTRA_ENTERS: usize = 2;
/// How often a wait enters the kernel at most, beyond twice for each poll: polls that end and are
/// armed again must not keep the thread in it.
const MAX_ENTERS: usize = 64;
/// How often a wait arms polls that end as they begin: they must not keep the thread in it.
const MAX_RESTARTS: usize = 64;
/// How long dropping it waits for operations that can't be interrupted. The memory of those that
/// are not over then is never freed ([`leaked_buffers`](crate::sys::io_call::leaked_buffers)).
const LAST_WAIT: Duration = Duration::from_secs(1);

impl Uring {
    /// Queues what was in vain.
    fn try_again(&mut self) {
        self.polls.cancel_again();
        for slot in std::mem::take(&mut self.refused) {
            let is_due = |watch: &mut Watch| watch.poll.is_none() && !watch.dirs.is_empty();
            if self.watch(slot).is_some_and(is_due) {
                self.begin(slot);
            }
        }
    }

    /// Enters the kernel for what it has to tell, and waits for something if it has nothing.
    pub(super) fn run(&mut self, deadline: Deadline) -> io::Result<()> {
        self.try_again();
        // What does not fit into the ring must not wait with the rest. A flood may queue more.
        for _ in 0..self.polls.len() + self.polls.operations() {
            if !self.polls.has_queued_too_much() {
                break;
            }
            self.enter(0, None)?;
        }
        let must_not_sleep = self.has_news() || self.polls.has_queued_too_much();
        let entered = if deadline == Deadline::Now || must_not_sleep {
            self.enter(0, None)
        } else {
            self.enter(1, deadline.remaining())
        };
        self.drain_polls()?;
        entered
    }

    /// Enters the kernel until it has nothing more of what it had when this began, if there are
    /// polls: the edges that it would keep back are not in the order of the level. Does not go
    /// after what comes meanwhile. Operations may be left for the next wait.
    fn drain_polls(&mut self) -> io::Result<()> {
        for _ in 0..MAX_RESTARTS {
            // Whether a poll ends as it begins is told by an enter that does not wait.
            if !std::mem::take(&mut self.has_restarted) {
                break;
            }
            self.enter(0, None)?;
        }
        let all = self.polls.len() + self.polls.operations();
        let mut left = EXTRA_ENTERS + all / WORK_PER_ENTER;
        for _ in 0..MAX_ENTERS + 2 * all {
            let is_asked = self.polls.has_queued();
            let is_drained = !is_asked && (left == 0 || !self.polls.has_more());
            if self.watches.len() == 0 || is_drained {
                break;
            }
            self.enter(0, None)?;
            // Where there was no room for more, the rest is of before, too.
            left = left.saturating_sub(usize::from(!is_asked && !self.polls.was_full()));
        }
        Ok(())
    }

    fn has_news(&self) -> bool {
        let has_heard = !self.heard.is_empty() || self.is_notified || self.has_lost;
        has_heard || self.polls.has_events()
    }

    /// Waits for the ends of polls that are to end.
    pub(super) fn settle_until(&mut self, has_ended: impl Fn(&mut Self) -> bool) {
        let mut patience = PATIENCE;
        for _ in 0..PATIENCE + 4 * (self.polls.len() + self.polls.operations()) {
            if has_ended(self) || patience == 0 {
                break;
            }
            let before = self.polls.progress();
            self.polls.cancel_again();
            if self.enter(0, None).is_err_and(|error| !may_pass(&error)) {
                break;
            }
            if self.polls.progress() == before {
                patience -= 1;
                std::thread::yield_now();
            }
        }
    }

    /// Waits for operations that can't be interrupted, but not for ever.
    pub(super) fn wait_for_the_last(&mut self) {
        let deadline = Deadline::after(Some(LAST_WAIT));
        while self.polls.operations() > 0 && !deadline.has_passed() {
            self.polls.cancel_again();
            if self.enter(1, deadline.remaining()).is_err_and(|error| !may_pass(&error)) {
                break;
            }
        }
    }

    /// Has the kernel take the poll of a file of which it is not certain that it can.
    pub(super) fn insist(&mut self, slot: Slot) -> io::Result<()> {
        let poll = self.watch(slot).and_then(|watch| watch.poll);
        while poll.is_some_and(|poll| self.polls.is_queued(poll)) {
            self.enter(0, None)?;
        }
        match self.refusal.take_if(|(refused, _)| *refused == slot) {
            Some((_, errno)) => Err(refused_with(errno)),
            None => Ok(()),
        }
    }
}

/// Whether the kernel may answer otherwise the next time.
fn may_pass(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
}
