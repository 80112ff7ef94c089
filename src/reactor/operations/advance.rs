//! Attempts: an operation is submitted to the driver, or its call is made until it would block.

use super::attempt::Attempt;
use super::entry::{Cause, OpEntry, OpState, Side};
use super::io::Io;
use super::machine::Operations;
use crate::key::OpSlot;
use crate::op::Outcome;
use crate::sys::io_call::{Call, CallResult};
use std::net::Shutdown;

/// The most calls of an operation in one turn, so that a fast peer does not delay others.
const MAX_CALLS_PER_TURN: usize = 16;
/// The bytes after which a turn ends.
const MAX_BYTES_PER_TURN: usize = 1 << 20;

impl Operations {
    pub(super) fn advance(&mut self, op: OpSlot, cause: Cause, io: &mut impl Io) {
        match cause {
            Cause::Turn => self.start(op, io),
            Cause::Ready | Cause::Retry => self.attempt(op, true, io),
        }
    }

    /// Submits an operation to the driver, or attempts its call.
    pub(super) fn start(&mut self, op: OpSlot, io: &mut impl Io) {
        if !self.is_paused_by_backpressure(op) && !self.try_submit(op, io) {
            self.attempt(op, false, io);
        }
    }

    /// Attempts the call until it would block. `was_ready` is true after a report or a pause.
    fn attempt(&mut self, op: OpSlot, mut was_ready: bool, io: &mut impl Io) {
        let Some((slot, queue)) = self.source_of(op) else { return };
        if let Some(source) = self.sources.get_mut(slot) {
            source.mode.begin_turn();
        }
        let mut moved = 0;
        for _ in 0..MAX_CALLS_PER_TURN {
            if self.is_paused_by_backpressure(op) {
                return;
            }
            match self.attempt_once(op, was_ready, io) {
                Attempt::Settled => return,
                Attempt::Moved(count) => moved += count,
            }
            // The reported readiness may be used up.
            was_ready = false;
            if moved > MAX_BYTES_PER_TURN {
                break;
            }
        }
        self.await_ready(op, Side::Source, io);
        io.recheck(slot, queue.dir());
    }

    fn attempt_once(&mut self, op: OpSlot, was_ready: bool, io: &mut impl Io) -> Attempt {
        let Some(entry) = self.table.get(op) else { return Attempt::Settled };
        let Some(call) = entry.call() else { return self.receive_once(op, was_ready, io) };
        let (Some((slot, queue)), left) = (entry.source, call.left()) else {
            return Attempt::Settled;
        };
        if call.call() == Call::Recv && io.can_skip_attempt(slot, queue.dir()) {
            self.await_ready(op, Side::Source, io);
            return Attempt::Settled;
        }
        let Some(source) = self.sources.get_mut(slot) else { return Attempt::Settled };
        let Some(call) = self.table.get_mut(op).and_then(OpEntry::call_mut) else {
            return Attempt::Settled;
        };
        let result = match io.attempt(call, &mut source.mode) {
            Ok(result) => result,
            Err(error) => {
                self.on_failed_attempt(op, error, was_ready, io);
                return Attempt::Settled;
            }
        };
        let count = if let CallResult::Moved(count) = result { count } else { 0 };
        self.note_moved(op, count, left, io);
        if self.on_result(op, result, io) { Attempt::Moved(count) } else { Attempt::Settled }
    }

    pub(super) fn shut_down(&mut self, op: OpSlot, how: Shutdown, io: &mut impl Io) {
        let Some((slot, _)) = self.source_of(op) else { return };
        let done = io.shutdown(slot, how);
        // Not every mechanism reports the program's own shutdown. The call on an unconnected UDP
        // socket fails, but shuts the socket down.
        io.recheck_all(slot);
        self.complete(op, done.map(|()| Outcome::Done), io);
    }

    /// Pauses an operation if too many of its results are undelivered.
    fn is_paused_by_backpressure(&mut self, op: OpSlot) -> bool {
        let max = self.max_undelivered;
        let Some(entry) = self.table.get_mut(op).filter(|entry| entry.undelivered >= max) else {
            return false;
        };
        entry.state = OpState::Paused;
        true
    }
}
