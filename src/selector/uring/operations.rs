//! The operations of one ring that were not pushed yet, and their events. The ring keeps those in
//! flight.

use super::super::OpEvent;
use super::poll_slab::UserData;
use crate::key::OpSlot;
use crate::slab::SlotMap;
use crate::sys::io_call::{CallResult, Work};
use crate::sys::pool::BufferPool;
use crate::sys::ring::{Request, Ring};
use std::io;

/// The results, each with more behind it, after which a multishot operation is submitted anew.
/// After 33 the kernel pauses, and resumes without checking for an end or reset of the stream
/// (Linux 6.18); a new submission checks. The limit also lets other operations run.
const MAX_PARTIAL_RESULTS: u8 = 32;

/// The operations that were not pushed, and the events to deliver.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// Operations to submit.
    waiting: SlotMap<OpSlot, Work>,
    events: Vec<OpEvent>,
    /// Operations whose cancel did not find them (l).
    not_found: Vec<OpSlot>,
}

impl Operations {
    /// Returns true if an operation has not ended.
    pub(super) fn is_known(&self, op: OpSlot, ring: &Ring) -> bool {
        self.waiting.get(op).is_some() || ring.has_operation(op.to_bits())
    }

    pub(super) fn len(&self, ring: &Ring) -> usize {
        self.waiting.len() + ring.operations()
    }

    pub(super) fn slots(&self, ring: &Ring) -> Vec<OpSlot> {
        self.waiting.keys().chain(ring.operation_tags().map(OpSlot::from_bits)).collect()
    }

    pub(super) fn has_op_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.events);
        } else {
            out.append(&mut self.events);
        }
    }

    /// Keeps an operation until it is pushed.
    pub(super) fn insert(&mut self, op: OpSlot, work: Work) {
        debug_assert!(
            self.waiting.get_index(op.index).is_none(),
            "an index has one operation at a time"
        );
        self.waiting.insert(op, work);
    }

    /// Returns the operations that take, or will take, provided buffers of this pool.
    pub(super) fn receiving_from(&self, pool: &BufferPool, ring: &Ring) -> Vec<OpSlot> {
        let waits = |op: &OpSlot| {
            let own = self.waiting.get(*op).and_then(|work| work.pool());
            own.is_some_and(|own| own.is(pool))
        };
        let takes = |op: &OpSlot| ring.takes_from(op.to_bits(), pool);
        self.slots(ring).into_iter().filter(|op| waits(op) || takes(op)).collect()
    }

    /// Pushes an operation to the SQ. Returns false if the SQ is full.
    pub(super) fn push(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        let Some(work) = self.waiting.remove(op) else { return true };
        match ring.begin(work, op.to_bits()) {
            Ok(()) => true,
            Err(work) => {
                self.waiting.insert(op, work);
                false
            }
        }
    }

    /// Cancels an operation. Returns true if the kernel has it, so that a cancel must be submitted.
    pub(super) fn cancel(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        if let Some(work) = self.waiting.remove(op) {
            let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
            self.events.push(OpEvent::Completed { op, work, result });
            return false;
        }
        ring.note_cancelled(op.to_bits())
    }

    /// Pushes the cancel of an operation. Returns false if the SQ is full.
    pub(super) fn push_cancel(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        let tag = op.to_bits();
        !ring.has_operation(tag)
            || ring.push(Request::CancelOp(tag), UserData::CancelOp(op.index).to_bits())
    }

    /// Handles the CQE of the cancel of the operation at this index.
    pub(super) fn on_cancel_result(&mut self, index: u32, result: i32, ring: &Ring) {
        if result == -libc::ENOENT {
            self.not_found.extend(ring.cancelled_operation(index).map(OpSlot::from_bits));
        }
    }

    /// Cancels again the operations that were not found and are still in flight.
    pub(super) fn retry_cancels(&mut self, ring: &Ring, mut sqe: impl FnMut(OpSlot)) {
        for op in std::mem::take(&mut self.not_found) {
            if ring.has_operation(op.to_bits()) {
                sqe(op);
            }
        }
    }

    /// Adds the event of an operation that has ended. A send that would have to wait ends, and the
    /// reactor retries it.
    pub(super) fn on_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        self.events.push(OpEvent::Completed { op: OpSlot::from_bits(tag), work, result });
    }

    /// Adds a result of an operation that continues. Returns the operation if it must be cancelled:
    /// the reactor submits it anew.
    pub(super) fn on_result(
        &mut self,
        tag: u64,
        result: CallResult,
        partial_results: u8,
    ) -> Option<OpSlot> {
        let op = OpSlot::from_bits(tag);
        self.events.push(OpEvent::Result { op, result });
        (partial_results == MAX_PARTIAL_RESULTS).then_some(op)
    }
}

#[cfg(test)]
mod tests;
