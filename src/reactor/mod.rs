//! The reactor: everything that all backends share. It implements [`Poller`] once, over any
//! [`Selector`].
//!
//! A wait has four parts. *Reify*: update the kernel for past deliveries. *Wait*: the selector
//! takes about as many reports as fit. *Verify*: poll the hints. *Deliver*: pop the FIFO of old and
//! new reports up to the capacity; the rest keeps its order for the next wait.
//!
//! [`readiness`] imports nothing of [`operations`], which imports nothing of [`readiness`]. The
//! reactor routes between them, and implements the interface that operations use ([`parts`]).

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
use operations::{CancelReason, Operations};
use parts::Parts;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

/// The most extra rounds of a wait that has results or whose time is up. They are for operations
/// that became heads of their queues, and for reports left in the kernel (L1, T1).
const MAX_ROUNDS: usize = 16;
/// The growth factor of verification batches within one wait.
const VERIFY_GROWTH: usize = 4;

/// A poller over a selector, as the contract specifies.
pub struct Reactor<S> {
    backend: Backend,
    id: u32,
    // Dropped before the operations, so that the mechanism is gone when buffers are dropped (D1).
    parts: Parts<S>,
    operations: Operations,
    /// The events of the driver or the thread pool. Empty between calls; kept for its memory.
    events: Vec<OpEvent>,
    parker: Parker,
    /// Signals and rings belong to one thread, so any poller stays on its thread (P4).
    not_send: PhantomData<*mut ()>,
}

impl<S: Selector> Reactor<S> {
    /// Makes a poller from a selector without registrations.
    ///
    /// # Errors
    ///
    /// `EINVAL` before Linux 4.14, where a forked child cannot be detected (madvise(2),
    /// `MADV_WIPEONFORK`). `Other` after four billion pollers, because keys would not be unique.
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

    /// Checks every invariant, and panics if one does not hold.
    #[cfg(any(test, feature = "spi"))]
    pub fn verify(&self) {
        self.parts.readiness.verify();
        self.operations.verify(&self.parts);
    }

    /// Collects the events of operations, and runs the operations that can continue.
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

    /// Clause R10: unknown bits are refused, because they would never be reported.
    fn check_directions(interest: Interest) -> io::Result<()> {
        if Interest::all().contains(interest) {
            return Ok(());
        }
        Err(invalid("an unknown direction"))
    }

    /// Returns the slot of a registration. Checks the process first (P1, R4).
    fn resolve(&self, key: Key) -> io::Result<Slot> {
        self.parker.check_process()?;
        self.find(key)
    }

    /// Returns the slot of a registration, in any process (R4).
    fn find(&self, key: Key) -> io::Result<Slot> {
        // The sources of operations are checked first: `submit` reads the same entry next.
        let known = key.poller == self.id
            && (self.operations.has_source(key.slot) || self.parts.readiness.contains(key.slot));
        if known { Ok(key.slot) } else { Err(self.not_found(key.poller, "unknown or stale key")) }
    }

    /// Returns the error for an unknown id; `cause` is used if it is an id of this poller.
    fn not_found(&self, poller: u32, cause: &'static str) -> io::Error {
        let cause =
            if poller == self.id { cause } else { "the key or id belongs to another poller" };
        io::Error::new(io::ErrorKind::NotFound, cause)
    }

    /// Clause R10, for calls on a subset of the interest.
    fn resolve_subset(&self, key: Key, dirs: Interest) -> io::Result<Slot> {
        let slot = self.resolve(key)?;
        if self.parts.readiness.source(slot).is_some_and(|(_, interest)| interest.contains(dirs)) {
            return Ok(slot);
        }
        Err(invalid("a direction is outside the registered interest"))
    }

    /// Waits in the selector once, queues its reports, and runs the operations that can continue.
    /// Returns how the selector's wait ended, and true if a wake was taken.
    fn collect(&mut self, deadline: Deadline) -> io::Result<(WaitOutcome, bool)> {
        let may_sleep = deadline != Deadline::Now && self.parts.readiness.queue_len() == 0;
        let asleep = may_sleep && self.parker.prepare_park();
        let waited = self.parts.wait_once(if asleep { deadline } else { Deadline::Now });
        let woken = self.parker.finish_park();
        // Later notifications are for the next selector wait.
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

    /// Serves each queue entry at most once (H4), up to the capacity. After an error the rest stays
    /// queued.
    fn deliver(&mut self, events: &mut Events) -> io::Result<()> {
        let mut unserved = self.parts.readiness.queue_len();
        let mut batch = events.remaining();
        while unserved > 0 && events.remaining() > 0 {
            batch = batch.min(unserved);
            self.parts.readiness.verify_front(batch)?;
            for _ in 0..batch {
                if events.remaining() == 0 {
                    break;
                }
                unserved -= 1;
                if let Some((slot, bits)) = self.parts.readiness.pop() {
                    self.serve_operations(slot, bits);
                    self.parts.readiness.report(Key { poller: self.id, slot }, bits, events);
                }
            }
            // Many were false: a growing batch keeps the number of calls low.
            batch = batch.saturating_mul(VERIFY_GROWTH);
        }
        Ok(())
    }

    /// Runs the operations that await verified bits of a source.
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

    /// Checks an operation (P1, R4, M1), and submits it. Takes the buffer only if it is accepted.
    fn accept(&mut self, op: &mut Op, token: Token) -> io::Result<OpSlot> {
        self.parker.check_process()?;
        let source = op.key.map(|key| self.find(key)).transpose()?;
        let target = op.target().map(|key| self.find(key)).transpose()?;
        if target.is_some() && source == target {
            return Err(invalid("source and target are the same"));
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
            return Err(invalid("the operation's direction is watched for readiness"));
        }
        if known.is_none() {
            self.operations.add_source(slot, interest, &mut self.parts)?;
        }
        Ok(())
    }

    /// Returns true if the pending completions are all that this wait can report: no source is
    /// watched, and they fill `events` or no operation is unfinished. Entering the kernel is then
    /// useless.
    fn has_all_completions(&self, events: &Events) -> bool {
        let (room, count) = (events.remaining_completions(), self.operations.completed_len());
        let is_all = count >= room || !self.operations.has_unfinished();
        !self.parts.readiness.is_watching() && room > 0 && count > 0 && is_all
    }

    /// Delivers completions without a selector wait.
    fn deliver_without_waiting(&mut self, events: &mut Events) {
        if self.parker.finish_park() {
            events.set_woken();
        }
        self.operations.on_time(&mut self.parts);
        self.deliver_completions(events);
        self.parts.run_deferred_drops();
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
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
        let fd = source.raw_fd();
        let (slot, io_mode) = self.parts.register(source, token, interest, mode)?;
        if let Some(io_mode) = io_mode {
            self.operations.insert_source(slot, fd, io_mode, interest);
        }
        Ok(Key { poller: self.id, slot })
    }

    fn modify(&mut self, key: Key, token: Token, interest: Interest, mode: Mode) -> io::Result<()> {
        let slot = self.resolve(key)?;
        Self::check_directions(interest)?;
        if interest.intersects(self.operations.busy(slot)) {
            return Err(invalid("a direction has pending operations"));
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
        // Operations that the driver or a thread has returned complete with their real results.
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
            return Err(invalid("`events` has a capacity of 0"));
        }
        self.operations.set_room(events.capacity());
        let deadline = Deadline::after(timeout);
        let mut rounds = MAX_ROUNDS;
        self.parts.readiness.begin_wait()?;
        loop {
            let reified = self.parts.readiness.reify_all(&mut self.parts.selector);
            let is_done = events.has_results()
                || self.operations.has_completed()
                || self.operations.awaits_silent_sends();
            // The wait must not sleep before it returns an error or the results that it has.
            let until = if reified.is_ok() && !is_done {
                deadline.or_at(self.operations.next_time())
            } else {
                Deadline::Now
            };
            if self.has_all_completions(events) {
                self.deliver_without_waiting(events);
                return Ok(());
            }
            self.parts.limit_reports(events.remaining(), deadline);
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
            let is_ending = events.has_results() || deadline.has_passed();
            if is_ending && rounds > 0 && self.parts.must_wait_again(events, deadline) {
                rounds -= 1;
                continue;
            }
            if events.has_results() {
                return Ok(());
            }
            reified?;
            // An interrupted selector wait must be repeated (T1, T5).
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
            return Err(
                self.not_found(id.poller, "unknown operation, or its completion was delivered")
            );
        }
        self.operations.cancel(id.slot, CancelReason::User, &mut self.parts);
        self.operations.run(&mut self.parts);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.parker.waker()
    }
}

impl<S> Drop for Reactor<S> {
    /// Restores the files' flags. In a forked child the files belong to the parent (P1).
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
