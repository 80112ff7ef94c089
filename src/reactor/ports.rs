//! What operations ask for, carried out by the other parts of a reactor.

use super::latch::Step;
use super::operations::Io;
use super::registry::Registry;
use super::thread_pool::ThreadPool;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::poll_bits::PollBits;
use crate::selector::{Landed, Selector, Start};
use crate::sys;
use crate::sys::file::{Held, has_more, has_not_connected_again};
use crate::sys::manner::Manner;
use crate::sys::prepared::{Gain, Prepared, shutdown};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task;

/// The parts of a reactor without its operations.
pub(super) struct Ports<'a, S> {
    pub(super) selector: &'a mut S,
    pub(super) registry: &'a mut Registry,
    pub(super) thread_pool: &'a mut ThreadPool,
    pub(super) notifier: &'a task::Waker,
    pub(super) deferred_drops: &'a mut Vec<Held>,
    /// Set when the selector was given an operation.
    pub(super) has_submitted: &'a mut bool,
}

impl<S: Selector> Io for Ports<'_, S> {
    fn attempt(&mut self, call: &mut Prepared, mode: &mut Manner) -> io::Result<Gain> {
        call.attempt(mode)
    }

    fn attempt_splice(
        &mut self,
        call: &mut Prepared,
        from: &mut Manner,
        to: &mut Manner,
    ) -> io::Result<Gain> {
        call.attempt_splice(from, to)
    }

    fn shutdown(&mut self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        shutdown(fd, how)
    }

    fn poll_now(&mut self, fd: BorrowedFd<'_>, dir: Interest) -> PollBits {
        let asked = PollBits::asked(dir);
        let mut fds =
            [sys::poll::pollfd { fd: fd.as_raw_fd(), events: asked.bits() as i16, revents: 0 }];
        match sys::poll::look(&mut fds) {
            Ok(_) => PollBits::from_bits_retain(fds[0].revents as u16),
            Err(_) => asked - PollBits::RDHUP,
        }
    }

    fn has_bytes(&mut self, fd: BorrowedFd<'_>) -> bool {
        has_more(fd)
    }

    fn has_not_reconnected(&mut self, fd: BorrowedFd<'_>) -> bool {
        has_not_connected_again(fd)
    }

    fn submit(&mut self, op: OpSlot, call: Prepared) -> Result<(), Prepared> {
        match self.selector.start(op, call) {
            Start::Emulate(call) => Err(call),
            Start::Native => {
                *self.has_submitted = true;
                Ok(())
            }
        }
    }

    fn cancel(&mut self, op: OpSlot) {
        self.selector.cancel(op);
    }

    fn cancel_and_wait(&mut self, ops: &[OpSlot], events: &mut Vec<Landed>) {
        self.selector.settle(ops);
        self.selector.take(events);
    }

    fn spawn(&mut self, op: OpSlot, call: Prepared, files: Vec<Held>) {
        self.thread_pool.submit(op, call, files);
    }

    fn withdraw(&mut self, op: OpSlot) -> Option<Prepared> {
        self.thread_pool.withdraw(op)
    }

    fn await_ready(&mut self, slot: Slot, dir: Interest) {
        let Some(registration) = self.registry.get_mut(slot) else { return };
        let trigger = registration.latch.trigger();
        if registration.awaited.await_ready(dir, trigger) == Step::Arm {
            self.registry.note_lagging(slot);
        }
    }

    fn stop_awaiting(&mut self, slot: Slot, dir: Interest) {
        if let Some(registration) = self.registry.get_mut(slot) {
            registration.awaited.stop_awaiting(dir);
        }
    }

    fn recheck(&mut self, slot: Slot, dir: Interest) {
        self.registry.queue_look(slot, dir);
    }

    fn recheck_all(&mut self, slot: Slot) {
        self.registry.queue_hint(slot);
    }

    fn note_short_read(&mut self, slot: Slot, dir: Interest) {
        if let Some(registration) = self.registry.get_mut(slot) {
            registration.awaited.note_short_read(dir);
        }
    }

    fn can_skip_attempt(&mut self, slot: Slot, dir: Interest) -> bool {
        self.registry.get(slot).is_some_and(|registration| {
            registration.awaited.is_likely_not_ready(dir, registration.latch.by_level())
        })
    }

    fn notifier(&self) -> &task::Waker {
        self.notifier
    }

    fn defer_drop(&mut self, files: Vec<Held>) {
        self.deferred_drops.extend(files);
    }
}
