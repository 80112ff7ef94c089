//! Checks of the operations, for tests and for selectors from outside.

use super::machine::Operations;
use super::queue::Queue;
use super::table::OpState;
use crate::event::Interest;
use crate::key::{OpSlot, Slot};

impl Operations {
    #[cfg(test)]
    pub(in crate::reactor) fn awaits_buffer(&self, op: OpSlot) -> bool {
        self.table.awaits_buffer(op)
    }

    /// Returns true if an operation has a buffer of a pool for what comes next.
    #[cfg(test)]
    pub(in crate::reactor) fn keeps_buffer(&self, op: OpSlot) -> bool {
        let call = self.table.get(op).and_then(|entry| entry.call.as_ref());
        call.is_some_and(|call| call.pool().is_some() && !call.lacks_buffer())
    }

    #[cfg(test)]
    pub(in crate::reactor) fn undelivered(&self, op: OpSlot) -> u32 {
        self.table.get(op).map_or(0, |entry| entry.undelivered)
    }

    /// Checks that every live operation has exactly one cause that can make it runnable, and every
    /// cause its operation; panics with the first thing that does not hold.
    pub(in crate::reactor) fn verify(&self, awaited: impl Fn(Slot) -> Interest, on_threads: usize) {
        self.table.verify();
        self.buffers.verify(|op| self.table.awaits_buffer(op));
        let in_run_queue = |op: OpSlot| self.run_queue.iter().filter(|&&its| its == op).count();
        let mut counts = [0; 3];
        for (op, entry) in self.table.iter() {
            let queued = usize::from(matches!(entry.state, OpState::Runnable(_)));
            assert_eq!(in_run_queue(op), queued, "runnable is in the run queue, once: {entry:?}");
            assert_eq!(entry.needs_call(), entry.call.is_some(), "who has the call: {entry:?}");
            match &entry.state {
                OpState::Queued => assert!(!self.is_at_head(op), "it could run: {entry:?}"),
                OpState::AwaitingReady { on } => {
                    let (slot, queue) = entry.places().nth(*on as usize).expect("it has a source");
                    assert!(awaited(slot).contains(queue.dir()), "it is reported: {entry:?}");
                    assert!(self.is_at_head(op), "its turn has come: {entry:?}");
                }
                OpState::AwaitingBuffer => counts[0] += 1,
                OpState::Paused => {
                    assert!(entry.undelivered > 0, "a delivery resumes it: {entry:?}")
                }
                OpState::OnThread { .. } => counts[1] += 1,
                _ => {}
            }
        }
        assert_eq!(counts[0], self.buffers.len(), "who awaits a buffer is in line");
        assert_eq!(counts[1], on_threads, "the threads have what is on a thread");
        for (slot, source) in self.sources.iter() {
            let heads = [Queue::Read, Queue::Write].into_iter().filter(|&queue| {
                let head = source.head(queue).and_then(|op| self.table.get(op));
                head.is_some_and(|entry| entry.awaits(slot, queue))
            });
            let dirs = heads.fold(Interest::empty(), |dirs, queue| dirs | queue.dir());
            assert_eq!(awaited(slot), dirs, "what is awaited has its operation");
        }
    }
}
