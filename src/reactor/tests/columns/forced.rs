//! A selector that hides some of its triggers, and fails on request.

use crate::event::Interest;
use crate::key::Slot;
use crate::selector::{
    ArmOutcome, ArmRequest, Deadline, Report, Selector, Triggers, WaitOutcome, WakeHandle,
};
use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// The next failures, each once, and the counts of calls.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) refuse: Cell<bool>,
    pub(super) fail: Cell<bool>,
    pub(super) overflow: Cell<bool>,
    pub(super) interrupt: Cell<bool>,
    pub(super) arms: Cell<usize>,
    pub(super) waits: Cell<usize>,
}

impl Faults {
    pub(super) fn clear(&self) {
        for fault in [&self.refuse, &self.fail, &self.overflow, &self.interrupt] {
            fault.set(false);
        }
    }
}

pub(super) struct Forced {
    inner: Box<dyn Selector>,
    native: Triggers,
    hints: bool,
    initial_polls: bool,
    level: Interest,
    faults: Rc<Faults>,
}

impl Forced {
    pub(super) fn new(inner: Box<dyn Selector>, native: Triggers) -> Self {
        assert!(inner.native().contains(native), "the inner selector has these triggers");
        Forced {
            inner,
            native,
            hints: false,
            initial_polls: false,
            level: Interest::empty(),
            faults: Rc::default(),
        }
    }

    /// Reports hints instead of facts.
    pub(super) fn with_hints(self) -> Self {
        Forced { hints: true, ..self }
    }

    /// Leaves present readiness to the reactor.
    pub(super) fn with_initial_polls(self) -> Self {
        Forced { initial_polls: true, ..self }
    }

    /// Reports these directions by level, and others by edges.
    pub(super) fn with_levels(self, level: Interest) -> Self {
        Forced { level, ..self }
    }

    /// Returns the directions reported by level.
    pub(super) fn level(&self) -> Interest {
        self.level
    }

    pub(super) fn faults(&self) -> Rc<Faults> {
        self.faults.clone()
    }
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

impl Selector for Forced {
    fn native(&self) -> Triggers {
        self.native
    }

    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        self.faults.arms.set(self.faults.arms.get() + 1);
        if self.faults.refuse.take() {
            return Err(out_of_memory());
        }
        let applied = self.inner.arm(slot, fd, arm)?;
        Ok(ArmOutcome {
            needs_initial_poll: applied.needs_initial_poll || self.initial_polls,
            ..applied
        })
    }

    fn disarm(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.inner.disarm(slot, fd);
    }

    fn note_awaited(&mut self, slot: Slot, fd: BorrowedFd<'_>, dirs: Interest) {
        self.inner.note_awaited(slot, fd, dirs);
    }

    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.inner.remove(slot, fd);
    }

    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        self.faults.waits.set(self.faults.waits.get() + 1);
        let wake = self.inner.wait(deadline, out)?;
        if self.hints {
            for raw in out.iter_mut() {
                if let Report::Fact(slot, _) = *raw {
                    *raw = Report::Hint(slot);
                }
            }
        }
        if self.faults.fail.take() {
            return Err(out_of_memory());
        }
        if self.faults.overflow.take() {
            out.clear();
            return Ok(WaitOutcome::Overflow);
        }
        let interrupted = self.faults.interrupt.take() && out.is_empty();
        Ok(if interrupted { WaitOutcome::Interrupted } else { wake })
    }

    fn wake_handle(&self) -> WakeHandle {
        self.inner.wake_handle()
    }
}
