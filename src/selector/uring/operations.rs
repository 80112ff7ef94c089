//! The operations of one ring: what is to be given to the kernel, what it has, and what has ended.

use super::super::OpEvent;
use super::requests::About;
use crate::key::OpSlot;
use crate::slab::SlotMap;
use crate::sys::pool::BufferPool;
use crate::sys::prepared::{CallBox, Gain};
use crate::sys::ring::{Request, Ring, Ticket};
use std::io;

#[derive(Debug)]
struct Operation {
    state: State,
    is_stopped: bool,
    /// How many results it has brought with more behind them.
    brought: usize,
}

#[derive(Debug)]
enum State {
    /// It is to be submitted.
    Here(CallBox),
    InKernel(Ticket),
    /// For a moment, between the two.
    Moving,
}

/// After so many results, each with more behind it, an operation is begun anew. After 33 the kernel
/// pauses, and goes on without a look at whether the stream has ended or was reset meanwhile (Linux
/// 6.18): at the beginning it sees that. Nor does one flood then keep all others waiting.
const MOST_RESULTS: usize = 32;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Operations {
    operations: SlotMap<OpSlot, Operation>,
    landed: Vec<OpEvent>,
    /// What could not be stopped because it was not found (l).
    not_found: Vec<OpSlot>,
}

impl Operations {
    pub(super) fn is_known(&self, op: OpSlot) -> bool {
        self.operations.get(op).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn slots(&self) -> Vec<OpSlot> {
        self.operations.keys().collect()
    }

    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty()
    }

    pub(super) fn take_landed(&mut self, out: &mut Vec<OpEvent>) {
        out.append(&mut self.landed);
    }

    /// An operation that is to be submitted.
    pub(super) fn insert(&mut self, op: OpSlot, call: CallBox) {
        let state = State::Here(call);
        debug_assert!(self.operations.get_index(op.index).is_none(), "one at a time in a place");
        let (is_stopped, brought) = (false, 0);
        self.operations.insert(op, Operation { state, is_stopped, brought });
    }

    /// Returns those that take, or are to take, provided buffers of this pool.
    pub(super) fn receiving_from(&self, pool: &BufferPool, ring: &Ring) -> Vec<OpSlot> {
        let takes = |operation: &Operation| match &operation.state {
            State::Here(call) => call.pool().is_some_and(|its| its.is(pool)),
            State::InKernel(ticket) => ring.takes_from(*ticket, pool),
            State::Moving => false,
        };
        let its = self.operations.iter().filter(|(_, operation)| takes(operation));
        its.map(|(op, _)| op).collect()
    }

    /// Puts it into the ring. False if there is no room.
    pub(super) fn begin(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        let Some(operation) = self.operations.get_mut(op) else { return true };
        if ring.room() == 0 {
            return false;
        }
        let call = match std::mem::replace(&mut operation.state, State::Moving) {
            State::Here(call) => call,
            other => {
                operation.state = other;
                return true;
            }
        };
        operation.state = State::InKernel(ring.begin(call, op.to_bits()));
        true
    }

    /// It is to end. Gives whether the kernel has to be asked to.
    pub(super) fn stop(&mut self, op: OpSlot) -> bool {
        let Some(operation) = self.operations.get_mut(op) else { return false };
        if std::mem::replace(&mut operation.is_stopped, true) {
            return false;
        }
        match std::mem::replace(&mut operation.state, State::Moving) {
            State::Here(call) => {
                self.end(op, call, Err(canceled()));
                false
            }
            other => {
                operation.state = other;
                true
            }
        }
    }

    /// Asks the kernel to stop it. False if there is no room.
    pub(super) fn ask_to_stop(&mut self, op: OpSlot, ring: &mut Ring) -> bool {
        match self.operations.get_mut(op) {
            Some(Operation { state: State::InKernel(ticket), .. }) => {
                ring.push(Request::Stop(*ticket), About::Stop(op.index).to_bits())
            }
            _ => true,
        }
    }

    /// What the request to stop the operation in this place has come to.
    pub(super) fn note_stop(&mut self, place: u32, result: i32) {
        let operation = self.operations.get_index(place);
        if let Some((op, Operation { is_stopped: true, .. })) = operation {
            if result == -libc::ENOENT {
                self.not_found.push(op);
            }
        }
    }

    /// Has what was not found be stopped again, if it still goes on.
    pub(super) fn stop_again(&mut self, mut ask: impl FnMut(OpSlot)) {
        for op in std::mem::take(&mut self.not_found) {
            if self.is_known(op) {
                ask(op);
            }
        }
    }

    /// It has brought something, and goes on. Gives it back if it is to be stopped: the reactor
    /// begins it anew.
    pub(super) fn bring(&mut self, tag: u64, gain: Gain, is_not_all: bool) -> Option<OpSlot> {
        let op = OpSlot::from_bits(tag);
        let operation = self.operations.get_mut(op)?;
        operation.brought += usize::from(is_not_all);
        let is_enough = is_not_all && operation.brought == MOST_RESULTS;
        self.landed.push(OpEvent::Result { op, result: gain });
        is_enough.then_some(op)
    }

    /// The kernel is done with it. A send that would have to wait is the reactor's from now on.
    pub(super) fn land(&mut self, tag: u64, call: CallBox, result: io::Result<Gain>) {
        let op = OpSlot::from_bits(tag);
        if self.is_known(op) {
            self.end(op, call, result);
        }
    }

    fn end(&mut self, op: OpSlot, call: CallBox, result: io::Result<Gain>) {
        self.operations.remove(op);
        self.landed.push(OpEvent::Completed { op, call, result });
    }
}

/// What an operation is told that was stopped.
fn canceled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

#[cfg(test)]
mod tests;
