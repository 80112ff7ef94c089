//! How often the kernel is entered, and for how long.

use super::watch::Watch;
use super::{Deadline, Uring, refused_with};
use crate::key::Slot;
use crate::sys::ring::Least;
use std::io;
use std::time::Duration;

/// How often in vain the kernel is entered for the end of a poll. Once is usual; twice, if another
/// processor was just waking the poll.
const PATIENCE: usize = 1000;
/// How often one wait enters the kernel for what that has left. Once is enough; twice, if another
/// processor was just about to leave it something.
const EXTRA_TURNS: usize = 2;
/// To ask for more than there may be, and not to wait for it, has the kernel set a timer, which
/// takes longer than several calls for some twenty each. Where so many may be ready it is worth
/// that.
const MANY: usize = 256;
/// So many calls for some twenty each come before, where there are less.
const SMALL_TURNS: usize = 8;
/// How often one wait enters the kernel beyond twice for each poll, lest what ends and is asked for
/// again keeps it for ever.
const MOST_TURNS: usize = 64;
/// How long dropping it waits for operations that can't be interrupted. The memory of those that
/// are not over then is never freed ([`leaked_buffers`](crate::sys::prepared::leaked_buffers)).
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

    /// Has the kernel tell everything it has to tell, and waits for something if it has nothing.
    pub(super) fn run(&mut self, deadline: Deadline) -> io::Result<()> {
        self.try_again();
        // What does not fit into the ring must not wait with the rest. A flood may queue more.
        for _ in 0..self.polls.len() + self.polls.operations() {
            if !self.polls.has_queued_too_much() {
                break;
            }
            self.enter(Least::NONE, None)?;
        }
        let has_heard = !self.heard.is_empty() || self.is_notified || self.has_lost;
        let has_news = has_heard || self.polls.has_landed();
        let entered = if deadline == Deadline::Now || has_news || self.polls.has_queued_too_much() {
            self.enter(Least::NONE, None)
        } else {
            self.enter(Least::ONE, deadline.remaining())
        };
        self.exhaust()?;
        entered
    }

    /// Enters the kernel until it has nothing more of what it had when this began, but does not go
    /// after what comes meanwhile.
    fn exhaust(&mut self) -> io::Result<()> {
        let all = self.polls.len() + self.polls.operations();
        // For as many completions as are asked for it does its work in one call (h); it is not to
        // wait for them.
        let least = Least { count: all as u32, or_one_after: None };
        let small = if all < MANY { SMALL_TURNS } else { 0 };
        let mut left = EXTRA_TURNS;
        for turn in 0..MOST_TURNS + 2 * all {
            let is_asked = self.polls.has_queued();
            if !is_asked && (left == 0 || !self.polls.has_more()) {
                break;
            }
            if turn < small {
                self.enter(Least::NONE, None)?;
                continue;
            }
            self.enter(least, Some(Duration::ZERO))?;
            // Where there was no room for more, the rest is of before, too.
            left -= usize::from(!is_asked && !self.polls.was_full());
        }
        Ok(())
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
            if self.enter(Least::NONE, None).is_err_and(|error| !may_pass(&error)) {
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
            if self.enter(Least::ONE, deadline.remaining()).is_err_and(|error| !may_pass(&error)) {
                break;
            }
        }
    }

    /// Has the kernel take the poll of a file of which it is not certain that it can.
    pub(super) fn insist(&mut self, slot: Slot) -> io::Result<()> {
        let poll = self.watch(slot).and_then(|watch| watch.poll);
        while poll.is_some_and(|poll| self.polls.is_queued(poll)) {
            self.enter(Least::NONE, None)?;
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
