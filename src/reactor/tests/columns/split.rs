//! A selector with epoll's edges, except for WRITABLE, which poll reports by level.

use crate::event::Interest;
use crate::key::Slot;
use crate::poll_bits::PollBits;
use crate::selector::epoll::Epoll;
use crate::selector::poll::Poll;
use crate::selector::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Trigger, Triggers, WaitOutcome, WakeHandle,
};
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

pub(super) struct Split {
    edges: Epoll,
    levels: Poll,
    /// The directions watched by epoll.
    watched: HashMap<Slot, Interest>,
}

/// The directions reported by level.
pub(super) const LEVEL: Interest = Interest::WRITABLE;

impl Split {
    pub(super) fn new() -> Self {
        let (edges, levels) = (Epoll::new().expect("epoll"), Poll::new().expect("an eventfd"));
        Split { edges, levels, watched: HashMap::new() }
    }
}

impl Selector for Split {
    fn native(&self) -> Triggers {
        Triggers::EDGE
    }

    fn arm(
        &mut self,
        slot: Slot,
        fd: BorrowedFd<'_>,
        request: ArmRequest,
    ) -> io::Result<ArmOutcome> {
        let (edges, levels) = (request.dirs - LEVEL, request.dirs & LEVEL);
        // Arming again would report present readiness twice (E3).
        if self.watched.insert(slot, edges) != Some(edges) {
            self.edges.disarm(slot, fd);
            if !edges.is_empty() {
                let ends = PollBits::empty();
                self.edges.arm(
                    slot,
                    fd,
                    ArmRequest { dirs: edges, ends, trigger: Trigger::Edge },
                )?;
            }
        }
        self.levels.disarm(slot, fd);
        if !levels.is_empty() || !request.ends.is_empty() {
            self.levels.arm(
                slot,
                fd,
                ArmRequest { dirs: levels, trigger: Trigger::Level, ..request },
            )?;
        }
        Ok(ArmOutcome {
            level: LEVEL,
            needs_initial_poll: true,
            ..ArmOutcome::whole(Trigger::Edge)
        })
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.watched.remove(&slot);
        self.edges.disarm(slot, fd);
        self.levels.disarm(slot, fd);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.watched.remove(&slot);
        self.edges.remove(slot, fd);
        self.levels.remove(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let old = out.len();
        loop {
            self.edges.wait(Deadline::Now, out)?;
            self.levels.wait(Deadline::Now, out)?;
            if out.len() > old {
                out[old..].iter_mut().for_each(|raw| *raw = Report::Hint(raw.slot()));
                return Ok(WaitOutcome::Events);
            }
            if deadline.has_passed() {
                return Ok(WaitOutcome::TimedOut);
            }
            std::thread::yield_now();
        }
    }

    fn wake_handle(&self) -> WakeHandle {
        self.edges.wake_handle()
    }
}
