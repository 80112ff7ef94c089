//! Sends and receives that are given to the driver at submit.
//!
//! Most find their queue empty. They become `Submitted` in one pass with one lookup each; all
//! others pass through the states.

use super::entry::{Cause, OpEntry};
use super::io::Io;
use super::machine::Operations;
use super::prepare::{call_of, part_of};
use super::queue::{Ends, Queue};
use crate::event::Token;
use crate::key::{OpSlot, Slot};
use crate::op::{Kind, Op};
use crate::sys::io_call::{Call, CallArgs, Work};

impl Operations {
    /// Accepts a send or receive of a socket whose queue is empty, and submits it to the driver.
    /// Returns `None`, with `op` unchanged, for any other or invalid operation.
    pub(super) fn submit_now(
        &mut self,
        op: &mut Op,
        token: Token,
        slot: Slot,
        io: &mut impl Io,
    ) -> Option<OpSlot> {
        // Two calls are possible here, so neither queue nor call need be looked up.
        let (queue, call) = match op.kind {
            Kind::Send | Kind::SendAll | Kind::Write => (Queue::Write, Call::Send),
            Kind::Recv | Kind::RecvExact | Kind::Read => (Queue::Read, Call::Recv),
            _ => return None,
        };
        debug_assert_eq!((Queue::of(op.kind), call_of(op, true)), (queue, Some(call)));
        let is_blocked = self.is_blocked(slot, queue);
        let source = self.sources.get_mut(slot)?;
        if !source.mode.is_socket() || source.emulates(queue) || op.deadline.is_some() {
            return None;
        }
        if is_blocked || source.queue(queue).first.is_some() {
            return None;
        }
        let part = part_of(&op.amount, call).ok()?;
        let mut cell = self.spare_calls.take();
        let loaded = cell.load(Some(source.fd), call, &mut op.buf, part, CallArgs::Nothing);
        if loaded.is_err() {
            self.spare_calls.keep(cell);
            return None;
        }
        let mut entry = OpEntry::new(token, op.kind, None);
        (entry.source, entry.skips_success) = (Some((slot, queue)), op.skip_success);
        let new = self.table.insert(entry);
        source.pending += 1;
        *source.queue_mut(queue) = Ends::of_one(new);
        let entry = self.table.get_mut(new)?;
        let work = Work::Call(cell);
        let is_submitted = if io.can_submit(&work, &mut source.mode) {
            entry.submit_to_driver(new, work, &mut self.silent, false, io)
        } else {
            entry.work = Some(work);
            false
        };
        if !is_submitted {
            self.run_one(new, op.kind, Cause::Turn, io);
            self.run(io);
        }
        Some(new)
    }
}
