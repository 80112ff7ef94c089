//! Invariants of the operations, checked in tests and for external selectors.

use super::entry::{OpEntry, OpState};
use super::machine::Operations;
use super::queue::{Queue, link_to};
use crate::event::Interest;
use crate::key::{OpSlot, Slot};
use crate::op::Kind;
use std::task;

/// The external causes that make operations runnable; `None` if unknown.
pub(in crate::reactor) trait Causes {
    /// Returns the directions of a source that are reported for operations.
    fn awaited(&self, slot: Slot) -> Interest;

    /// Returns the directions that the user watches of a source.
    fn interest(&self, slot: Slot) -> Option<Interest>;

    /// Returns true if the driver has the call of an operation, or an event that returns it.
    fn driver_has(&self, op: OpSlot) -> Option<bool>;

    /// Returns the number of calls in the driver.
    fn driver_count(&self) -> Option<usize>;

    /// Returns true if a thread has the call of an operation, or an event that returns it.
    fn thread_has(&self, op: OpSlot) -> Option<bool>;

    /// Returns the number of calls on the thread pool.
    fn thread_count(&self) -> usize;

    /// Returns true if the next wait asks the pools.
    fn is_notified(&self) -> Option<bool>;

    /// Returns the waker for pools.
    fn notifier(&self) -> &task::Waker;
}

impl Operations {
    #[cfg(test)]
    pub(in crate::reactor) fn awaits_buffer(&self, op: OpSlot) -> bool {
        self.table.awaits_buffer(op)
    }

    #[cfg(test)]
    pub(in crate::reactor) fn undelivered(&self, op: OpSlot) -> u32 {
        self.table.get(op).map_or(0, |entry| entry.undelivered)
    }

    /// Checks that every live operation has exactly one cause to become runnable, and every cause
    /// an operation.
    ///
    /// # Panics
    ///
    /// With the first invariant that does not hold.
    pub(in crate::reactor) fn verify(&self, causes: &impl Causes) {
        self.table.verify();
        self.buffers.verify(|op| self.table.awaits_buffer(op));
        let [mut in_driver, mut on_threads, mut awaiting_buffer] = [0; 3];
        for (op, entry) in self.table.iter() {
            self.verify_state(op, entry, causes);
            match entry.state {
                OpState::Submitted { .. } => in_driver += 1,
                OpState::OnThread { .. } => on_threads += 1,
                OpState::AwaitingBuffer => awaiting_buffer += 1,
                _ => {}
            }
        }
        assert_eq!(awaiting_buffer, self.buffers.len(), "each waiter of a pool awaits a buffer");
        let is_silent = in_driver > 0 || !self.silent.are_awaited(true);
        assert!(is_silent, "each silent send of the driver has its operation");
        assert_eq!(on_threads, causes.thread_count(), "each call of a thread has its operation");
        if let Some(count) = causes.driver_count() {
            assert_eq!(in_driver, count, "each call of the driver has its operation");
        }
        for &op in &self.run_queue {
            let entry = self.table.get(op);
            let is_runnable = |entry: &OpEntry| matches!(entry.state, OpState::Runnable(_));
            assert!(
                entry.is_none_or(is_runnable),
                "only runnable operations are in the run queue: {entry:?}"
            );
        }
        self.verify_pools(causes);
        self.verify_sources(causes);
    }

    /// Checks the cause that an operation waits for.
    fn verify_state(&self, op: OpSlot, entry: &OpEntry, causes: &impl Causes) {
        let in_run_queue = self.run_queue.iter().filter(|&&its| its == op).count();
        let is_runnable = matches!(entry.state, OpState::Runnable(_));
        let expected = usize::from(is_runnable);
        assert_eq!(in_run_queue, expected, "a runnable operation is queued once: {entry:?}");
        assert_eq!(entry.needs_work(), entry.work.is_some(), "the work is in one place: {entry:?}");
        match &entry.state {
            OpState::Queued => {
                assert!(!self.is_at_head(op), "a queued operation is not at the head: {entry:?}");
                assert!(self.is_in_queues(op, entry), "a predecessor wakes it: {entry:?}");
            }
            OpState::AwaitingReady { on } => {
                let place = entry.places().nth(*on as usize);
                let is_reported =
                    place.is_some_and(|(slot, queue)| causes.awaited(slot).contains(queue.dir()));
                assert!(is_reported, "the awaited readiness is reported: {entry:?}");
                assert!(self.is_at_head(op), "an awaiting operation is at the head: {entry:?}");
            }
            OpState::AwaitingBuffer => {
                let is_queued = entry.pool().is_some_and(|pool| self.buffers.contains(op, pool));
                assert!(is_queued, "the waiter is in its pool's queue: {entry:?}");
            }
            OpState::Paused => {
                assert!(entry.undelivered > 0, "a delivery resumes it: {entry:?}");
            }
            OpState::Submitted { .. } => {
                assert_ne!(
                    causes.driver_has(op),
                    Some(false),
                    "the driver has the call: {entry:?}"
                );
            }
            OpState::OnThread { .. } => {
                assert_ne!(causes.thread_has(op), Some(false), "a thread has the call: {entry:?}");
            }
            OpState::AwaitingCancel => {
                assert_eq!(entry.kind, Kind::Timeout, "only a timeout has no end: {entry:?}");
            }
            OpState::Runnable(_) | OpState::AwaitingTime => {}
        }
    }

    /// Returns true if an operation is in the queues of all its sources.
    fn is_in_queues(&self, op: OpSlot, entry: &OpEntry) -> bool {
        entry.places().all(|(slot, queue)| {
            let source = self.sources.get(slot);
            source.is_some_and(|source| {
                let mut all = self.table.queue((slot, queue), source.queue(queue));
                all.any(|(its, _)| its == op)
            })
        })
    }

    /// Checks that the next wait asks each awaited pool, or that the pool notifies the poller.
    fn verify_pools(&self, causes: &impl Causes) {
        let Some(is_notified) = causes.is_notified() else { return };
        let notifier = causes.notifier();
        for pool in self.buffers.awaited_pools() {
            let is_asked = is_notified || self.buffers.must_ask() || pool.notifies(notifier);
            assert!(is_asked, "the pool notifies the poller: {pool:?}");
        }
    }

    fn verify_sources(&self, causes: &impl Causes) {
        for (slot, source) in self.sources.iter() {
            let (mut dirs, mut pending) = (Interest::empty(), 0);
            for queue in Queue::ALL {
                let (place, ends) = ((slot, queue), source.queue(queue));
                let mut last = None;
                for (op, entry) in self.table.queue(place, ends) {
                    let is_queued_here = entry.places().any(|its| its == place);
                    assert!(is_queued_here, "a queue has only its own operations: {entry:?}");
                    assert_eq!(
                        entry.previous_in(place),
                        last,
                        "previous links match the queue: {entry:?}"
                    );
                    let awaits = entry.awaits(slot, queue);
                    let is_head = last.is_none();
                    assert!(is_head || !awaits, "only the head awaits readiness: {entry:?}");
                    dirs |= if awaits { queue.dir() } else { Interest::empty() };
                    (last, pending) = (link_to(op), pending + 1);
                }
                assert_eq!(ends.last, last, "the last link is the last operation: {place:?}");
            }
            assert_eq!(causes.awaited(slot), dirs, "each awaited direction has its operation");
            assert_eq!(source.pending, pending, "pending operations are counted: {slot:?}");
            let interest = causes.interest(slot);
            let is_same = interest.is_none_or(|interest| interest == source.interest);
            assert!(is_same, "{slot:?} is watched for {interest:?}, not {:?}", source.interest);
        }
    }
}
