//! The reactor: everything that all backends share. It implements [`Poller`] once, over any
//! [`Selector`].
//!
//! A wait has four parts. *Reify*: the kernel is told what deliveries have changed. *Wait*: the
//! selector takes what the kernel has to report, about as much as there is room for. *Verify*:
//! hints are polled. *Deliver*: the FIFO of old and new reports is popped up to the capacity; the
//! rest keeps its order for the next wait.
//!
//! [`readiness`] knows no operation, and [`operations`] no registration: the reactor routes between
//! them, and carries out what operations ask for ([`parts`]).

mod batch;
mod operations;
mod parts;
mod readiness;

use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::{Key, OpSlot, Slot, next_poller_id};
use crate::op::{Op, OpId, Rejected};
use crate::poll_bits::PollBits;
use crate::poller::{Capabilities, Poller, Source};
use crate::selector::{Deadline, OpEvent, Selector, WaitOutcome};
use crate::statistics::Statistics;
use crate::sys;
use crate::waker::{Parker, Waker};
use operations::{Operations, Why};
use parts::Parts;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

/// The most rounds in which a wait that could end goes on, for operations that became the heads of
/// their queues or for what one look has left in the kernel (T1).
const MAX_ROUNDS: usize = 16;
/// How much larger each further verification of one wait is.
const VERIFY_GROWTH: usize = 4;

/// A selector under the contract.
pub struct Reactor<S> {
    backend: Backend,
    id: u32,
    // Before the operations, so that the mechanism is gone when buffers are dropped (D1).
    parts: Parts<S>,
    operations: Operations,
    /// What the selector and the threads have to tell; kept for its memory.
    events: Vec<OpEvent>,
    parker: Parker,
    /// Signals and rings are a thread's own, so a poller stays on its thread on every backend
    /// (P4).
    not_send: PhantomData<*mut ()>,
}

impl<S: Selector> Reactor<S> {
    /// Makes a poller out of a selector that nothing is registered with yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` before Linux 4.14, which has no way to tell a forked child (madvise(2),
    /// `MADV_WIPEONFORK`). `Other` after four billion pollers: keys would not be unique.
    pub fn new(backend: Backend, selector: S) -> io::Result<Self> {
        let parker = Parker::new(selector.wake_handle())?;
        let id = next_poller_id()?;
        Ok(Reactor {
            backend,
            id,
            parts: Parts::new(selector, parker.notifier()),
            operations: Operations::of_poller(id),
            parker,
            events: Vec::new(),
            not_send: PhantomData,
        })
    }

    /// Checks every invariant of the registry, and panics if one does not hold.
    #[cfg(any(test, feature = "spi"))]
    pub fn verify(&self) {
        self.parts.readiness.verify();
        self.operations.verify(&self.parts);
    }

    /// Takes what the selector and the threads have to tell of operations, and runs what goes on.
    fn collect_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.parts.drain_events(&mut events);
        self.operations.on_driver_events(&mut events, &mut self.parts);
        self.parts.thread_pool.collect(&mut events, &mut self.parts.deferred_drops);
        self.operations.on_thread_events(&mut events, &mut self.parts);
        self.operations.run(&mut self.parts);
        self.events = events;
    }

    /// Makes the next wait serve receives that found no buffer outside of a wait.
    fn note_buffers(&mut self) {
        if self.operations.must_ask_pools() {
            self.parts.notifier.wake_by_ref();
        }
    }

    /// Clause R10: bits that mean nothing here would be watched for nothing, and never reported.
    fn check_directions(interest: Interest) -> io::Result<()> {
        if Interest::all().contains(interest) {
            return Ok(());
        }
        Err(invalid("an unknown direction"))
    }

    /// Clauses P1 and R4, which every call on a registration begins with.
    fn resolve(&self, key: Key) -> io::Result<Slot> {
        self.parker.check_process()?;
        self.find(key)
    }

    /// Clause R4.
    fn find(&self, key: Key) -> io::Result<Slot> {
        // Where there are operations they know it too, and what they know is in the cache.
        let known = key.poller == self.id
            && (self.operations.has_source(key.slot) || self.parts.readiness.contains(key.slot));
        match known {
            true => Ok(key.slot),
            false => Err(self.not_found(key.poller, "unknown or stale key")),
        }
    }

    /// Returns the error for a name that is unknown here, and was given out by this poller.
    fn not_found(&self, poller: u32, cause: &'static str) -> io::Error {
        let cause = if poller == self.id { cause } else { "it was given out by another poller" };
        io::Error::new(io::ErrorKind::NotFound, cause)
    }

    /// Clause R10, for calls that name a part of the interest.
    fn resolve_subset(&self, key: Key, dirs: Interest) -> io::Result<Slot> {
        let slot = self.resolve(key)?;
        if self.parts.readiness.source(slot).is_some_and(|(_, interest)| interest.contains(dirs)) {
            return Ok(slot);
        }
        Err(invalid("a direction outside the registered interest"))
    }

    /// Looks into the kernel once, and queues what it reports. Returns true if a wake was taken.
    fn collect(&mut self, deadline: Deadline) -> io::Result<(WaitOutcome, bool)> {
        let may_sleep = deadline != Deadline::Now && self.parts.readiness.queue_len() == 0;
        let asleep = may_sleep && self.parker.prepare_park();
        let waited = self.parts.look(if asleep { deadline } else { Deadline::Now });
        let woken = self.parker.finish_park();
        // What is notified from now on is for the next look.
        let is_notified = self.parker.take_notifications();
        self.collect_events();
        self.operations.on_buffers(is_notified, &mut self.parts);
        match waited {
            Ok(wake) => Ok((wake, woken)),
            Err(error) => {
                if woken {
                    self.parker.restore_wake();
                }
                Err(error)
            }
        }
    }

    /// Serves the queue, once round at most (H4), up to the capacity. After an error the rest is
    /// still queued.
    fn deliver(&mut self, events: &mut Events) -> io::Result<()> {
        let mut unserved = self.parts.readiness.queue_len();
        let mut batch = events.room();
        while unserved > 0 && events.room() > 0 {
            batch = batch.min(unserved);
            self.parts.readiness.verify_front(batch)?;
            for _ in 0..batch {
                if events.room() == 0 {
                    break;
                }
                unserved -= 1;
                if let Some((slot, bits)) = self.parts.readiness.pop() {
                    self.serve_operations(slot, bits);
                    self.parts.readiness.report(Key { poller: self.id, slot }, bits, events);
                }
            }
            // Many of them have proved false: a batch that grows keeps the calls few.
            batch = batch.saturating_mul(VERIFY_GROWTH);
        }
        Ok(())
    }

    /// Runs the operations that await what was found of a source.
    fn serve_operations(&mut self, slot: Slot, bits: PollBits) {
        let (ready, is_spurious) = self.parts.readiness.on_report(slot, bits);
        if !ready.is_empty() {
            self.operations.on_ready(slot, ready, &mut self.parts);
        }
        if is_spurious {
            self.parts.readiness.on_spurious(slot);
        }
    }

    /// Delivers completions, up to the capacity.
    fn deliver_completions(&mut self, events: &mut Events) {
        self.operations.deliver(events, &mut self.parts.deferred_drops);
        self.operations.run(&mut self.parts);
    }

    /// Clauses P1, R4 and M1, for an operation. Takes its buffer if it is accepted.
    fn accept(&mut self, op: &mut Op, token: Token) -> io::Result<OpSlot> {
        self.parker.check_process()?;
        let source = op.key.map(|key| self.find(key)).transpose()?;
        let target = op.target().map(|key| self.find(key)).transpose()?;
        if target.is_some() && source == target {
            return Err(invalid("from a source to itself"));
        }
        if let Some(slot) = source {
            self.accept_source(slot, operations::direction_of(op))?;
        }
        if let Some(slot) = target {
            self.accept_source(slot, Interest::WRITABLE)?;
        }
        self.operations.submit(op, token, source, target, &mut self.parts)
    }

    /// Clause M1.
    fn accept_source(&mut self, slot: Slot, dir: Interest) -> io::Result<()> {
        let known = self.operations.interest(slot);
        let registered = || self.parts.readiness.source(slot).map(|(_, interest)| interest);
        let Some(interest) = known.or_else(registered) else { return Ok(()) };
        if interest.intersects(dir) {
            return Err(invalid("the source is watched for what the operation would wait for"));
        }
        if known.is_none() {
            self.operations.add_source(slot, interest, &mut self.parts)?;
        }
        Ok(())
    }

    /// Returns true if the kernel can add nothing to the completions that are to be delivered:
    /// nothing is watched, and they fill these events or no operation is under way. Then the kernel
    /// is not asked.
    fn has_all_completions(&self, events: &Events) -> bool {
        let (room, count) = (events.completion_room(), self.operations.completed_len());
        let is_all = count >= room || !self.operations.has_unfinished();
        !self.parts.readiness.is_watching() && room > 0 && count > 0 && is_all
    }

    /// Ends a wait without asking the kernel.
    fn deliver_what_there_is(&mut self, events: &mut Events) {
        if self.parker.finish_park() {
            events.set_woken();
        }
        self.operations.on_time(&mut self.parts);
        self.deliver_completions(events);
        self.parts.run_deferred_drops();
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl<S: Selector> Poller for Reactor<S> {
    fn backend(&self) -> Backend {
        self.backend
    }

    fn capabilities(&self) -> Capabilities {
        self.parts.capabilities()
    }

    fn statistics(&self) -> Statistics {
        Statistics { overflows: self.parts.overflows, ..self.operations.statistics() }
    }

    fn set_max_threads(&mut self, max: usize) {
        self.parts.thread_pool.set_max_threads(max);
    }

    fn register(
        &mut self,
        source: Source,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<Key> {
        self.parker.check_process()?;
        Self::check_directions(interest)?;
        let source = sys::file::SourceFd::new(source);
        let number = source.raw_fd();
        let (slot, io_mode) = self.parts.register(source, token, interest, mode)?;
        if let Some(io_mode) = io_mode {
            self.operations.insert_source(slot, number, io_mode, interest);
        }
        Ok(Key { poller: self.id, slot })
    }

    fn modify(&mut self, key: Key, token: Token, interest: Interest, mode: Mode) -> io::Result<()> {
        let slot = self.resolve(key)?;
        Self::check_directions(interest)?;
        if interest.intersects(self.operations.busy(slot)) {
            return Err(invalid("there are operations in a direction that is to be watched"));
        }
        self.parts.readiness.modify(&mut self.parts.selector, slot, token, interest, mode)?;
        self.operations.on_watched(slot, interest, &mut self.parts);
        self.note_buffers();
        Ok(())
    }

    fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let slot = self.resolve_subset(key, interest)?;
        self.parts.readiness.rearm(&mut self.parts.selector, slot, interest)
    }

    fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let slot = self.resolve_subset(key, interest)?;
        self.parts.readiness.drained(&mut self.parts.selector, slot, interest)
    }

    fn deregister(&mut self, key: Key) -> io::Result<()> {
        let slot = self.resolve(key)?;
        // What has completed already keeps its place.
        self.collect_events();
        self.operations.remove(slot, &mut self.parts);
        self.note_buffers();
        let Some(source) = self.parts.readiness.remove(slot) else { return Ok(()) };
        self.parts.selector.remove(slot, source.fd());
        self.parts.deferred_drops.push(source);
        self.parts.run_deferred_drops();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        self.parker.check_process()?;
        if events.capacity() == 0 {
            return Err(invalid("these Events have a capacity of 0"));
        }
        self.operations.set_room(events.capacity());
        let deadline = Deadline::after(timeout);
        let mut rounds = MAX_ROUNDS;
        self.parts.readiness.begin_wait()?;
        loop {
            let reified = self.parts.readiness.reify_all(&mut self.parts.selector);
            let is_done = events.has_news()
                || self.operations.has_completed()
                || self.operations.awaits_silent_sends();
            // An error is told when there is nothing better to tell, but not slept on.
            let until = match reified.is_ok() && !is_done {
                true => deadline.or_at(self.operations.next_time()),
                false => Deadline::Now,
            };
            if self.has_all_completions(events) {
                self.deliver_what_there_is(events);
                return Ok(());
            }
            self.parts.limit_reports(events.room(), deadline);
            let (wake, woken) = self.collect(until)?;
            if woken {
                events.set_woken();
            }
            self.operations.on_time(&mut self.parts);
            let delivered = self.deliver(events);
            self.parts.note_received(self.operations.take_received());
            self.deliver_completions(events);
            self.parts.run_deferred_drops();
            let has_nothing = events.is_empty() && events.completed() == 0;
            if let (Err(error), true) = (delivered, has_nothing) {
                if events.woken() {
                    self.parker.restore_wake();
                    events.clear();
                }
                return Err(error);
            }
            let is_ending = events.has_news() || deadline.has_passed();
            if is_ending && rounds > 0 && self.parts.must_look_again(events, deadline) {
                rounds -= 1;
                continue;
            }
            if events.has_news() {
                return Ok(());
            }
            reified?;
            // A look that a signal cut short is no look: there has to be another (T1, T5).
            if deadline.has_passed() && wake != WaitOutcome::Interrupted {
                return Ok(());
            }
        }
    }

    fn submit(&mut self, mut op: Op, token: Token) -> Result<OpId, Rejected> {
        match self.accept(&mut op, token) {
            Ok(slot) => Ok(OpId { poller: self.id, slot }),
            Err(error) => Err(Rejected::new(op, error)),
        }
    }

    fn pending(&self, key: Key) -> usize {
        self.find(key).map_or(0, |slot| self.operations.pending(slot))
    }

    fn cancel(&mut self, id: OpId) -> io::Result<()> {
        self.parker.check_process()?;
        if id.poller != self.id || !self.operations.contains(id.slot) {
            return Err(self.not_found(id.poller, "no such operation is under way"));
        }
        self.operations.cancel(id.slot, Why::User, &mut self.parts);
        self.operations.run(&mut self.parts);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.parker.waker()
    }
}

impl<S> Drop for Reactor<S> {
    /// Files are as before. In a forked child they are the parent's (P1).
    fn drop(&mut self) {
        if !self.parker.is_in_foreign_process() {
            let readiness = &self.parts.readiness;
            self.operations.for_each_source(|slot, mode| {
                if let Some((file, _)) = readiness.source(slot) {
                    mode.restore(file.raw_fd());
                }
            });
            self.operations.stop_notifying(&self.parts.notifier);
            self.parts.thread_pool.close();
        }
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Reactor");
        f.field("backend", &self.backend)
            .field("id", &self.id)
            .field("readiness", &self.parts.readiness)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
