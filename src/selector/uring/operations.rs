//! The operations of one ring: what is to be given to the kernel, and what has ended. What the
//! kernel has is the ring's.

use super::super::OpEvent;
use super::poll_slab::UserData;
use crate::key::OpSlot;
use crate::slab::SlotMap;
use crate::sys::io_call::{CallResult, Work};
use crate::sys::pool::BufferPool;
use crate::sys::ring::{Request, Ring};
use std::io;

/// After so many results, each with more behind it, an operation is begun anew. After 33 the kernel
/// pauses, and goes on without a look at whether the stream has ended or was reset meanwhile (Linux
/// 6.18): at the beginning it sees that. Nor does one flood then keep all others waiting.
const MAX_PARTIAL_RESULTS: u8 = 32;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// Those that are to be submitted.
    waiting: SlotMap<OpSlot, Work>,
    events: Vec<OpEvent>,
    /// What could not be stopped because it was not found (l).
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

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn drain_events(&mut self, out: &mut Vec<OpEvent>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.events);
        } else {
            out.append(&mut self.events);
        }
    }

    /// Keeps an operation that is to be submitted.
    pub(super) fn insert(&mut self, op: OpSlot, work: Work) {
        debug_assert!(self.waiting.get_index(op.index).is_none(), "one at a time in a place");
        self.waiting.insert(op, work);
    }

    /// Returns those that take, or are to take, provided buffers of this pool.
    pub(super) fn receiving_from(&self, pool: &BufferPool, ring: &Ring) -> Vec<OpSlot> {
        let waits = |op: &OpSlot| {
            let its = self.waiting.get(*op).and_then(|work| work.pool());
            its.is_some_and(|its| its.is(pool))
        };
        let takes = |op: &OpSlot| ring.takes_from(op.to_bits(), pool);
        self.slots(ring).into_iter().filter(|op| waits(op) || takes(op)).collect()
    }

    /// Submits an operation that waits for that. Returns false if there is no room.
    pub(super) fn begin(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        let Some(work) = self.waiting.remove(op) else { return true };
        match ring.begin(work, op.to_bits()) {
            Ok(()) => true,
            Err(work) => {
                self.waiting.insert(op, work);
                false
            }
        }
    }

    /// Ends an operation. Returns true if the kernel has to be asked to.
    pub(super) fn stop(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        if let Some(work) = self.waiting.remove(op) {
            let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
            self.events.push(OpEvent::Completed { op, work, result });
            return false;
        }
        ring.note_cancelled(op.to_bits())
    }

    /// Asks the kernel to stop an operation. Returns false if there is no room.
    pub(super) fn ask_to_stop(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        let tag = op.to_bits();
        !ring.has_operation(tag)
            || ring.push(Request::CancelOp(tag), UserData::Stop(op.index).to_bits())
    }

    /// Notes what the request to stop the operation in this place has come to.
    pub(super) fn note_stop(&mut self, place: u32, result: i32, ring: &Ring) {
        if result == -libc::ENOENT {
            self.not_found.extend(ring.cancelled_operation(place).map(OpSlot::from_bits));
        }
    }

    /// Has what was not found be stopped again, if it still goes on.
    pub(super) fn stop_again(&mut self, ring: &Ring, mut ask: impl FnMut(OpSlot)) {
        for op in std::mem::take(&mut self.not_found) {
            if ring.has_operation(op.to_bits()) {
                ask(op);
            }
        }
    }

    /// Notes that an operation has ended. A send that would have to wait is the reactor's from now
    /// on.
    pub(super) fn note_end(&mut self, tag: u64, work: Work, result: io::Result<CallResult>) {
        self.events.push(OpEvent::Completed { op: OpSlot::from_bits(tag), work, result });
    }

    /// Notes what an operation has brought that goes on. Returns it if it is to be stopped: the
    /// reactor begins it anew.
    pub(super) fn note_one(
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
