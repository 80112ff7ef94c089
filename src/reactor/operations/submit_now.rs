//! Sends and receives that a driver has from the moment of their submission.
//!
//! Most find nothing before them in their queue. These are `Submitted` in one pass, in which each
//! thing is looked up once; all others take the way through the states.

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
    /// Accepts a send or a receive of a socket that nothing is before, and gives it to the driver.
    /// Returns `None`, with `op` as before, if it is not one, or not in order.
    pub(super) fn submit_now(
        &mut self,
        op: &mut Op,
        token: Token,
        slot: Slot,
        io: &mut impl Io,
    ) -> Option<OpSlot> {
        // What is known of two calls here need not be asked for each.
        let (queue, call) = match op.kind {
            Kind::Send | Kind::SendAll | Kind::Write => (Queue::Write, Call::Send),
            Kind::Recv | Kind::RecvExact | Kind::Read => (Queue::Read, Call::Recv),
            _ => return None,
        };
        debug_assert_eq!((Queue::of(op.kind), call_of(op, true)), (queue, Some(call)));
        let is_held_up = self.is_held_up(slot, queue);
        let source = self.sources.get_mut(slot)?;
        if !source.mode.is_socket() || source.emulates(queue) || op.deadline.is_some() {
            return None;
        }
        if is_held_up || source.queue(queue).first.is_some() {
            return None;
        }
        let part = part_of(&op.amount, call).ok()?;
        let mut cell = self.spare_calls.take();
        let loaded = cell.load(Some(source.number), call, &mut op.buf, part, CallArgs::Nothing);
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
        let is_given = if io.can_submit(&work, &mut source.mode) {
            entry.give(new, work, &mut self.silent, false, io)
        } else {
            entry.work = Some(work);
            false
        };
        if !is_given {
            self.run_one(new, op.kind, Cause::Turn, io);
            self.run(io);
        }
        Some(new)
    }
}
