//! What an operation can wait for: readiness, a time, a thread, a buffer.

use super::io::Io;
use super::machine::Operations;
use super::table::{OpState, Side};
use crate::key::OpSlot;
use crate::sys::file::Held;
use crate::sys::prepared::Prepared;
use std::io;
use std::time::Duration;

/// The pauses between two attempts where readiness says nothing.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(64);

impl Operations {
    /// Waits until a source is ready.
    pub(super) fn await_ready(&mut self, op: OpSlot, on: Side, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = Duration::ZERO;
        entry.state = OpState::AwaitingReady { on };
        let place = match on {
            Side::Source => entry.source,
            Side::Target => entry.target,
        };
        if let Some((slot, queue)) = place {
            io.await_ready(slot, queue.dir());
        }
    }

    /// Attempts the call again after a while, twice as long as the last time.
    pub(super) fn pause(&mut self, op: OpSlot, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        entry.pause = (2 * entry.pause).clamp(MIN_PAUSE, MAX_PAUSE);
        entry.state = OpState::AwaitingTime;
        let time = io.now() + entry.pause;
        self.table.set_time(op, Some(time));
    }

    /// Makes the call on a thread.
    pub(super) fn spawn(&mut self, op: OpSlot, files: Vec<Held>, io: &mut impl Io) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(call) = entry.call.take() else { return };
        entry.state = OpState::OnThread { cancel: None };
        io.spawn(op, call, files);
    }

    /// Queues an operation for a buffer.
    pub(super) fn await_buffer(&mut self, op: OpSlot) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(pool) = entry.call.as_ref().and_then(Prepared::pool) else { return };
        self.buffers.push(op, pool);
        entry.state = OpState::AwaitingBuffer;
    }

    /// Returns true if other receives wait for all that the pool of this one has.
    pub(super) fn lacks_buffers(&self, op: OpSlot) -> bool {
        let call = self.table.get(op).and_then(|entry| entry.call.as_ref());
        call.and_then(Prepared::pool).is_some_and(|pool| self.buffers.is_short(pool))
    }

    /// Gives a receive from a pool a buffer if it has none. Returns false if it has to wait: others
    /// do already, or there is none.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: it would wait for ever.
    pub(super) fn attach_buffer(&mut self, op: OpSlot, io: &mut impl Io) -> io::Result<bool> {
        let Some(call) = self.table.get_mut(op).and_then(|entry| entry.call.as_mut()) else {
            return Ok(false);
        };
        let Some(pool) = call.pool().filter(|_| call.lacks_buffer()) else { return Ok(true) };
        if self.buffers.is_short(pool) {
            return Ok(false);
        }
        let Some(buf) = pool.take_or_wait(io.notifier())? else { return Ok(false) };
        call.equip(buf);
        Ok(true)
    }
}
