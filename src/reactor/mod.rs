//! The reactor: everything that all backends share. It implements [`Poller`] once, over any
//! [`Selector`].
//!
//! A wait has four parts. *Reify*: the kernel is told what changed through deliveries. *Wait*: the
//! selector takes everything the kernel has to report. *Settle*: what was only hinted at is probed.
//! *Deliver*: the queue, in which old and new reports stand in one line, is served up to the
//! capacity; who is left keeps his place.

mod awaited;
mod delivery;
mod latch;
mod operations;
mod ports;
mod probe;
mod registry;
mod thread_pool;

use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::{Key, OpSlot, Slot};
use crate::op::{Op, OpId, Rejected};
use crate::poller::{Capabilities, Poller, Source, Statistics};
use crate::selector::{Applied, Arm, Deadline, Landed, Raw, Selector, Trigger, Triggers, Wake};
use crate::sys;
use crate::waker::{Parker, Waker};
use latch::{Latch, Step};
use operations::{Operations, Why};
use ports::Ports;
use probe::Probe;
use registry::Registry;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task;
use std::time::Duration;
use thread_pool::ThreadPool;

/// How often a wait that could end goes on for operations that were next in their lanes.
const MOST_ROUNDS: usize = 16;

/// A selector under the contract.
pub struct Reactor<S> {
    backend: Backend,
    id: usize,
    // Before the rest, so that the mechanism is gone when sources and buffers are dropped (R6,
    // D1).
    selector: S,
    registry: Registry,
    operations: Operations,
    thread_pool: ThreadPool,
    /// Files that are not needed any more, dropped at the end of a call: that may run the user's
    /// code.
    deferred_drops: Vec<sys::file::Held>,
    /// What the selector and the threads have to tell; kept for its memory.
    events: Vec<Landed>,
    /// The selector was given an operation since it last waited.
    has_submitted: bool,
    probe: Probe,
    parker: Parker,
    /// For those who have something for the poller.
    notifier: task::Waker,
    /// What the selector reported; kept for its memory.
    raw: Vec<Raw>,
    statistics: Statistics,
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
    /// `MADV_WIPEONFORK`).
    pub fn new(backend: Backend, selector: S) -> io::Result<Self> {
        static LAST_ID: AtomicUsize = AtomicUsize::new(0);
        let parker = Parker::new(selector.wake_handle())?;
        let notifier = parker.notifier();
        Ok(Reactor {
            backend,
            id: LAST_ID.fetch_add(1, Ordering::Relaxed),
            thread_pool: ThreadPool::new(notifier.clone()),
            notifier,
            parker,
            selector,
            registry: Registry::default(),
            operations: Operations::default(),
            deferred_drops: Vec::new(),
            events: Vec::new(),
            has_submitted: false,
            probe: Probe::default(),
            raw: Vec::new(),
            statistics: Statistics::default(),
            not_send: PhantomData,
        })
    }

    /// Checks every invariant of the registry, and panics if one does not hold.
    #[cfg(any(test, feature = "spi"))]
    pub fn verify(&self) {
        self.registry.verify();
        let awaited = |slot| self.registry.get(slot).map(|its| its.awaited.awaited());
        let awaited = |slot| awaited(slot).unwrap_or_default();
        self.operations.verify(awaited, self.thread_pool.len());
    }

    /// Returns the operations, and apart from them what they ask for.
    fn split(&mut self) -> (&mut Operations, Ports<'_, S>) {
        let ports = Ports {
            selector: &mut self.selector,
            registry: &mut self.registry,
            thread_pool: &mut self.thread_pool,
            notifier: &self.notifier,
            deferred_drops: &mut self.deferred_drops,
            has_submitted: &mut self.has_submitted,
        };
        (&mut self.operations, ports)
    }

    /// Drops what is not needed any more, last in a call: that may run the user's Drop, which may
    /// panic.
    fn run_deferred_drops(&mut self) {
        while let Some(file) = self.deferred_drops.pop() {
            drop(file);
        }
    }

    /// Takes what the selector and the threads have to tell of operations, and runs what goes on.
    fn collect_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.selector.take(&mut events);
        let (operations, mut io) = self.split();
        operations.on_driver_events(&mut events, &mut io);
        self.thread_pool.collect(&mut events, &mut self.deferred_drops);
        let (operations, mut io) = self.split();
        operations.on_thread_events(&mut events, &mut io);
        operations.run(&mut io);
        self.events = events;
    }

    /// Makes the next wait serve receives that found no buffer outside of a wait.
    fn note_buffers(&mut self) {
        if self.operations.must_ask_pools() {
            self.notifier.wake_by_ref();
        }
    }

    /// Clause P1.
    fn check_process(&self) -> io::Result<()> {
        if self.parker.is_in_foreign_process() {
            return Err(io::Error::other(
                "this poller belongs to the process that this one was forked from",
            ));
        }
        Ok(())
    }

    /// Clause R10: bits that mean nothing here would be watched for nothing, and never reported.
    fn check_directions(interest: Interest) -> io::Result<()> {
        if Interest::all().contains(interest) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "an unknown direction"))
    }

    /// Clauses P1 and R4, which every call on a registration begins with.
    fn resolve(&self, key: Key) -> io::Result<Slot> {
        self.check_process()?;
        let known = key.poller == self.id && self.registry.get(key.slot).is_some();
        if known {
            Ok(key.slot)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "unknown or stale key"))
        }
    }

    /// Clause R10, for calls that name a part of the interest.
    fn resolve_subset(&self, key: Key, dirs: Interest) -> io::Result<Slot> {
        let slot = self.resolve(key)?;
        let registration = self.registry.get(slot);
        if registration.is_some_and(|registration| registration.latch.interest().contains(dirs)) {
            return Ok(slot);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a direction outside the registered interest",
        ))
    }

    /// Has the kernel watch what the registration's latch says. A call of the user's has named
    /// directions; a delivery names none.
    fn reify(&mut self, slot: Slot, named: Interest) -> io::Result<()> {
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let (watched, trigger) = (registration.watched(), registration.latch.trigger());
        let mut applied = arm(&mut self.selector, slot, &registration.source, watched, trigger)?;
        if !watched.is_empty() {
            registration.latch.fix_trigger(applied.trigger, applied.level);
        }
        let (now, trigger) = (registration.watched(), registration.latch.trigger());
        if now != watched {
            // The mechanism has lost the file's edges, so that less is to be watched.
            applied = arm(&mut self.selector, slot, &registration.source, now, trigger)?;
        }
        self.note_applied(slot, applied, named);
        Ok(())
    }

    /// The kernel watches what the latch says; what it leaves to us is noted.
    fn note_applied(&mut self, slot: Slot, applied: Applied, named: Interest) {
        let Some(registration) = self.registry.get(slot) else { return };
        let told = (named | registration.latch.owed()) & registration.latch.armed();
        let dirs = told | registration.awaited.awaited();
        // What can't be seen to come can't be seen to be there either.
        if (applied.look || applied.blind) && !dirs.is_empty() {
            self.registry.queue_look(slot, dirs);
        }
        self.registry.set_blind(slot, applied.blind);
        self.registry.caught_up(slot);
    }

    /// Reifies what deliveries have changed. Where the kernel refuses, this wait looks for itself
    /// and the next one tries again (P5); no other source is hindered.
    fn reify_all(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..self.registry.lagging_length() {
            let Some(slot) = self.registry.pop_lagging() else { break };
            if let Err(error) = self.reify(slot, Interest::empty()) {
                self.registry.note_lagging(slot);
                self.registry.queue_owed(slot);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// A call of the user's moves the latch. If the kernel refuses, the latch has not moved.
    fn turn(
        &mut self,
        slot: Slot,
        named: Interest,
        turn: impl FnOnce(&mut Latch) -> Step,
    ) -> io::Result<()> {
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let before = registration.latch;
        match turn(&mut registration.latch) {
            Step::Nothing => Ok(()),
            Step::Look(dirs) => {
                self.registry.queue_look(slot, dirs);
                Ok(())
            }
            Step::Arm => self.reify(slot, named).inspect_err(|_| {
                if let Some(registration) = self.registry.get_mut(slot) {
                    registration.latch = before;
                }
            }),
        }
    }

    /// One look into the kernel: queues what it reports. Gives whether a wake was taken.
    fn collect(&mut self, deadline: Deadline) -> io::Result<(Wake, bool)> {
        let may_sleep = deadline != Deadline::Now && self.registry.queue_is_empty();
        let asleep = may_sleep && self.parker.prepare_park();
        self.registry.begin_round();
        self.has_submitted = false;
        let waited =
            self.selector.wait(if asleep { deadline } else { Deadline::Now }, &mut self.raw);
        for raw in self.raw.drain(..) {
            match raw {
                Raw::Fact(slot, bits) => self.registry.queue_fact(slot, bits),
                Raw::Seen(slot, bits) => self.registry.queue_seen(slot, bits),
                Raw::Hint(slot) => self.registry.queue_hint(slot),
            }
        }
        if let Ok(Wake::Overflow) = waited {
            self.statistics.overflows += 1;
            self.registry.slots().into_iter().for_each(|slot| self.registry.queue_hint(slot));
        }
        let woken = self.parker.finish_park();
        // What is notified from now on is for the next look.
        let is_notified = self.parker.take_notifications();
        self.collect_events();
        let (operations, mut io) = self.split();
        operations.on_buffers(is_notified, &mut io);
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

    /// Clauses P1, R4 and M1, for an operation. Takes its buffer if it is accepted.
    fn accept(&mut self, op: &mut Op, token: Token) -> io::Result<OpSlot> {
        self.check_process()?;
        let source = op.key.map(|key| self.resolve(key)).transpose()?;
        let target = match (op.key, op.target()) {
            (from, Some(to)) if from == Some(to) => {
                return Err(invalid("from a source to itself"));
            }
            (_, Some(to)) => Some(self.resolve(to)?),
            (_, None) => None,
        };
        let dirs = [operations::direction_of(op), Interest::WRITABLE];
        for (slot, dir) in [source, target].into_iter().zip(dirs) {
            let Some(registration) = slot.and_then(|slot| self.registry.get(slot)) else {
                continue;
            };
            let interest = registration.latch.interest();
            if interest.intersects(dir) {
                return Err(invalid("the source is watched for what the operation would wait for"));
            }
            if let Some(slot) = slot {
                self.operations.add_source(slot, &registration.source, interest)?;
            }
        }
        let (operations, mut io) = self.split();
        operations.submit(op, token, source, target, &mut io)
    }

    /// Returns true if operations that came next in their queues may complete at once too (T1). Not beside
    /// readiness, which a second look would report a second time (H4).
    fn has_successors(&self, events: &Events) -> bool {
        self.has_submitted && events.completion_room() > 0 && events.is_empty() && !events.woken()
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Asks the kernel to watch these directions, which may be none.
fn arm<S: Selector>(
    selector: &mut S,
    slot: Slot,
    source: &sys::file::Held,
    dirs: Interest,
    trigger: Trigger,
) -> io::Result<Applied> {
    if dirs.is_empty() {
        selector.disarm(slot, source.fd());
        return Ok(Applied::whole(trigger));
    }
    selector.arm(slot, source.fd(), Arm { dirs, trigger })
}

impl<S: Selector> Poller for Reactor<S> {
    fn backend(&self) -> Backend {
        self.backend
    }

    fn capabilities(&self) -> Capabilities {
        let native = self.selector.native();
        let mut capabilities = Capabilities::empty();
        capabilities.set(Capabilities::NATIVE_LEVEL, native.contains(Triggers::LEVEL));
        capabilities.set(Capabilities::NATIVE_EDGE, native.contains(Triggers::EDGE));
        capabilities.set(Capabilities::NATIVE_ONESHOT, native.contains(Triggers::ONESHOT));
        capabilities.set(Capabilities::NATIVE_OPERATIONS, self.selector.has_operations());
        capabilities
    }

    fn statistics(&self) -> Statistics {
        self.statistics
    }

    fn register(
        &mut self,
        source: Source,
        token: Token,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<Key> {
        self.check_process()?;
        Self::check_directions(interest)?;
        let source = sys::file::Held::new(source);
        if self.registry.is_registered(&source) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this file number is registered already",
            ));
        }
        let Some(slot) = self.registry.next_slot() else {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "every slot has been used"));
        };
        let mut latch = Latch::new(mode, interest, self.selector.native());
        if interest.is_empty() {
            // A selector checks what it is given, but gets nothing here (R7, R8).
            sys::file::check_pollable(source.fd())?;
        }
        let (watched, trigger) = (latch.watched(), latch.trigger());
        let applied = arm(&mut self.selector, slot, &source, watched, trigger)?;
        latch.fix_trigger(applied.trigger, applied.level);
        self.registry.insert(slot, source, token, latch);
        self.note_applied(slot, applied, interest);
        Ok(Key { poller: self.id, slot })
    }

    fn modify(&mut self, key: Key, token: Token, interest: Interest, mode: Mode) -> io::Result<()> {
        let slot = self.resolve(key)?;
        Self::check_directions(interest)?;
        let mut latch = Latch::new(mode, interest, self.selector.native());
        if interest.intersects(self.operations.busy(slot)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there are operations in a direction that is to be watched",
            ));
        }
        let Some(registration) = self.registry.get_mut(slot) else { return Ok(()) };
        let (watched, trigger) =
            (latch.watched() | registration.awaited.awaited(), latch.trigger());
        let applied = arm(&mut self.selector, slot, &registration.source, watched, trigger)?;
        latch.fix_trigger(applied.trigger, applied.level);
        (registration.token, registration.latch) = (token, latch);
        registration.awaited.start_over();
        let (operations, mut io) = self.split();
        operations.on_watched(slot, interest, &mut io);
        self.note_buffers();
        self.note_applied(slot, applied, interest);
        Ok(())
    }

    fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let slot = self.resolve_subset(key, interest)?;
        self.turn(slot, interest, |latch| latch.rearm(interest))
    }

    fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let slot = self.resolve_subset(key, interest)?;
        self.turn(slot, interest, |latch| latch.drained(interest))
    }

    fn deregister(&mut self, key: Key) -> io::Result<()> {
        let slot = self.resolve(key)?;
        // What has completed already keeps its place.
        self.collect_events();
        let (operations, mut io) = self.split();
        operations.remove(slot, &mut io);
        self.note_buffers();
        let Some(source) = self.registry.remove(slot) else { return Ok(()) };
        self.selector.remove(slot, source.fd());
        self.deferred_drops.push(source);
        self.run_deferred_drops();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        self.check_process()?;
        if events.capacity() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "these Events have a capacity of 0",
            ));
        }
        self.operations.set_room(events.capacity());
        let deadline = Deadline::after(timeout);
        let mut rounds = MOST_ROUNDS;
        self.registry.queue_blind();
        loop {
            let reified = self.reify_all();
            let is_done = events.completed() > 0 || self.operations.has_completed();
            // An error is told when there is nothing better to tell, but not slept on.
            let until = match reified.is_ok() && !is_done {
                true => deadline.or_at(self.operations.next_time()),
                false => Deadline::Now,
            };
            let (wake, woken) = self.collect(until)?;
            if woken {
                events.set_woken();
            }
            let (operations, mut io) = self.split();
            operations.on_time(&mut io);
            let delivered = self.deliver(events);
            self.deliver_completions(events);
            self.run_deferred_drops();
            match delivered {
                Err(error) if events.is_empty() && events.completed() == 0 => {
                    if events.woken() {
                        self.parker.restore_wake();
                        events.clear();
                    }
                    return Err(error);
                }
                _ => {}
            }
            let is_ending = events.completed() > 0 || deadline.has_passed();
            if is_ending && rounds > 0 && self.has_successors(events) {
                rounds -= 1;
                continue;
            }
            if events.has_news() {
                return Ok(());
            }
            reified?;
            // A look that a signal cut short is no look: there has to be another (T1, T5).
            if deadline.has_passed() && wake != Wake::Interrupted {
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

    fn cancel(&mut self, id: OpId) -> io::Result<()> {
        self.check_process()?;
        if id.poller != self.id || !self.operations.contains(id.slot) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such operation is under way"));
        }
        let (operations, mut io) = self.split();
        operations.cancel(id.slot, Why::User, &mut io);
        operations.run(&mut io);
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
            self.operations.for_each_source(|fd, mode| mode.restore(fd.number()));
            self.thread_pool.close();
        }
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Reactor");
        f.field("backend", &self.backend)
            .field("id", &self.id)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
