//! Multishot receives emulated by the reactor, each into a buffer of a pool.

use super::attempt::Attempt;
use super::entry::{OpState, Side};
use super::io::Io;
use super::machine::Operations;
use crate::key::OpSlot;
use crate::sys::io_call::CallResult;
use crate::sys::pool::PoolBuf;
use std::io;

impl Operations {
    /// Receives once. The buffer is taken just before the call and returned if there are no data,
    /// so that waiting receives hold no buffer.
    pub(super) fn receive_once(
        &mut self,
        op: OpSlot,
        was_ready: bool,
        io: &mut impl Io,
    ) -> Attempt {
        let Some((slot, queue)) = self.source_of(op) else { return Attempt::Settled };
        if io.can_skip_attempt(slot, queue.dir()) {
            self.await_ready(op, Side::Source, io);
            return Attempt::Settled;
        }
        match self.take_buffer(op, io) {
            Ok(Some(buf)) => return self.receive_into(buf, op, was_ready, io),
            Ok(None) => self.await_buffer(op),
            Err(error) => self.complete(op, Err(error), io),
        }
        Attempt::Settled
    }

    pub(super) fn receive_into(
        &mut self,
        mut buf: PoolBuf,
        op: OpSlot,
        was_ready: bool,
        io: &mut impl Io,
    ) -> Attempt {
        let Some((slot, _)) = self.source_of(op) else { return Attempt::Settled };
        let count = match io.recv_now(slot, &mut buf) {
            Ok(count) => count,
            Err(error) => {
                drop(buf);
                self.on_failed_attempt(op, error, was_ready, io);
                return Attempt::Settled;
            }
        };
        let may_wait = self.note_moved(op, count, buf.capacity(), io);
        if !self.on_result(op, CallResult::Received(buf), io) {
            return Attempt::Settled;
        }
        if may_wait {
            self.await_ready(op, Side::Source, io);
            return Attempt::Settled;
        }
        Attempt::Moved(count)
    }

    /// Returns a buffer to receive into; `None` if others wait for one, or there is none.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, because the receive would wait forever.
    fn take_buffer(&mut self, op: OpSlot, io: &mut impl Io) -> io::Result<Option<PoolBuf>> {
        let Some(pool) = self.table.get(op).and_then(|entry| entry.pool()) else {
            return Ok(None);
        };
        if self.buffers.is_short(pool) {
            return Ok(None);
        }
        let buf = pool.take_or_wait(io.notifier())?;
        if buf.is_none() {
            // The driver may provide buffers to an idle stream.
            io.release_buffers(pool);
        }
        Ok(buf)
    }

    /// Queues an operation for a buffer.
    pub(super) fn await_buffer(&mut self, op: OpSlot) {
        let Some(entry) = self.table.get_mut(op) else { return };
        let Some(pool) = entry.pool() else { return };
        self.buffers.push(op, pool);
        entry.state = OpState::AwaitingBuffer;
    }
}
